"""Whole runs of the tiny domain."""

import json
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from resdomains.training import read_checkpoint

from .conftest import TINY, Run


def run_folder(root: Path = Path("runs")) -> Path:
    (folder,) = {path.parent for path in root.rglob("summary.json")}
    return folder


def summary(folder: Path | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(((folder or run_folder()) / "summary.json").read_text())
    return found


def test_a_run_trains_tests_and_keeps_its_record(cli: Run) -> None:
    status, out, errors = cli("fit", *TINY)
    assert status == 0, errors
    folder = run_folder()
    assert re.fullmatch(r"runs/tiny/tiny/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", str(folder))
    for name in ("config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (folder / name).is_file()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == [
        "task",
        "data",
        "network",
        "device",
        "W&B",
        "run",
    ]
    assert "because" in lines[3]
    for shown in ("score", "skill", "accuracy", "samples/s", "time", str(folder)):
        assert shown in out
    kept = summary()
    assert kept["status"] == "finished"
    assert (kept["task"], kept["config"], kept["data"], kept["network"]) == (
        "tiny",
        "tiny",
        "Points",
        "Net",
    )
    assert (kept["samples"], kept["steps"], kept["seed"], kept["world_size"]) == (128, 8, 0, 1)
    assert kept["test/skill"] == pytest.approx(2 * kept["test/score"] - 1, abs=1e-6)
    assert set(kept["best"]) == {"val/score", "val/skill"}
    assert set(kept["final"]) >= {"val/score", "val/skill", "val/loss"}
    assert set(kept["versions"]) >= {"python", "torch"}


def test_batches_of_equal_samples_have_no_amount_to_tell(cli: Run) -> None:
    status, out, errors = cli("fit", *TINY)
    assert status == 0, errors
    assert "a batch holds" not in out


def test_a_run_that_ends_early_says_why(cli: Run) -> None:
    stopping = {"monitor": "val/score", "mode": "max", "stopping_threshold": 0.0}
    part = {
        "class_path": "pytorch_lightning.callbacks.EarlyStopping",
        "init_args": stopping,
    }
    Path("early.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": part}}))
    status, out, errors = cli("fit", *TINY, "--config", "early.yaml")
    assert status == 0, errors
    (line,) = [line for line in out.splitlines() if line.startswith("ended")]
    assert re.search(
        r"after 1 of 2 epochs: Stopping threshold reached: val/score = .* > 0\.0\.$", line
    )
    status, out, errors = cli(
        "fit", *TINY, "--trainer.max_epochs", "-1", "--trainer.max_time", "00:00:00:01",
        "--model.optimization.schedule", "Constant", "--model.optimization.schedule.warmup", "0",
    )  # fmt: skip
    assert status == 0, errors
    assert re.search(r"ended +after \d+ epochs: the time of --trainer\.max_time is over\n", out)


LIGHTNING = "pytorch_lightning.callbacks"


def with_callbacks(*parts: tuple[str, dict[str, Any]]) -> tuple[str, str]:
    """The argument that adds callbacks of Lightning's."""
    listed = [{"class_path": f"{LIGHTNING}.{name}", "init_args": args} for name, args in parts]
    Path("callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": listed}}))
    return "--config", "callbacks.yaml"


def test_lightnings_callbacks_do_their_work(command: Run) -> None:
    added = with_callbacks(
        ("ModelCheckpoint", {"monitor": "val/score", "mode": "max", "save_last": True}),
        ("TQDMProgressBar", {"leave": True}),
        # Its default for an option is no plain value.
        ("Timer", {"duration": {"days": 1}}),
    )
    status, out, errors = command("fit", *TINY, *added)
    assert status == 0, errors
    assert "Validation DataLoader" in out + errors  # as that bar says
    assert "epoch 1/2" not in out + errors
    (run,) = Path("runs").glob("*/*/*")
    assert {path.name for path in (run / "checkpoints").iterdir()} >= {"best.ckpt", "last.ckpt"}
    theirs = run / "lightning" / "checkpoints"
    (best,) = theirs.glob("epoch=*.ckpt")
    assert read_checkpoint(best)["resdomains"] is not None
    assert (theirs / "last.ckpt").is_file()
    kept = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"]
    assert kept[2]["init_args"]["duration"] == {"days": 1}


def test_a_number_is_taken_where_a_function_may_stand_too(cli: Run) -> None:
    pruning = {"pruning_fn": "l1_unstructured", "amount": 0.2, "use_global_unstructured": False}
    status, _, errors = cli("fit", *TINY, *with_callbacks(("ModelPruning", pruning)))
    assert status == 0, errors


def test_a_callback_that_would_fail_later_is_refused(cli: Run) -> None:
    status, _, errors = cli("fit", *TINY, *with_callbacks(("BackboneFinetuning", {})))
    assert status == 2
    assert "trainer.callbacks: BackboneFinetuning adds parameters to an optimizer" in errors
    assert "--model.optimization.frozen K" in errors


