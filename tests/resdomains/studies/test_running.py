"""A study runs the real command; killed at any time, it goes on and ends with the same table."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from resdomains.cli.main import main
from tests.resdomains.launching import ROOT, surroundings

pytestmark = pytest.mark.slow

STUDY = {
    "set": {
        "trainer.max_epochs": 2,
        "trainer.accelerator": "cpu",
        "run.wandb.mode": "disabled",
        "model.backbone.channels": [8, 16],
        "test_after_fit": False,
    },
    "axes": {"model.backbone.layers": [[1, 1], [2, 2]]},
    "bases": [{"config": ["image_classification/digits", "trainer/float32"]}],
}


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    (folder / "small.yaml").write_text(yaml.safe_dump(STUDY))
    return subprocess.Popen(
        [sys.executable, "-m", "resdomains.cli", "study", "small.yaml", *options],
        cwd=folder,
        env={**surroundings(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def table(folder: Path) -> pd.DataFrame:
    """What the runs came to, without when and how fast."""
    runs = pd.read_csv(folder / "runs" / "studies" / "small" / "comparison" / "runs.csv")
    kept = ["task", "merge", "depth", "seed", "status", "best_score", "last_score", "samples"]
    return runs[kept].sort_values("depth").reset_index(drop=True)


def test_a_study_that_is_killed_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = start(tmp_path / "whole", "--jobs", "2")
    out, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err
    assert "2/2  finished" in out

    killed = start(tmp_path / "killed")
    root = tmp_path / "killed" / "runs" / "studies" / "small"
    finished: list[Path] = []
    until = time.monotonic() + 200
    # One run has finished, and the other is at work.
    while time.monotonic() < until and not finished:
        time.sleep(0.05)
        summaries = list(root.glob("*/*/*/summary.json"))
        finished = [path for path in summaries if '"finished"' in path.read_text()]
    while len(list(root.glob("logs/*.log"))) < 2:
        time.sleep(0.05)
    time.sleep(1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    [first] = finished
    before = first.stat().st_mtime_ns
    again = start(tmp_path / "killed")
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert first.stat().st_mtime_ns == before
    assert len(list(root.glob("*/*/*/summary.json"))) == 2
    pd.testing.assert_frame_equal(table(tmp_path / "whole"), table(tmp_path / "killed"))


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    bases = [{**STUDY["bases"][0], "axes": {"data.batch_size": [64, 100000]}}]  # type: ignore[index]
    study = {**STUDY, "bases": bases, "axes": {}}
    (tmp_path / "failing.yaml").write_text(yaml.safe_dump(study))
    done = subprocess.run(
        [sys.executable, "-m", "resdomains.cli", "study", "failing.yaml", "--jobs", "2"],
        cwd=tmp_path,
        env={**surroundings(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "failed: image_classification/digits, 100000, seed 0" in done.stderr
    assert "  | " in done.stderr
    assert "100000" in done.stderr
    assert "2 runs, 1 finished setups" in done.stdout


def test_a_dry_run_says_what_each_setup_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**STUDY, "seeds": [0, 1]}))
    assert main(["study", str(tmp_path / "small.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "4 runs, 2 setups" in said
    rows = [line.split("│") for line in said.splitlines() if "digits" in line]
    small, large = ([float(cell.replace(",", "")) for cell in row[1:]] for row in rows)
    assert small[0] == large[0] == 2
    assert small[2] == large[2] == 2 * 1344  # two epochs of 21 batches
    assert all(
        one < two for one, two in zip(small[1:2] + small[3:5], large[1:2] + large[3:5], strict=True)
    )
    assert small[4] == pytest.approx(small[3] * small[2], rel=0.01)
    assert not (tmp_path / "runs").exists()


def test_a_run_whose_config_is_wrong_is_named_before_any_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {**STUDY, "axes": {"model.backbone.merge": ["Add", "Ad"]}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    assert main(["study", str(tmp_path / "wrong.yaml"), "--dry-run"]) == 2
    assert (
        "image_classification/digits, Ad, seed 0: model.backbone.merge" in capsys.readouterr().err
    )
