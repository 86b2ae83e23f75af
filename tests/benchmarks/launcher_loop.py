"""What the framework's loop costs: fit with logging, schema and callbacks against a bare loop over the same task.

    python -m tests.benchmarks.launcher_loop [--threads 2] [--steps 60]

Both train the same ResNet-20 on the same batches of 28 x 28 pictures (in memory, batch 128), with the same
optimizer and schedule.
"""

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytorch_lightning as pl
import torch

from resdomains.core import resnet20
from resdomains.training import Optimization, Run, RunOptions, WandbOptions, run_facts
from resdomains.training.precision import choose_precision
from resdomains_tasks.image_classification import ImageClassification, MnistFiles
from tests.benchmarks.measure import ratio, report


def build(root: str) -> tuple[ImageClassification, MnistFiles]:
    """Return a task and its data."""
    pl.seed_everything(0, verbose=False)
    data = MnistFiles(root=root, batch_size=128)
    optimization = Optimization(lr=0.1)
    backbone = resnet20(in_channels=1)
    return ImageClassification(backbone=backbone, spec=data.spec, optimization=optimization), data


class Clock(pl.Callback):
    """Times the steps after the first ten."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.marks.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the mean seconds of a step, waiting included."""
        return (self.marks[-1] - self.marks[10]) / (len(self.marks) - 11)


def launched(root: str, steps: int, precision: Any) -> float:
    """Return the seconds of a step in `Trainer.fit` with everything that a run has."""
    task, data = build(root)
    options = RunOptions(root=Path(mkdtemp()), wandb=WandbOptions(mode="offline"))
    run = Run.create(options, "image_classification", "benchmark")
    clock = Clock()
    pl.Trainer(
        max_steps=steps,
        limit_val_batches=0,
        logger=run.loggers(run_facts(task, run, "MnistFiles", 0, 1), list(task.build_metrics())),
        callbacks=[*run.callbacks(monitor=None), clock],
        use_distributed_sampler=False,
        log_every_n_steps=10,
        enable_model_summary=False,
        accelerator="cpu",
        precision=precision,
    ).fit(task, data)
    import wandb

    wandb.finish()
    return clock.seconds()


def bare(root: str, steps: int, precision: str) -> float:
    """Return the seconds of a step in a plain loop over the same task and data."""
    task, data = build(root)
    optimizer = task.optimization.build(task, "backbone", task.blocks())
    scheduler = task.optimization.scheduler(optimizer, steps)
    task.train()
    marks = []
    for batch, _ in zip(data.train_dataloader(), range(steps), strict=False):
        marks.append(time.perf_counter())
        changed = data.transform(batch, "train")
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = task.step(changed, "train").loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
    return (marks[-1] - marks[10]) / (len(marks) - 11)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder of MNIST-format files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    precision = choose_precision("cpu").name
    seconds: dict[str, list[float]] = {"bare loop": [], "resdomains": []}
    for _ in range(arguments.rounds):
        seconds["bare loop"].append(bare(arguments.root, arguments.steps, precision))
        seconds["resdomains"].append(launched(arguments.root, arguments.steps, precision))
    rows = [
        {
            "loop": name,
            "ms a step": 1000 * statistics.median(values),
            "against the bare loop": ratio(values, seconds["bare loop"]),
        }
        for name, values in seconds.items()
    ]
    report("launcher_loop", rows)


if __name__ == "__main__":
    main()
