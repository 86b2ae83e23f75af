"""A run that a signal ends between two steps, and what it is when it goes on."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pytest

from resdomains import schema
from resdomains.cli.main import main
from tests.resdomains.launching import ALONE, DIGITS, TWO, end, launch, start

pytestmark = pytest.mark.slow

SIGNALLING = "tests.resdomains.faults.signalling"
RUN = ("--plugin", SIGNALLING, "--run.id", "one", "--run.wandb.mode", "disabled")
EPOCHS = ("--trainer.max_epochs", "2")
NAMES = (schema.TRAIN_LOSS, schema.VAL_LOSS, schema.VAL_SCORE, "test/loss", schema.SAMPLES)
Rows = list[tuple[str, ...]]


def signalled(where: str, at: int, name: str, **more: float) -> list[str]:
    values = {"where": where, "at": at, "name": name, **more}
    callback = {"class_path": f"{SIGNALLING}.Signalling", "init_args": values}
    return ["--trainer.callbacks+", json.dumps(callback)]


def rows(folder: Path) -> Rows:
    [path] = folder.rglob("metrics.csv")
    with path.open(newline="") as file:
        kept = [
            tuple(row.get(name, "") for name in ("step", *NAMES)) for row in csv.DictReader(file)
        ]
    return [row for row in kept if any(row[1:])]


def status(folder: Path) -> str:
    [path] = folder.rglob("summary.json")
    return str(json.loads(path.read_text())["status"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert main(["fit", *DIGITS, *RUN, *EPOCHS, "--run.root", str(folder)]) == 0
    return folder


@pytest.mark.parametrize(
    ("where", "at", "name", "code"),
    [
        ("train", 7, "SIGTERM", 143),
        ("train", 19, "SIGUSR1", 143),  # an epoch's last step: its validation is still to come
        ("validation", 1, "SIGINT", 130),  # with averaged weights in the network's place
        ("test", 1, "SIGTERM", 143),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    where: str,
    at: int,
    name: str,
    code: int,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    command = ["fit", *DIGITS, *RUN, *EPOCHS, "--run.root", str(tmp_path)]
    assert main([*command, *signalled(where, at, name)]) == code
    assert status(tmp_path) == ("interrupted" if code == 130 else "terminated")
    said = capsys.readouterr().err
    assert f"{name}: stopping after this step" in said
    assert "go on with: " in said
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    steps = len([row for row in rows(tmp_path) if row[1]])
    assert steps == {"train": at + 1, "validation": 20, "test": 40}[where]
    assert main(command) == 0
    assert status(tmp_path) == "finished"
    assert rows(tmp_path) == rows(whole)


def test_an_evaluation_stops_too(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [checkpoint] = whole.rglob("best.ckpt")
    command = ["test", "--plugin", SIGNALLING, "--ckpt_path", str(checkpoint)]
    assert main([*command, *signalled("test", 1, "SIGTERM")]) == 143
    assert capsys.readouterr().err.endswith("error: terminated\n")


def test_a_signal_to_one_of_two_processes_ends_both(tmp_path: Path) -> None:
    """It reaches the second process alone: in training, and when the run has gone on, in its validation."""

    def fit(name: str, *more: str) -> list[str]:
        (tmp_path / name).mkdir(exist_ok=True)
        done = launch([*ALONE, "fit", *DIGITS, *RUN, *TWO, *more], tmp_path / name)
        assert done.returncode == (143 if more else 0), done.stderr
        assert done.stderr.count("go on with: ") == bool(more)
        return [row[1] for row in rows(tmp_path / name)]

    part = fit("stopped", *signalled("train", 7, "SIGTERM", rank=1))
    # The processes agree on a step while they compute the next.
    assert 8 <= len(part) <= 10
    rest = fit("stopped", *signalled("validation", 0, "SIGUSR1", rank=1))
    assert status(tmp_path / "stopped") == "terminated"
    assert rest == [row for row in fit("whole") if row][:20]


def test_a_second_signal_ends_a_run_that_hangs(tmp_path: Path) -> None:
    options = signalled("train", 3, "SIGINT", hang=300)
    process = start([*ALONE, "fit", *DIGITS, *RUN, *options], tmp_path)
    assert process.stderr is not None
    while "stopping after this step" not in process.stderr.readline():
        pass
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    done = end(process, tmp_path)
    assert done.returncode == 143
    assert time.monotonic() - begun < 30


def test_a_signal_to_all_processes_leaves_the_workers_until_the_run_has_stopped(
    tmp_path: Path,
) -> None:
    options = ["--data.num_workers", "1", "--trainer.max_epochs", "1000"]
    process = start([*ALONE, "fit", *DIGITS, *RUN, *options], tmp_path)
    assert process.stderr is not None
    while "epoch 2/" not in process.stderr.readline():
        pass
    os.killpg(process.pid, signal.SIGTERM)
    done = end(process, tmp_path)
    assert done.returncode == 143, done.stderr
