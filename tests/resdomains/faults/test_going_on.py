"""A run with a name of its own: started again it goes on, and once finished it does nothing."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from resdomains import schema
from resdomains.training import RunOptions
from resdomains.training.locking import FolderLock
from resdomains.training.metrics_file import MetricsFile
from tests.resdomains.cli.conftest import TINY, Run

FIT = ("fit", *TINY, "--trainer.log_every_n_steps", "1")
NAMED = (*FIT, "--run.id", "one")
FOLDER = Path("runs", "tiny", "tiny", "one")


def summary(folder: Path = FOLDER) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(r["step"]), float(r[name])) for r in csv.DictReader(file) if r.get(name)]


def stop_at(step: int) -> tuple[str, ...]:
    return ("--model.fault", "NoSpace", "--model.fault.at", str(step))


def test_a_failed_run_goes_on_in_its_folder_and_ends_as_one_left_alone(cli: Run) -> None:
    assert cli(*FIT, "--run.id", "alone")[0] == 0
    alone = FOLDER.with_name("alone")
    # Four steps an epoch. At step 2 there is no checkpoint yet; at 7 that of the first epoch.
    assert cli(*NAMED, *stop_at(2))[0] == 1
    first = summary()
    assert first["status"] == "failed"
    status, out, errors = cli(*NAMED, *stop_at(7))
    assert status == 1, errors
    assert "goes on  from the beginning: nothing was saved before" in out
    assert "go on with: resdomains" in errors
    status, out, errors = cli(*NAMED)
    assert status == 0, errors
    assert f"goes on  from {FOLDER}/checkpoints/last.ckpt (step 4)" in out
    assert curve(FOLDER, schema.TRAIN_LOSS) == curve(alone, schema.TRAIN_LOSS)
    assert curve(FOLDER, schema.VAL_SCORE) == curve(alone, schema.VAL_SCORE)
    last = summary()
    assert last["status"] == "finished"
    assert last["run_id"] == first["run_id"] != summary(alone)["run_id"]
    assert (last["continues"], last["samples"]) == (None, summary(alone)["samples"])
    assert (last["final"], last["best"]) == (summary(alone)["final"], summary(alone)["best"])
    kept = torch.load(FOLDER / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["resdomains"]["run_id"] == first["run_id"]

    before = {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*") if p.name != ".lock"}
    status, out, errors = cli(*NAMED)
    assert (status, errors) == (0, "")
    assert f"finished  before, nothing is left to do; its results: {FOLDER}/summary.json" in out
    assert {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*") if p.name != ".lock"} == before


def test_a_finished_run_goes_on_where_its_end_was_moved(cli: Run) -> None:
    assert cli(*NAMED)[0] == 0
    status, out, errors = cli(*NAMED, "--trainer.max_epochs", "3")
    assert status == 0, errors
    assert f"goes on  from {FOLDER}/checkpoints/last.ckpt (step 8)" in out
    assert "changed  trainer.max_epochs: 2 -> 3" in out
    assert [step for step, _ in curve(FOLDER, schema.TRAIN_LOSS)] == list(range(1, 13))
    assert "nothing is left to do" in cli(*NAMED, "--trainer.max_epochs", "3")[1]


def test_a_monitored_result_is_known_where_its_validation_was_before_the_checkpoint(
    cli: Run,
) -> None:
    Path("stop.yaml").write_text(
        "trainer:\n  callbacks+:\n    class_path: pytorch_lightning.callbacks.EarlyStopping\n"
        "    init_args: {monitor: val/score, mode: max, min_delta: 1.0, patience: 3}\n"
    )
    stops = ("--config", "stop.yaml", "--trainer.max_epochs", "9")
    assert cli(*FIT, *stops, "--run.id", "alone")[0] == 0
    # Four steps an epoch: its last checkpoint is of the first epoch's end.
    assert cli(*NAMED, *stops, *stop_at(7))[0] == 1
    status, out, errors = cli(*NAMED, *stops)
    assert status == 0, errors
    assert "checkpoints/last.ckpt (step 4)" in out
    alone, went_on = (summary(folder) for folder in (FOLDER.with_name("alone"), FOLDER))
    assert alone["epochs"] == went_on["epochs"] == 4
    assert alone["final"] == went_on["final"]


def test_a_run_killed_in_its_test_has_its_results_from_before(cli: Run) -> None:
    assert cli(*NAMED)[0] == 0
    whole = summary()
    (FOLDER / "summary.json").write_text(json.dumps({**whole, "status": "running"}))
    status, _, errors = cli(*NAMED)
    assert status == 0, errors
    again = summary()
    assert again["final"] == pytest.approx(whole["final"])
    assert (again["best"], again["test/score"]) == (whole["best"], whole["test/score"])
    assert len(curve(FOLDER, schema.VAL_SCORE)) == 2


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(cli: Run) -> None:
    assert cli(*NAMED, *stop_at(11), "--trainer.max_epochs", "3")[0] == 1
    last = FOLDER / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    # From elsewhere: nothing in the folder changes.
    status, out, errors = cli(
        *FIT, "--ckpt_path", str(last), "--trainer.max_epochs", "3", "--run.root", "other"
    )
    assert status == 0, errors
    line = (
        f"goes on  from {FOLDER}/checkpoints/previous.ckpt (step 4), because last.ckpt is damaged"
    )
    assert line in out
    (other,) = (path.parent for path in Path("other").rglob("summary.json"))
    assert summary(other)["continues"] == summary()["run_id"] != summary(other)["run_id"]
    for name in ("test", "validate"):
        status, _, errors = cli(name, "--plugin", "tiny_domain", "--ckpt_path", str(last))
        assert status == 2
        assert "last.ckpt: damaged" in errors
        assert "; previous.ckpt beside it is sound (step 4)" in errors
    # In its own folder: the damaged file is out of the way.
    status, out, errors = cli(*NAMED, "--trainer.max_epochs", "3")
    assert status == 0, errors
    assert line in out
    assert sorted(path.name for path in last.parent.iterdir()) == [
        *("best.ckpt", "last.ckpt", "last.ckpt.damaged", "previous.ckpt")
    ]
    assert [step for step, _ in curve(FOLDER, schema.TRAIN_LOSS)] == list(range(1, 13))


def test_a_run_without_a_sound_checkpoint_does_not_begin_anew_by_itself(cli: Run) -> None:
    assert cli(*NAMED, *stop_at(7))[0] == 1
    for path in (FOLDER / "checkpoints").iterdir():
        path.write_bytes(b"")
    status, _, errors = cli(*NAMED)
    assert status == 2
    assert "no other checkpoint of one is sound: remove them to begin anew" in errors


def test_a_run_that_began_with_a_checkpoint_is_started_again_by_the_same_command(cli: Run) -> None:
    assert cli(*FIT, "--run.id", "base")[0] == 0
    base = FOLDER.with_name("base")
    given = ("--ckpt_path", str(base / "checkpoints" / "best.ckpt"), "--trainer.max_epochs", "4")
    assert cli(*NAMED, *given, *stop_at(14))[0] == 1
    assert summary()["continues"] == summary(base)["run_id"]
    status, out, errors = cli(*NAMED, *given)
    assert status == 0, errors
    assert f"goes on  from {FOLDER}/checkpoints/last.ckpt (step 12)" in out, out
    assert summary()["continues"] == summary(base)["run_id"]
    status, _, errors = cli(*NAMED, "--ckpt_path", str(base / "checkpoints" / "last.ckpt"))
    assert status == 2
    assert "one did not begin with it, and goes on from its own checkpoints; leave" in errors


def test_two_runs_in_one_folder_are_refused(cli: Run) -> None:
    FOLDER.mkdir(parents=True)
    program = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "f.write('process 7 on another'); f.flush(); print(flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(FOLDER / ".lock")], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        status, _, errors = cli(*NAMED)
        holder.send_signal(signal.SIGKILL)
    assert status == 2
    assert "process 7 on another is at work in" in errors
    assert "wait for its end, or give another --run.id" in errors
    FolderLock(FOLDER).release()


def test_what_cannot_begin_leaves_no_folder(cli: Run) -> None:
    assert cli(*NAMED, "--data.root", "nowhere")[0] == 2
    assert cli(*NAMED, "--trainer.devices", "0")[0] == 2
    assert not FOLDER.exists()


def test_torchrun_that_restarts_needs_a_name_and_stores_of_its_own(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    status, _, errors = cli(*FIT)
    assert status == 2
    assert "torchrun may restart this job: give --run.id NAME" in errors
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    status, _, errors = cli(*NAMED)
    assert status == 2
    assert "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun" in errors


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "", "a b"])
def test_an_id_is_a_plain_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="id must be a plain file name"):
        RunOptions(id=name)
    with pytest.raises(ValueError, match=r"save_every_n_steps must be .* above 0 or null, got 0"):
        RunOptions(save_every_n_steps=0)


def test_a_table_goes_on_where_its_checkpoint_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsFile(path)
    for step in range(1, 5):
        table.log_metrics({"a": step, schema.SECONDS: step / 2}, step)
    table.log_metrics({"b": torch.tensor(0.5), schema.SECONDS: 2.0}, 4)
    table.log_metrics({"b": 0.25, schema.SECONDS: 2.5}, 4)
    with path.open("a") as file:
        file.write("5,")  # killed while writing
    again = MetricsFile(path)
    again.rewind(4, 2.0)
    again.log_metrics({"a": 9, schema.SECONDS: 3.0}, 5)

    def rows() -> list[tuple[str, str, str]]:
        with path.open(newline="") as file:
            return [(r["step"], r["a"], r["b"]) for r in csv.DictReader(file)]

    kept = [("1", "1", ""), ("2", "2", "")]
    assert rows() == [*kept, ("3", "3", ""), ("4", "4", ""), ("4", "", "0.5"), ("5", "9", "")]
    again.rewind(2, 9.0)
    assert rows() == kept