def test_a_callback_of_one_process_is_refused_in_two(command: Run) -> None:
    added = with_callbacks(("BatchSizeFinder", {}))
    status, _, errors = command("fit", *TINY, *added, "--trainer.devices", "2")
    assert status == 2
    assert "trainer.callbacks: BatchSizeFinder works in one process alone; set --tra" in errors


def test_an_optimizer_that_does_not_take_the_parameters_is_refused(cli: Run) -> None:
    status, _, errors = cli("fit", *TINY, "--model.optimization.optimizer", "torch.optim.LBFGS")
    assert status == 2
    assert "error: model.optimization: LBFGS doesn't support per-parameter options" in errors


def test_a_profiler_shows_what_it_found(command: Run) -> None:
    status, out, errors = command("fit", *TINY, "--trainer.profiler", "simple")
    assert status == 0, errors
    assert "run_training_epoch" in out + errors


def test_nothing_else_clutters_the_terminal(command: Run) -> None:
    status, out, errors = command("fit", *TINY)
    assert status == 0
    assert re.sub(r"epoch \d/2  loss .*\n", "", errors) == ""
    assert "Warning" not in out


def test_the_test_may_be_left_out_and_is_where_data_have_none(cli: Run) -> None:
    assert cli("fit", *TINY, "--test_after_fit", "false", "--run.root", "a")[0] == 0
    assert cli("fit", *TINY, "--data.tested", "false", "--run.root", "b")[0] == 0
    for root in ("a", "b"):
        assert "test/score" not in summary(run_folder(Path(root)))


def test_the_saved_config_runs_again_and_lies_beside_the_first(cli: Run) -> None:
    assert cli("fit", *TINY, "--seed", "3")[0] == 0
    first = run_folder()
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert (config["seed"], config["run"]["name"]) == (3, "tiny")
    status, _, errors = cli(
        "fit", "--plugin", "tiny_domain", "--config", str(first / "config.yaml")
    )
    assert status == 0, errors
    folders = sorted(path.parent for path in Path("runs").rglob("summary.json"))
    assert len(folders) == 2
    assert summary(folders[0])["final"] == summary(folders[1])["final"]


def test_two_runs_of_the_same_second_get_two_folders(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "2026-01-01_00-00-00")
    assert cli("fit", *TINY)[0] == 0
    assert cli("fit", *TINY)[0] == 0
    assert {path.parent.name for path in Path("runs").rglob("summary.json")} == {
        "2026-01-01_00-00-00",
        "2026-01-01_00-00-00_2",
    }


def test_nothing_is_written_outside_the_run(cli: Run, folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    assert cli("fit", *TINY)[0] == 0
    assert {path.name for path in folder.iterdir()} - before - {"__pycache__"} == {"runs"}


FAULTS = {
    "NotANumber": ("the training loss became nan at step 3", "Lower --model.optimization.lr"),
    "NoSpace": ("no space left for last.ckpt", "free some and go on"),
    "Bug": ("KeyError: 'a mistake in the code'", "error.log"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_run_says_why_and_is_marked_failed(cli: Run, fault: str) -> None:
    status, _, errors = cli("fit", *TINY, "--model.fault", fault)
    assert status == 1
    for part in FAULTS[fault]:
        assert part in errors
    assert "Traceback" not in errors
    assert summary()["status"] == "failed"
    if fault == "Bug":
        assert "strike" in (run_folder() / "error.log").read_text()


def test_traceback_is_shown_when_asked(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, errors = cli("fit", *TINY, "--model.fault", "Bug", "--traceback")
    assert "Traceback" in errors


DDP = ("--config", "trainer/ddp", "--trainer.devices", "2", "--trainer.accelerator", "cpu")


def test_two_processes_of_the_console_script_make_one_run(folder: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / "resdomains"
    command = [str(script)] if script.exists() else [sys.executable, "-m", "resdomains.cli"]
    done = subprocess.run(
        [*command, "fit", *TINY, *DDP], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.sub(r"epoch \d/2  loss .*\n", "", done.stderr) == ""
    assert done.stdout.count("task ") == 1
    kept = summary(run_folder(folder / "runs"))
    assert (kept["world_size"], kept["samples"], kept["status"]) == (2, 128, "finished")


@pytest.mark.slow
def test_a_failing_first_process_ends_the_job_with_its_error(command: Run) -> None:
    start = time.monotonic()
    status, _, errors = command("fit", *TINY, *DDP, "--model.fault", "FirstRankFails")
    assert status != 0
    assert "RuntimeError: the first process met its fault" in errors
    assert time.monotonic() - start < 90
    assert "gloo" not in errors
