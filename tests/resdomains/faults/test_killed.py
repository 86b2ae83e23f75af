"""Kill -9 at any moment: started again, the run goes on as if nothing had been. Every run here is the real command."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import yaml

from resdomains import schema
from resdomains.training import newest_checkpoint
from tests.resdomains.launching import ALONE, ROOT, TORCHRUN, TWO, Finished

pytestmark = pytest.mark.slow

HELD = "tests.resdomains.faults.held"
CONFIG = {
    # 16 steps an epoch
    "trainer": {
        "max_epochs": 4,
        "log_every_n_steps": 1,
        "accelerator": "cpu",
        "precision": "32-true",
        "callbacks": [{"class_path": "resdomains.training.EMA"}],
    },
    "model": {
        "class_path": f"{HELD}.Task",
        "init_args": {
            "backbone": {"class_path": "tests.resdomains.cli.tiny_domain.Net"},
            "optimization": {"optimizer": {"class_path": "torch.optim.AdamW"}},
        },
    },
    "data": {"class_path": f"{HELD}.Held", "init_args": {"batch_size": 4}},
    "run": {"id": "named", "wandb": {"mode": "disabled"}, "save_every_n_steps": 1},
}

RUN = Path("runs", "task", "held", "named")


def command(folder: Path, *more: str) -> list[str]:
    (folder / "held.yaml").write_text(yaml.safe_dump(CONFIG))
    return ["fit", "--plugin", HELD, "--config", "held.yaml", *more]


@contextmanager
def started(
    arguments: list[str], folder: Path, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                for path in folder.glob("pid*"):  # torchrun's are in groups of their own
                    with suppress(ProcessLookupError):
                        os.kill(int(path.read_text()), signal.SIGKILL)


def to_the_end(arguments: list[str], folder: Path) -> Finished:
    with started(arguments, folder) as process:
        out, errors = process.communicate(timeout=120)
    return Finished(process.returncode, out, errors, folder)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.0005)


def killed(arguments: list[str], folder: Path, condition: Callable[[], bool]) -> None:
    """Start the command, and kill it as soon as a condition holds."""
    with started(arguments, folder) as process:
        wait_for(condition, process)
        process.kill()
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def rows(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0


def test_a_run_killed_in_a_write_and_in_a_validation_ends_as_one_left_alone(tmp_path: Path) -> None:
    alone, folder = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    folder.mkdir()
    expected = to_the_end([*ALONE, *command(alone)], alone)
    assert expected.returncode == 0, expected.stderr

    arguments = [*ALONE, *command(folder)]
    run = folder / RUN
    draft = run / "checkpoints" / "last.ckpt.part"
    steps = random.SystemRandom().randrange(3, 40)
    killed(arguments, folder, lambda: rows(run / "metrics.csv") > steps and draft.exists())
    saved = newest_checkpoint(run / "checkpoints")
    assert saved is not None
    assert saved.step in range(steps - 3, steps + 2)
    assert (run / "summary.json").read_text().count('"status": "running"') == 1

    (folder / "validating").unlink(missing_ok=True)
    (folder / "hold").touch()
    killed(arguments, folder, (folder / "validating").exists)
    (folder / "hold").unlink()
    saved = newest_checkpoint(run / "checkpoints")
    assert saved is not None
    assert saved.step % 16 == 15, "the step before the validation"

    found = to_the_end(arguments, folder)
    assert found.returncode == 0, found.stderr
    line = f"goes on  from runs/task/held/named/checkpoints/last.ckpt (step {saved.step})"
    assert line in found.stdout
    assert found.curve(schema.TRAIN_LOSS) == expected.curve(schema.TRAIN_LOSS), steps
    assert [step for step, _ in found.curve(schema.TRAIN_LOSS)] == list(range(1, 65))
    for name in (schema.VAL_LOSS, schema.SAMPLES):
        assert found.curve(name) == expected.curve(name), steps
    examples = [r.only("examples.txt").read_text() for r in (found, expected)]
    assert examples[0] == examples[1]
    assert examples[0].count("score") == 4
    same = ("final", "best", "test/score", "test/loss", "samples", "flops", "steps", "epochs")
    assert {k: found.summary[k] for k in same} == {k: expected.summary[k] for k in same}
    for name in ("last.ckpt", "best.ckpt", "previous.ckpt"):
        one, two = (torch.load(r.only(name), weights_only=True) for r in (found, expected))
        # The averaged weights, and those that are trained.
        for part in ("state_dict", "current_model_state"):
            assert all(torch.equal(v, two[part][k]) for k, v in one[part].items()), name


def test_a_killed_process_ends_lightnings_job_with_an_error(tmp_path: Path) -> None:
    with started([*ALONE, *command(tmp_path, *TWO)], tmp_path) as process:
        wait_for(lambda: rows(tmp_path / RUN / "metrics.csv") > 3, process)
        os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "another process ended" in errors


def test_torchrun_restarts_a_job_of_which_a_process_was_killed(tmp_path: Path) -> None:
    alone, folder = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    folder.mkdir()
    expected = to_the_end([*TORCHRUN, *command(alone, *TWO)], alone)
    assert expected.returncode == 0, expected.stderr
    restarts = [*TORCHRUN[:3], "--max-restarts", "1", *TORCHRUN[3:]]
    steps = random.SystemRandom().randrange(3, 25)
    own_stores = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with started([*restarts, *command(folder, *TWO)], folder, **own_stores) as process:
        wait_for(lambda: rows(folder / RUN / "metrics.csv") > steps, process)
        os.kill(int((folder / "pid1").read_text()), signal.SIGKILL)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "goes on  from runs/task/held/named/checkpoints/last.ckpt" in out
    found = Finished(0, out, errors, folder)
    assert found.curve(schema.TRAIN_LOSS) == expected.curve(schema.TRAIN_LOSS), steps
    assert [step for step, _ in found.curve(schema.TRAIN_LOSS)] == list(range(1, 65))
    assert found.curve(schema.VAL_LOSS) == expected.curve(schema.VAL_LOSS)
    assert found.summary["final"] == expected.summary["final"]
    assert found.summary["status"] == "finished"
