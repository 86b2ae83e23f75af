"""A W&B server on this machine: it keeps what W&B's own client sends and answers W&B's own API with it."""

import gzip
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

ENTITY = "someone"


@dataclass
class StoredRun:
    """What the client sent of a run."""

    project: str
    name: str
    display_name: str | None = None
    group: str | None = None
    job_type: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None


@dataclass
class StoredArtifact:
    """What the client sent of a version of an artifact."""

    name: str
    kind: str
    run: str
    aliases: list[str]
    metadata: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False


class WandbServer(http.server.ThreadingHTTPServer):
    """As much of a W&B server as its client needs to write runs, artifacts and reports, and to read runs.

    Args:
        silent: Whether it takes every request and never answers.
    """

    daemon_threads = True

    def __init__(self, silent: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.closing = threading.Event()
        self.silent = silent
        self.breaks: str | None = None
        """A part of an operation's name or a path: once that is asked for, all that follows fails."""
        self.fails = False
        """Whether everything is answered with status 500."""
        self._answers: dict[str, dict[str, Any]] = {}
        self.projects: set[str] = set()
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: list[StoredArtifact] = []
        self.views: list[dict[str, Any]] = []
        self.asked: list[str] = []
        """The operations that were asked for, in order."""
        self.per_page = 2

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def log_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process and its children use the server."""
        self.log_out()
        monkeypatch.setenv("WANDB_BASE_URL", self.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        monkeypatch.delenv("WANDB_MODE", raising=False)

    def log_out(self) -> None:
        """End W&B's process, which knows one server."""
        import wandb

        wandb.teardown()

    @contextmanager
    def answering(self, operation: str, answer: dict[str, Any]) -> Iterator[None]:
        """Give an operation this answer in place of the true one."""
        self._answers[operation] = answer
        try:
            yield
        finally:
            del self._answers[operation]

    def answer(self, operation: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a GraphQL operation is answered."""
        given = self._answers.get(operation)
        if given is not None:
            return given
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).lower()
        method = getattr(self, f"_{name}", None)
        if method is None:
            return {"errors": [{"message": f"this server knows no {operation}"}]}
        return {"data": method(values)}

    # What reads and writes alike ask for.

    def _viewer(self, _: Mapping[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        names = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}"}
        return {"viewer": {**names, "teams": teams}}

    _get_default_entity = _viewer

    def _server_features_query(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _organization_core_weave_organization_id(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"entity": None}

    # What writes a run.

    def _run_resume_status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": None}

    def _upsert_bucket(self, values: Mapping[str, Any]) -> dict[str, Any]:
        name, project = values["name"], values["project"]
        self.projects.add(project)
        run = self.runs.setdefault(name, StoredRun(project, name))
        run.display_name = values.get("displayName") or run.display_name
        run.group = values.get("groupName") or run.group
        run.job_type = values.get("jobType") or run.job_type
        run.config |= json.loads(values.get("config") or "{}")
        owner = {"id": "e", "name": ENTITY}
        where = {"id": f"p-{project}", "name": project, "entity": owner}
        bucket = {"id": f"r-{name}", "name": name, "displayName": run.display_name}
        bucket |= {"config": json.dumps(run.config), "project": where, "historyLineCount": 0}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _create_run_files(self, values: Mapping[str, Any]) -> dict[str, Any]:
        run = values["run"]
        files = [{"name": n, "uploadUrl": f"{self.url}/put/{run}/{n}"} for n in values["files"]]
        return {"createRunFiles": {"runID": f"r-{run}", "uploadHeaders": [], "files": files}}

    def stream(self, name: str, sent: Mapping[str, Any]) -> None:
        """Take what the client streams of a run."""
        run = self.runs[name]
        files = sent.get("files") or {}
        if "wandb-history.jsonl" in files:
            rows = files["wandb-history.jsonl"]
            run.history[rows["offset"] :] = rows["content"]
        if "wandb-summary.json" in files:
            run.summary |= json.loads(files["wandb-summary.json"]["content"][-1])
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")

    # What writes artifacts.

    def _artifact_type(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _xxhash_digests_enabled(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"entity": None}

    def _create_artifact(self, values: Mapping[str, Any]) -> dict[str, Any]:
        said = values["input"]
        made = StoredArtifact(
            name=said["artifactCollectionName"],
            kind=said["artifactTypeName"],
            run=said["runName"],
            aliases=[alias["alias"] for alias in said.get("aliases") or []],
            metadata=json.loads(said.get("metadata") or "{}"),
        )
        self.artifacts.append(made)
        artifact = {"id": f"a-{len(self.artifacts) - 1}", "state": "PENDING"}
        sequence = {"id": f"s-{made.name}", "latestArtifact": None}
        return {"createArtifact": {"artifact": {**artifact, "artifactSequence": sequence}}}

    def _create_artifact_manifest(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": self._manifest(values["artifactID"])}

    def _update_artifact_manifest(self, values: Mapping[str, Any]) -> dict[str, Any]:
        artifact = values["artifactManifestID"].removeprefix("m-")
        return {"updateArtifactManifest": self._manifest(artifact)}

    def _manifest(self, artifact: str) -> dict[str, Any]:
        url = f"{self.url}/artifact/{artifact}/manifest.json"
        file = {"id": f"f-{artifact}", "uploadUrl": url, "uploadHeaders": []}
        return {"artifactManifest": {"id": f"m-{artifact}", "file": file}}

    def _create_artifact_files(self, values: Mapping[str, Any]) -> dict[str, Any]:
        nodes = []
        for file in values["input"]["artifactFiles"]:
            artifact, name = file["artifactID"], file["name"]
            url = f"{self.url}/artifact/{artifact}/{name}"
            node = {"storagePath": name, "uploadUrl": url, "uploadHeaders": []}
            nodes.append(node | {"uploadMultipartUrls": None, "artifact": {"id": artifact}})
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _commit_artifact(self, values: Mapping[str, Any]) -> dict[str, Any]:
        artifact = values["artifactID"]
        self.artifacts[int(artifact.removeprefix("a-"))].committed = True
        return {"commitArtifact": {"artifact": {"id": artifact, "digest": ""}}}

    def _artifact_by_id(self, values: Mapping[str, Any]) -> dict[str, Any]:
        made = self.artifacts[int(values["id"].removeprefix("a-"))]
        where = {"id": "p", "internalId": "1", "name": self.runs[made.run].project}
        project = {**where, "entity": {"name": ENTITY}}
        artifact: dict[str, Any] = dict.fromkeys(("description", "historyStep", "commitHash"))
        artifact |= {"__typename": "Artifact", "id": values["id"], "versionIndex": 0, "size": 1}
        artifact |= {"artifactType": {"name": made.kind}, "metadata": json.dumps(made.metadata)}
        artifact |= {"tags": [], "aliases": [], "state": "COMMITTED", "digest": "", "fileCount": 1}
        artifact |= {"digestAlgorithm": "MANIFEST_MD5", "ttlIsInherited": False}
        artifact["ttlDurationSeconds"] = -1
        artifact |= dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00Z")
        sequence = {"__typename": "ArtifactSequence", "name": made.name, "project": project}
        return {"artifact": {**artifact, "artifactSequence": sequence}}

    # What reads runs.

    def _runs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        if values["project"] not in self.projects or values["entity"] != ENTITY:
            return {"project": None}
        wanted = json.loads(values.get("filters") or "{}")
        ids = wanted.get("config.run_id", {}).get("$in", self.runs)
        runs = [
            run
            for run in self.runs.values()
            if run.project == values["project"]
            and wanted.get("group") in (None, run.group)
            and run.name in ids
        ]
        begin = int(values.get("cursor") or 0)
        page = runs[begin : begin + self.per_page]
        end = begin + len(page)
        edges = [
            {"node": self._node(run), "cursor": str(begin + number)}
            for number, run in enumerate(page, 1)
        ]
        info = {"endCursor": str(end), "hasNextPage": end < len(runs)}
        found = {"edges": edges, "pageInfo": info}
        return {"project": {"internalId": "1", "runCount": len(runs), "runs": found}}

    def _node(self, run: StoredRun) -> dict[str, Any]:
        state = {None: "running", 0: "finished"}.get(run.exit_code, "failed")
        return {
            "id": f"r-{run.name}",
            "projectId": "1",
            "name": run.name,
            "displayName": run.display_name,
            "state": state,
            "group": run.group,
            "jobType": run.job_type,
            "tags": [],
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyLineCount": len(run.history),
            "historyKeys": {"lastStep": self._last_step(run)},
            "user": {"name": ENTITY, "username": ENTITY},
        }

    def _last_step(self, run: StoredRun) -> int:
        return max((json.loads(row)["_step"] for row in run.history), default=-1)

    def _of_run(self, name: str, answer: Any) -> dict[str, Any]:
        return {"project": {"internalId": "1", "run": None if name not in self.runs else answer}}

    def _run_history_keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        run = self.runs[values["name"]]
        return self._of_run(run.name, {"historyKeys": {"lastStep": self._last_step(run)}})

    def _run_parquet_history(self, values: Mapping[str, Any]) -> dict[str, Any]:
        none: dict[str, Any] = {"parquetUrls": [], "liveData": []}
        return self._of_run(values["runName"], {"parquetHistory": none})

    def _history_page(self, values: Mapping[str, Any]) -> dict[str, Any]:
        steps = range(values["minStep"], values["maxStep"])
        rows = [r for r in self.runs[values["run"]].history if json.loads(r)["_step"] in steps]
        return self._of_run(values["run"], {"history": rows})

    def _run_files(self, values: Mapping[str, Any]) -> dict[str, Any]:
        run = self.runs[values["name"]]
        nodes = [
            {"id": name, "name": name, "sizeBytes": len(data), "mimetype": "", "updatedAt": None}
            | {"url": f"{self.url}/get/{run.name}/{name}", "directUrl": "", "md5": ""}
            for name, data in run.files.items()
            if name in values["fileNames"]
        ]
        edges = [{"node": node, "cursor": str(number)} for number, node in enumerate(nodes)]
        files = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return self._of_run(run.name, {"fileCount": len(nodes), "files": files})

    # What writes reports.

    def _project_internal_id(self, values: Mapping[str, Any]) -> dict[str, Any]:
        known = values["projectName"] in self.projects and values["entityName"] == ENTITY
        return {"project": {"id": "p", "internalId": "1"} if known else None}

    def _get_projects(self, _: Mapping[str, Any]) -> dict[str, Any]:
        same = {"__typename": "Project", "entityName": ENTITY, "isBenchmark": False, "user": None}
        same |= {"createdAt": "2026-01-01T00:00:00Z"}
        nodes = [{**same, "id": f"p-{name}", "name": name} for name in sorted(self.projects)]
        edges = [{"node": node} for node in nodes]
        info = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        return {"models": {"pageInfo": info, "edges": edges}}

    def _upsert_view(self, values: Mapping[str, Any]) -> dict[str, Any]:
        self.views.append({**values, "spec": json.loads(values["spec"])})
        view = {name: values.get(name) for name in ("name", "type", "displayName", "description")}
        view |= {"id": f"v-{len(self.views)}", "spec": values["spec"], "updatedAt": None}
        where = {"id": "p", "name": values["projectName"], "entityName": values["entityName"]}
        return {"upsertView": {"view": {**view, "project": where}, "inserted": True}}

    _upsert_view2 = _upsert_view


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_POST(self) -> None:
        data = self._body()
        if self.path == "/graphql":
            sent = json.loads(data)
            found = re.search(r"(?:query|mutation)\s+(\w+)", sent["query"])
            operation = found[1] if found else ""
            self.server.asked.append(operation)
            if self._alive(operation):
                self._say(json.dumps(self.server.answer(operation, sent.get("variables") or {})))
        elif self._alive(self.path):
            if self.path.endswith("/file_stream"):
                self.server.stream(self.path.split("/")[-2], json.loads(data))
            self._say("{}")

    def do_PUT(self) -> None:
        data = self._body()
        if not self._alive(self.path):
            return
        _, what, of, name = self.path.split("/", 3)
        if what == "put":
            self.server.runs[of].files[name] = data
        else:
            self.server.artifacts[int(of.removeprefix("a-"))].files[name] = data
        self._say("")

    def do_GET(self) -> None:
        if not self._alive(self.path):
            return
        _, _, of, name = self.path.split("/", 3)
        with suppress(KeyError):
            self._say(self.server.runs[of].files[name])
            return
        self._say("", 404)

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        packed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(data) if packed else data

    def _alive(self, asked: str) -> bool:
        """Whether this request is answered as asked; else it has been answered, or never will be."""
        server = self.server
        if server.silent:
            server.closing.wait()
            return False
        if server.fails:
            self._say("{}", 500)
            return False
        server.fails = server.breaks is not None and server.breaks in asked
        return True

    def _say(self, content: str | bytes, status: int = 200) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""
