"""A study runs the real command; killed at any time, it goes on and ends with the same table."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytest
import yaml

from resdomains.cli.main import main
from resdomains.studies import Tracked, read_study
from tests.resdomains.launching import ALONE, ROOT, surroundings

T = TypeVar("T")
STUDY: dict[str, Any] = {
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


def start(folder: Path, study: Mapping[str, Any], *options: str) -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(yaml.safe_dump(study))
    return subprocess.Popen(
        [*ALONE, "study", "small.yaml", *options],
        cwd=folder,
        env={**surroundings(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def table(root: Path, name: str) -> pd.DataFrame:
    """What the runs came to, but for when, where and how fast."""
    rows = pd.read_csv(root / "comparison" / name)
    measured = re.compile("(seconds|samples_per_second|peak_memory_mib)(_sd)?|run|run_id|source")
    kept = rows[[column for column in rows if not measured.fullmatch(column)]]
    assert {"merge", "depth", "best_score", "last_score", "samples", "flops"} <= {*kept}
    return kept.sort_values(sorted(kept)).reset_index(drop=True)


def wait_for(found: Callable[[], T | None]) -> T:
    until = time.monotonic() + 120
    while (value := found()) is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    return value


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """By kill -9: the study first, then the run that it left at work, which the next study waits for."""
    study = {**STUDY, "axes": {"model.backbone.layers": [[1, 1]]}, "seeds": [0, 1]}
    study["set"] = {**STUDY["set"], "trainer.max_epochs": 3, "run.save_every_n_steps": 5}
    # As many at a time as later: by another share of the cores sums are rounded otherwise.
    whole = start(tmp_path / "whole", study, "--jobs", "2")
    out, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err
    assert "2/2  finished" in out

    killed = start(tmp_path / "killed", study, "--jobs", "2")
    root = tmp_path / "killed" / "runs" / "studies" / "small"
    saved = wait_for(lambda: next(root.glob("*/*/*_seed1-*/checkpoints/last.ckpt"), None))
    second = saved.parents[1]
    left = int((second / ".lock").read_text().split()[1])
    os.kill(left, signal.SIGSTOP)  # at work for as long as this test wants
    first = wait_for(lambda: next(root.glob("*/*/*_seed0-*/summary.json"), None)).parent
    wait_for(lambda: '"finished"' in summary(first) or None)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    said = root / "logs" / f"{first.name}.log"
    # The last line it prints, some time after it has said that it finished.
    wait_for(lambda: said.read_text().splitlines()[-1].startswith("run ") or None)
    before = (first / "summary.json").stat().st_mtime_ns, said.stat().st_mtime_ns
    again = start(tmp_path / "killed", study, "--jobs", "2")
    assert again.stdout is not None
    assert "running elsewhere" in again.stdout.readline()
    assert '"running"' in summary(second)
    os.kill(left, signal.SIGKILL)
    out, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    assert "2/2  finished" in out
    after = (first / "summary.json").stat().st_mtime_ns, said.stat().st_mtime_ns
    assert after == before
    [log] = root.glob(f"logs/{second.name}.log")
    assert "last.ckpt (step" in log.read_text()
    for name in ("runs.csv", "seeds.csv"):
        of_whole = table(tmp_path / "whole" / "runs" / "studies" / "small", name)
        pd.testing.assert_frame_equal(of_whole, table(root, name))


def summary(folder: Path) -> str:
    return (folder / "summary.json").read_text()


@pytest.mark.slow
def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    """Those that are chosen: the third is not run, nor are the others compared."""
    study = {**STUDY, "axes": {"model.optimization.lr": [1.0e30, 0.1, 0.2]}}
    with start(tmp_path / "failing", study, "--only", "1e30_*,image_*/digits/0.1_*") as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "failed: image_classification/digits, 1e+30, seed 0" in err
    assert re.search("^  \\| error: the training loss became nan", err, re.MULTILINE)
    assert "1/2  finished: image_classification/digits, 0.1, seed 0 (0.1_seed0-" in out
    root = tmp_path / "failing" / "runs" / "studies" / "small"
    assert {path.name.split("_")[0] for path in root.glob("*/*/*")} == {"1e30", "0.1"}
    assert not (root / "comparison").exists()


@pytest.mark.slow
def test_a_dry_run_says_what_each_setup_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**STUDY, "seeds": [0, 1]}))
    assert main(["study", str(tmp_path / "small.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "4 runs, 2 setups" in said
    rows = [line.split("│") for line in said.splitlines() if "digits" in line and "│" in line]
    small, large = ([float(cell.replace(",", "")) for cell in row[1:]] for row in rows)
    assert small[0] == large[0] == 2
    assert small[2] == large[2] == 2 * 1344  # two epochs of 21 batches
    assert all(
        one < two for one, two in zip(small[1:2] + small[3:5], large[1:2] + large[3:5], strict=True)
    )
    assert small[4] == pytest.approx(small[3] * small[2], rel=0.01)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_whose_config_is_wrong_is_named_before_any_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {**STUDY, "axes": {"model.backbone.merge": ["Add", "Ad"]}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    assert main(["study", str(tmp_path / "wrong.yaml"), "--dry-run"]) == 2
    assert (
        "image_classification/digits, Ad, seed 0: model.backbone.merge" in capsys.readouterr().err
    )


def test_the_newest_score_is_read_as_the_table_grows(tmp_path: Path) -> None:
    [run] = read_study({**STUDY, "axes": {}}, "small").runs
    folder = tmp_path / "image_classification" / "digits" / run.id
    assert Tracked(run, tmp_path).score is None
    tracked = Tracked(run, tmp_path)
    folder.mkdir(parents=True)
    table = folder / "metrics.csv"
    table.write_text("step,train/loss,val/score\n1,2.0,\n2,,0.25\n")
    assert tracked.score == 0.25
    with table.open("r+") as file:  # what has been read is not read again
        file.write("step,train/loss,val/other")
    with table.open("a") as file:
        file.write("3,1.5,\n4,,0.5")
        file.flush()
        assert tracked.score == 0.25  # a half-written line counts when it is whole
        file.write("625\n")
    assert tracked.score == 0.5625
    # A new column: the file is another.
    draft = folder / "metrics.csv.part"
    draft.write_text("lr,step,train/loss,val/score\n,2,,0.75\n" + "0.1,3,1.0,\n" * 20)
    draft.replace(table)
    assert tracked.score == 0.75
    table.unlink()
    assert tracked.score == 0.75
