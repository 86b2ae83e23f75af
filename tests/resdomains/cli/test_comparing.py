"""`resdomains compare` by its command line, and its page in a real browser."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from resdomains.cli.main import main
from tests.resdomains.comparing.recorded import rows, write_folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two merges at two depths in two domains, and one run that is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    for task, best in (("images", 0.6), ("<b>texts</b>", 0.4)):
        for merge in ("Add", "BranchOnly"):
            for depth in (8, 32):
                for seed in (0, 1):
                    run_id = f"{task[:3].strip('<')}{merge[0]}{depth}{seed}"
                    name = run_id.replace("<", "")
                    write_folder(
                        folder / name,
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


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("report") / "comparison"
    assert main(["compare", str(runs), "--output", str(output)]) == 0
    return output


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


def test_what_is_left_out_is_said(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs), "--output", str(tmp_path / "out"), "--format", "json"]) == 0
    said = capsys.readouterr()
    assert "left out:" in said.err
    assert "damaged: summary.json is damaged" in said.err
    assert len(json.loads(said.out)) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs RUNS"),
        (["nowhere"], "nowhere: is not there"),
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


def test_a_report_is_not_pushed_without_a_login(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(report), "--push", "team/project"]) == 2
    assert "--push: not logged in to W&B" in capsys.readouterr().err


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
        assert len(sizes) == 5
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
