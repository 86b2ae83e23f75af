"""Samples a second of training in one process, in two, and in two that know nothing of each other; one thread each.

Each task in its shipped config of embedded data, and with a network whose step takes 50 ms or more. Two processes share
the config's batch, half of it each, as a run does, or take a whole one each, as runs do whose batch grows with the
processes. The ceiling is two independent processes at the same time, with half a batch or a whole one: what two cores
give without a gradient to share. Everything is `Trainer.fit` with the config's own data, callbacks and precision, and
the log of steps; a rate is the mean number of samples of an epoch's steps over the median time from one step's end to
the next, after some to warm up, reading and augmenting included. Columns: milliseconds a step and samples a second of
one process, and of two over those of one, with half the batch each and with a whole one. In `rl_policy` a step is an
iteration: a rollout and its updates, and samples are environment steps.

python -m tests.benchmarks.scaling [TASK ...] [--steps 30]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from resdomains.cli.arguments import Arguments
from resdomains.cli.fitting import build_trainer, leave_together
from resdomains.cli.quiet import quiet
from resdomains.cli.session import Session
from resdomains.training.callbacks import StepLog
from tests.benchmarks.measure import report

WARMUP = 30  # the heap grows until it has held batches of all lengths
_DIGITS, _SCENES = "image_classification/digits", "object_detection/scenes"
_STRINGS, _DOCSTRINGS = "speech_recognition/digit_strings", "text_classification/docstrings"
_CARTPOLE = "rl_policy/cartpole"
_BACKBONE = "model.backbone"
CELLS: dict[str, list[tuple[str, dict[str, str]]]] = {
    _DIGITS: [
        ("as shipped", {}),
        (
            "ResNet of 64 to 256 channels",
            {f"{_BACKBONE}.layers": "[2, 2, 2]", f"{_BACKBONE}.channels": "[64, 128, 256]"},
        ),
    ],
    _SCENES: [("as shipped", {})],
    _STRINGS: [
        ("as shipped", {}),
        (
            "256 channels, 8 blocks",
            {
                f"{_BACKBONE}.layers": "[2, 2, 2, 2]",
                f"{_BACKBONE}.channels": "[256, 256, 256, 256]",
            },
        ),
    ],
    _DOCSTRINGS: [
        ("as shipped", {}),
        (
            "characters, 6 blocks of 64 to 256 channels",
            {
                f"{_BACKBONE}.stem": "CharacterStem",
                f"{_BACKBONE}.layers": "[2, 2, 2]",
                f"{_BACKBONE}.channels": "[64, 128, 256]",
                f"{_BACKBONE}.strides": "[1, 2, 2]",
                "model.optimization.lr": "0.001",
                "data.max_length": "256",
            },
        ),
    ],
    _CARTPOLE: [
        ("as shipped", {}),
        (
            "2 blocks of width 128",
            {f"{_BACKBONE}.layers": "2", f"{_BACKBONE}.width": "128"},
        ),
    ],
}


class Clock(Callback):
    """Times steps, and counts their samples over all processes.

    Args:
        together: A file through which independent processes wait for each other before the first step.
    """

    def __init__(self, together: Path | None) -> None:
        self.together = together
        self.ends: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin when the other process does."""
        if self.together is not None:
            store = dist.FileStore(str(self.together), 2)  # type: ignore[attr-defined]  # exported
            store.add("here", 1)
            while store.add("here", 0) < 2:
                time.sleep(0.01)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note a step."""
        self.ends.append(time.perf_counter())


def train(
    config: str, place: int, steps: int, world: int, times: float, together: Path | None
) -> dict[str, Any]:
    """Train a cell, its batch so many times as large, and return its samples a step and seconds a step."""
    _, changes = CELLS[config][place]
    always = {
        "trainer.accelerator": "cpu",
        "trainer.max_steps": "-1",
        "trainer.max_epochs": "1000",
        "trainer.limit_val_batches": "0",
        "trainer.enable_progress_bar": "false",
    }
    overrides = [(tuple(key.split(".")), value) for key, value in {**always, **changes}.items()]
    trainers = ["trainer/ddp"] if world > 1 else []
    session = Session(Arguments(configs=[config, *trainers], overrides=overrides))
    data_options = session.full["data"]["init_args"]
    for key in ("batch_size", "num_environments"):
        if key in data_options:
            overrides.append((("data", key), str(int(times * data_options[key]))))
    session = Session(Arguments(configs=[config, *trainers], overrides=overrides))
    seed_everything(session.seed, workers=True, verbose=False)
    data = session.data()
    task = session.task(data.spec)
    clock, log = Clock(together), StepLog()
    trainer, precision = build_trainer(session, [log, Stop(WARMUP + steps), clock])
    trainer.fit(task, datamodule=data)
    seconds = [b - a for a, b in zip(clock.ends[WARMUP - 1 :], clock.ends[WARMUP:], strict=False)]
    return {
        "parameters": sum(p.numel() for p in task.parameters()),
        "precision": precision.name,
        "items": world * data.batch_sampler("train", 0, world).mean_items,
        "seconds": statistics.median(seconds),
    }


class Stop(Callback):
    """Ends training after so many batches, whatever a batch is."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self.left -= 1
        trainer.should_stop = self.left <= 0


