"""Runs are found wherever somebody points, each once; what cannot be read is named."""

from pathlib import Path

import pytest

from resdomains.comparing import read_runs
from tests.resdomains.comparing.recorded import write_folder


def test_folders_of_runs_globs_and_summaries_are_found_once(tmp_path: Path) -> None:
    for number in range(3):
        write_folder(tmp_path / "runs" / "task" / f"run{number}", run_id=f"run{number}")
    whole = str(tmp_path / "runs")
    some = str(tmp_path / "runs" / "*" / "run[01]")
    one = str(tmp_path / "runs" / "task" / "run0" / "summary.json")
    assert len(read_runs([whole, some, one]).runs) == 3
    assert len(read_runs([some]).runs) == 2
    assert len(read_runs([one]).runs) == 1


def test_a_run_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path / "good", run_id="good")
    (write_folder(tmp_path / "cut", run_id="cut") / "summary.json").write_text('{"task": "x"')
    other = write_folder(tmp_path / "words", run_id="words")
    (other / "metrics.csv").write_text("step,train/loss\n1,0.5\nkilled,here\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text("[1, 2]")
    other = write_folder(tmp_path / "stepless", run_id="stepless")
    (other / "metrics.csv").write_text("train/loss\n1.0\n")
    other = write_folder(tmp_path / "best", run_id="best")
    (other / "summary.json").write_text('{"task": "x", "status": "finished", "best": "high"}')
    found = read_runs([str(tmp_path)])
    assert [run.run_id for run in found.runs] == ["good"]
    told = {Path(error.source).name: error.reason for error in found.left_out}
    assert "damaged" in told["cut"]
    assert "holds more than numbers" in told["words"]
    assert "no run of resdomains" in told["other"]
    assert "they have no step" in told["stepless"]
    assert "best results are damaged" in told["best"]


def test_a_killed_run_is_unfinished_and_not_lost(tmp_path: Path) -> None:
    write_folder(tmp_path / "killed", status="running")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "summary.json").write_text('{"task": "x", "config": "y"}')
    found = read_runs([str(tmp_path)])
    assert len(found.runs) == 2


def test_a_study_is_found_by_its_name_unless_a_path_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("runs/studies/merges/task/config/run"), run_id="of_study")
    assert [run.run_id for run in read_runs(["merges"]).runs] == ["of_study"]
    write_folder(Path("merges/run"), run_id="of_path")
    assert [run.run_id for run in read_runs(["merges"]).runs] == ["of_path"]


@pytest.mark.parametrize(
    ("asked", "message"), [("nothing", "is not there"), ("empty", "holds no run")]
)
def test_what_is_not_there_is_said(asked: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        read_runs([str(tmp_path / asked)])
