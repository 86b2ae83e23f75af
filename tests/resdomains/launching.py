"""Run the real command in processes of its own, alone or several together."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ALONE = [sys.executable, "-m", "resdomains.cli"]
TORCHRUN = [
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "resdomains.cli"),
]
TWO = ["--config", "trainer/ddp", "--trainer.devices", "2"]
# 101 validation samples: two processes see 51 and 50 of them. One epoch has 20 steps.
DIGITS = [
    *("--config", "image_classification/digits", "--config", "trainer/float32"),
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"),
    *("--trainer.log_every_n_steps", "1", "--run.wandb.mode", "offline"),
    *("--model.backbone.layers", "[1, 1]", "--model.backbone.channels", "[8, 16]"),
    *("--data.val_fraction", "0.07"),
]


@dataclass
class Finished:
    """A process group's end, and what it left in its folder."""

    returncode: int
    stdout: str
    stderr: str
    folder: Path

    def only(self, pattern: str) -> Path:
        [path] = self.folder.rglob(pattern)
        return path

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.only("summary.json").read_text())
        return found

    def curve(self, name: str) -> list[tuple[int, float]]:
        with self.only("metrics.csv").open(newline="") as file:
            return [(int(r["step"]), float(r[name])) for r in csv.DictReader(file) if r.get(name)]


def surroundings() -> dict[str, str]:
    """This process's environment, but for the W&B process that an earlier test may have begun here."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


def start(command: Sequence[str], folder: Path) -> "subprocess.Popen[str]":
    """Begin a command in a folder, to be ended by `end`."""
    return subprocess.Popen(
        [*command, "--run.root", str(folder / "runs")],
        cwd=folder,
        env={**surroundings(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process: "subprocess.Popen[str]", folder: Path) -> Finished:
    """Wait for a command's end."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=240)
        except BaseException:
            # All of them: a process whose parent is gone would wait for it and hold the pipes.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return Finished(process.returncode, stdout, stderr, folder)


def launch(command: Sequence[str], folder: Path) -> Finished:
    return end(start(command, folder), folder)
