"""W&B may be away, fail or die: training goes on and its record is whole. The client is W&B's own."""

import http.server
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resdomains import schema
from resdomains.training import WandbOptions
from tests.resdomains.launching import ALONE, DIGITS, Finished, end, launch, start

FIT = [*ALONE, "fit", *DIGITS, "--test_after_fit", "false", "--run.wandb.mode", "online"]


class Server(http.server.ThreadingHTTPServer):
    """As much of a W&B server as its client needs to begin a run, which later answers 500 to everything.

    Args:
        silent: Whether it takes every request and never answers.
    """

    daemon_threads = True

    def __init__(self, silent: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.closing = threading.Event()
        self.silent = silent
        self.fails = False


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.silent:
            self.server.closing.wait()
            return
        if self.server.fails:
            self._answer(500, {})
            return
        # Once the run sends rows (its machine's, to begin with), nothing more is taken.
        self.server.fails = "file_stream" in self.path
        entity = {"id": "e", "name": "someone"}
        project = {"id": "p", "name": "resdomains", "entity": entity}
        bucket = {"id": "cnVu", "name": "run", "displayName": "run", "config": "{}"}
        begun = {"bucket": {**bucket, "project": project}, "inserted": True}
        uploads = {"runID": "cnVu", "uploadHeaders": [], "files": []}
        self._answer(200, {"data": {"upsertBucket": begun, "createRunFiles": uploads}})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(silent=getattr(request, "param", False)) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{made.server_address[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        yield made
        made.closing.set()
        made.shutdown()


def losses(run: Finished) -> list[tuple[int, float]]:
    """The training losses in the file that `wandb sync` sends."""
    command = ["wandb", "leet", "inspect", "--json", str(run.only("*.wandb"))]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [json.loads(line).get("history", {}).get("item", {}) for line in text.splitlines()]
    return [
        (row["trainer/global_step"], row[schema.TRAIN_LOSS])
        for row in rows
        if schema.TRAIN_LOSS in row
    ]


@pytest.mark.slow
def test_a_server_that_fails_in_mid_run_holds_nothing_up_and_loses_nothing(
    server: Server, tmp_path: Path
) -> None:
    run = launch([*FIT, "--run.wandb.finish_timeout", "8"], tmp_path)
    assert run.returncode == 0, run.stderr
    assert server.fails
    assert "http://127.0.0.1" in run.stdout
    said = "W&B did not take all of the run within 8 s; `wandb sync runs/image_classification"
    assert said in run.stderr
    assert losses(run) == run.curve(schema.TRAIN_LOSS)
    assert len(losses(run)) == 20


@pytest.mark.slow
@pytest.mark.parametrize("server", [True], indirect=True, ids=["silent"])
def test_neither_a_server_that_never_answers_nor_a_dead_client_ends_training(
    server: Server, tmp_path: Path
) -> None:
    options = ["--run.wandb.init_timeout", "2", "--trainer.max_epochs", "8"]
    with start([*FIT, *options], tmp_path) as process:
        while process.poll() is None and not any(
            table.stat().st_size for table in tmp_path.rglob("metrics.csv")
        ):
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()
        os.kill(client_of(process.pid), signal.SIGKILL)
        run = end(process, tmp_path)
    assert run.returncode == 0, run.stderr
    assert "W&B      not reached (" in run.stdout
    assert "; kept offline, `wandb sync runs/image_classification" in run.stdout
    assert run.stderr.count("W&B's process has ended") == 1
    assert "Traceback" not in run.stderr
    assert run.summary["status"] == "finished"
    assert len(run.curve(schema.TRAIN_LOSS)) == 160
    assert len(losses(run)) < 160  # else the client had died too late


def client_of(process: int) -> int:
    """W&B's own process among the children of a run."""
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(process)]
    children = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    [client] = [line for line in children.splitlines() if "wandb-core" in line]
    return int(client.split()[0])


def test_online_needs_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"wandb\.mode online needs a login: `wandb login`"):
        WandbOptions(mode="online")
    assert WandbOptions().resolved_mode() == "offline"


def test_a_time_is_positive() -> None:
    with pytest.raises(ValueError, match=r"wandb\.init_timeout must be seconds above 0, got 0"):
        WandbOptions(init_timeout=0)
    with pytest.raises(ValueError, match=r"wandb\.finish_timeout must be seconds above 0, got -1"):
        WandbOptions(finish_timeout=-1)