class Setting(NamedTuple):
    """Processes, those that share a gradient, and what each batch is of the config's."""

    processes: int
    world: int
    times: float


SETTINGS = {
    "one": Setting(1, 1, 1.0),
    "halves": Setting(2, 2, 1.0),
    "wholes": Setting(2, 2, 2.0),
    "halves apart": Setting(2, 1, 0.5),
    "wholes apart": Setting(2, 1, 1.0),
}


def start(
    config: str, steps: int, setting: Setting, together: Path, out: Path
) -> "subprocess.Popen[bytes]":
    """Begin a process, or two of torchrun's, to train a config's cells."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launcher = [*torchrun, "-m"] if setting.world > 1 else []
    command = [sys.executable, "-m", *launcher, "tests.benchmarks.scaling", config]
    options = ["--steps", str(steps), "--child", str(out)]
    options += ["--world", str(setting.world), "--times", str(setting.times)]
    if setting.processes > setting.world:
        options += ["--together", str(together)]
    return subprocess.Popen([*command, *options], env={**os.environ, "OMP_NUM_THREADS": "1"})


def child(arguments: argparse.Namespace) -> None:
    """Train a config's cells, and write what was found."""
    quiet()
    torch.set_num_threads(1)
    (config,) = arguments.configs
    found = []
    for place in range(len(CELLS[config])):
        meeting = arguments.together and arguments.together.with_suffix(f".{place}")
        found.append(
            train(config, place, arguments.steps, arguments.world, arguments.times, meeting)
        )
    if arguments.world == 1 or dist.get_rank() == 0:
        arguments.child.write_text(json.dumps(found))
    leave_together()


def rates(config: str, steps: int, name: str, folder: Path) -> list[dict[str, Any]]:
    """Run a config's cells in one setting; return each cell's findings, with the samples a second of all processes."""
    setting = SETTINGS[name]
    outs = [folder / f"{name}{n}.json" for n in range(setting.processes // setting.world)]
    running = [start(config, steps, setting, folder / name, out) for out in outs]
    for process in running:
        if process.wait():
            raise RuntimeError(f"{config}, {name}: ended with {process.returncode}")
    cells = zip(*(json.loads(out.read_text()) for out in outs), strict=True)
    return [{**of[0], "rate": sum(f["items"] / f["seconds"] for f in of)} for of in cells]


def measure(configs: Sequence[str], steps: int) -> None:
    """Measure configs, a row a cell, and report what is known after each."""
    table = []
    for config in configs:
        folder = Path(mkdtemp(prefix="resdomains-scaling-"))
        found = {name: rates(config, steps, name, folder) for name in SETTINGS}
        for place, (label, _) in enumerate(CELLS[config]):
            of = {name: cells[place] for name, cells in found.items()}
            one = of["one"]
            table.append(
                {
                    "config": config.partition("/")[2],
                    "network": label,
                    "weights": one["parameters"],
                    "precision": one["precision"],
                    "ms": 1e3 * one["seconds"],
                    "/s": one["rate"],
                    **{name: of[name]["rate"] / one["rate"] for name in list(SETTINGS)[1:]},
                }
            )
        report("scaling", table)


def main() -> None:
    """Measure and report, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="*", help="tasks or configs; all by default")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--world", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--times", type=float, default=1.0, help=argparse.SUPPRESS)
    parser.add_argument("--together", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments)
        return
    known = {name: config for config in CELLS for name in (config, config.partition("/")[0])}
    for name in arguments.configs:
        if name not in known:
            parser.error(f"{name}: expected some of {', '.join(known)}")
    measure([known[name] for name in arguments.configs] or list(CELLS), arguments.steps)


if __name__ == "__main__":
    main()
