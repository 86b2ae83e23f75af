"""`resdomains compare` by its command line, and its page in a real browser."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from resdomains.cli.main import main
from tests.resdomains.comparing.recorded import rows, walk, write_folder
from tests.resdomains.wandb_server import ENTITY, StoredRun, WandbServer


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two merges at two depths in two domains, and one run that is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    for task, best in (("images", 0.6), ("<b>texts</b>", 0.4)):
        for merge in ("Add", "BranchOnly"):
            for depth in (8, 32):
                for seed in (0, 1):
                    run_id = f"{task.strip('<>b')[:3]}{merge[0]}{depth}{seed}"
                    write_folder(
                        folder / run_id,
                        run_id,
                        task=task,
                        merge=merge,
                        depth=depth,
                        seed=seed,
                        setup=f"{task}{merge}{depth}",
                        rows=rows(5, best=best + 0.1 * seed),
                    )
    (write_folder(folder / "damaged", "damaged") / "summary.json").write_text("{")
    return folder


class Compared(NamedTuple):
    """A comparison, and what it printed."""

    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def compared(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    output = tmp_path_factory.mktemp("report") / "comparison"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["compare", str(runs), "--output", str(output), "--format", "json"]) == 0
    return Compared(output, out.getvalue(), err.getvalue())


@pytest.fixture
def report(compared: Compared) -> Path:
    return compared.folder


def test_a_comparison_leaves_tables_figures_and_a_page(report: Path) -> None:
    assert len(pd.read_csv(report / "runs.csv")) == 16
    seeds = pd.read_csv(report / "seeds.csv")
    assert list(seeds["seeds"]) == [2] * 8
    names = {path.name for path in (report / "figures").iterdir()}
    assert {"skill_over_compute.png", "score_over_depth.svg"} <= names
    assert json.loads((report / "wandb_report.json").read_text())["runs"]["images"]


def test_comparing_loads_no_torch() -> None:
    code = "import sys, resdomains.cli.comparing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_is_left_out_is_said(compared: Compared) -> None:
    assert "left out:" in compared.err
    assert "damaged: summary.json is damaged" in compared.err
    assert len(json.loads(compared.out)) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs RUNS"),
        (["nowhere"], "nowhere: is not there"),
        (["wandb:team/"], "wandb:team/: expected wandb:PROJECT or wandb:ENTITY/PROJECT[/GROUP]"),
        (["RUNS", "--x", "epochs"], "--x epochs: "),
        (["RUNS", "--y", "val/accuracy"], "--y val/accuracy: no run logged it; logged are "),
        (["RUNS", "--output", "RUNS"], "holds other files"),
        (["RUNS", "--colour", "red"], "no option --colour"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str],
    message: str,
    runs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *(str(runs) if a == "RUNS" else a for a in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def server(compared: Compared) -> Iterator[WandbServer]:
    """A server that has the runs of the comparison."""
    with WandbServer() as made, pytest.MonkeyPatch.context() as monkeypatch:
        made.log_in(monkeypatch)
        made.projects.add("resdomains")
        for run_id in pd.read_csv(compared.folder / "runs.csv")["run_id"]:
            made.runs[run_id] = StoredRun("resdomains", run_id)
        yield made
        made.log_out()


def test_a_comparison_becomes_a_report_and_a_workspace(
    server: WandbServer, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = server.runs.popitem()
    assert main(["compare", str(report), "--push", "resdomains"]) == 0
    server.runs.update([one])
    said = capsys.readouterr()
    places = re.findall(r"^(report|workspace) (\S+)$", said.out, re.MULTILINE)
    assert [name for name, _ in places] == ["report", "workspace"]
    assert all(url.startswith(f"{server.url}/{ENTITY}/resdomains") for _, url in places)
    assert "note: W&B has 15 of the 16 runs" in said.err
    assert [view["type"] for view in server.views] == ["runs", "project-view"]
    ids = sorted(pd.read_csv(report / "runs.csv")["run_id"])
    for view in server.views:
        parts = walk(view["spec"])
        filters = [part for part in parts if part.get("op") == "IN"]
        assert sorted(filters[0]["value"]) == ids
        assert all(part["key"] == {"section": "config", "name": "run_id"} for part in filters)
        lines = [p["config"] for p in parts if p.get("viewType") == "Run History Line Plot"]
        assert lines
        assert {line["xAxis"].partition("/")[0] for line in lines} == {"progress"}
        assert all(line["groupAgg"] == "mean" for line in lines)
    sets = [part for part in walk(server.views[0]["spec"]) if "runFeed" in part]
    assert [part["name"] for part in sets] == ["all tasks", "images", "<b>texts</b>"]
    assert all(part["project"]["entityName"] == ENTITY for part in sets)
    assert sets[0]["grouping"] == [{"section": "config", "name": "task.value"}]


def test_a_report_that_cannot_be_sent_is_one_message(
    server: WandbServer,
    report: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(project: str) -> str:
        assert main(["compare", str(report), "--push", project]) == 2
        return capsys.readouterr().err

    before = len(server.views)
    assert "expected PROJECT or ENTITY/PROJECT" in said("a/b/c")
    assert "W&B has no project someone/other" in said("other")
    with server.answering("Runs", {"data": {"project": {"runs": {"edges": []}}}}):
        assert "has none of the 16 runs; `wandb sync` sends offline ones" in said("resdomains")
    with server.answering("upsertView", {"errors": [{"message": "it is read-only"}]}):
        assert "it is read-only" in said("resdomains")
    with server.answering("upsertView", {"data": {"upsertView": None}}):
        assert "W&B refused or failed" in said("resdomains")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "while WANDB_MODE is offline" in said("resdomains")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY")
    server.log_out()
    message = said("team/project")
    assert "--push team/project: not logged in to W&B; `wandb login` does that" in message
    assert len(server.views) == before


def test_curves_show_what_was_logged_unless_somebody_says_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "run", rows=[{"step": 1, "val/loss": 2.0, "progress/samples": 8}])
    output = tmp_path / "out"
    command = ["compare", str(tmp_path / "run"), "--output", str(output)]
    assert main(command) == 0
    assert json.loads((output / "wandb_report.json").read_text())["y"] == "val/loss"
    assert main([*command, "--y", "train/loss"]) == 2
    assert "--y train/loss: no run logged it; logged are " in capsys.readouterr().err
    (tmp_path / "run" / "metrics.csv").write_text("step,val/wer\n1,0.5\n")
    assert main(command) == 2
    assert "no run logged train/loss, val/loss or val/score" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_opens_and_sorts_in_a_browser(report: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("no Chromium on PATH")
    said: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        opened: Any = context.new_page()
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("requestfailed", lambda request: said.append(request.url))
        opened.goto((report / "report.html").as_uri())
        sizes = opened.eval_on_selector_all("img", "found => found.map(i => i.naturalWidth)")
        assert len(sizes) == len(list((report / "figures").glob("*.png"))) == 7
        assert min(sizes) > 100
        # What a run is called is text, never markup.
        assert opened.locator("tbody b").count() == 0
        assert opened.locator("#seeds tbody").inner_text().count("<b>texts</b>") == 4
        for name, number in (("best score", True), ("merge", False)):
            head = opened.locator("#seeds th", has_text=name).first
            column = head.evaluate("head => head.cellIndex")
            for order in ("ascending", "descending"):
                head.locator("button").click()
                assert head.get_attribute("aria-sort") == order
                cells = opened.locator(f"#seeds tbody tr td:nth-child({column + 1})")
                keys: list[Any] = (
                    cells.evaluate_all("found => found.map(c => parseFloat(c.dataset.key))")
                    if number
                    else cells.all_inner_texts()
                )
                assert keys == sorted(keys, reverse=order == "descending")
                assert len(set(keys)) > 1
        browser.close()
    assert said == []
