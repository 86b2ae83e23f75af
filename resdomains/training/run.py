"""A run's folder, loggers, callbacks and summary."""

import json
import platform
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only

from resdomains.core import Stack
from resdomains.training.callbacks import (
    Examples,
    Pictures,
    Snapshots,
    StepLog,
    TrainingSamples,
)
from resdomains.training.progress import RunProgress
from resdomains.training.saving import Checkpoints, LastEpochs
from resdomains.training.task import Task
from resdomains.training.weights_and_biases import WandbOptions, begin_wandb


@dataclass
class RunOptions:
    """Where a run's files go.

    Args:
        root: Folder of all runs.
        name: The run's name in place of its config's.
        wandb: Weights & Biases.
        keep_last: Of how many of the last epochs to keep a checkpoint too, such as to average them; `best.ckpt` and
            `last.ckpt` are always kept.

    Raises:
        ValueError: If `keep_last` is negative.
    """

    root: Path = Path("runs")
    name: str | None = None
    wandb: WandbOptions = field(default_factory=WandbOptions)
    keep_last: int = 0

    def __post_init__(self) -> None:
        if self.keep_last < 0:
            raise ValueError(f"keep_last must be a number of epochs, got {self.keep_last}")


@dataclass
class Run:
    """One run's folder: `<root>/<task>/<config>/<time>`.

    Only the first process creates and writes it; the others hold a path that they do not use.
    """

    folder: Path
    task: str
    config: str
    wandb: WandbOptions
    keep_last: int = 0

    @classmethod
    def create(cls, options: RunOptions, task: str, config: str) -> "Run":
        """Create a new folder; a second run of the same second gets a number behind its time."""
        parent = Path(options.root) / task / (options.name or config)
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        folder = parent / stamp
        if is_first_process():
            number = 1
            while True:
                try:
                    folder.mkdir(parents=True)
                    break
                except FileExistsError:
                    number += 1
                    folder = parent / f"{stamp}_{number}"
        name = options.name or config
        return cls(folder.absolute(), task, name, options.wandb, options.keep_last)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest state, from which a stopped run goes on."""
        return self.checkpoints / "last.ckpt"

    @property
    def pictures(self) -> Path:
        """Folder of the figures."""
        return self.folder / "pictures"

    @property
    def tables(self) -> Path:
        """Folder of the tables, as CSV."""
        return self.folder / "tables"

    @property
    def metrics(self) -> Path:
        """Table of everything that was logged."""
        return self.folder / "metrics.csv"

    def loggers(self, facts: dict[str, Any], metric_names: list[str]) -> list[Logger]:
        """Return the run's loggers: a CSV file, and W&B unless that is disabled.

        Args:
            facts: The run's config for W&B (`run_facts`), all plain.
            metric_names: The names of the task's own metrics.
        """
        # Every row at once: whoever watches a slow run sees where it is, and a killed one loses nothing.
        table = CSVLogger(str(self.folder), name="", version="", flush_logs_every_n_steps=1)
        mode = self.wandb.resolved_mode()
        if not is_first_process():
            return [table]
        _ = (
            table.experiment
        )  # made while the folder is empty: it warns about files that it finds there
        if mode == "disabled":
            return [table]
        record = begin_wandb(
            self.wandb,
            mode,
            self.folder,
            name=f"{self.config}-{self.folder.name}",
            group=f"{self.task}/{self.config}",
            tags=[self.task],
            facts=facts,
            metric_names=metric_names,
        )
        return [table, record]

    def callbacks(self, monitor: str | None) -> list[Callback]:
        """Return what every run has.

        Args:
            monitor: The validation's result whose highest value makes the best checkpoint; None where the data have no
                validation split: the best is then the last.
        """
        return [
            StepLog(),
            TrainingSamples(self.pictures / "train_samples.png"),
            Examples(self.folder / "examples.txt"),
            Snapshots(self.pictures),
            RunProgress(),
            Checkpoints(self.checkpoints, monitor),
            *([LastEpochs(self.checkpoints, self.keep_last)] if self.keep_last else []),
            Pictures(self.pictures, self.tables, self.metrics),
        ]

    @rank_zero_only
    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`, whole or not at all."""
        draft = self.folder / "summary.json.part"
        draft.write_text(json.dumps(summary, indent=2, default=str) + "\n")
        draft.replace(self.folder / "summary.json")


def is_first_process() -> bool:
    """Say whether this process writes the run's files; known from the environment before any group exists."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]  # Lightning sets it on import
    return rank == 0


def run_facts(task: Task, run: Run, data: str, seed: int, world_size: int) -> dict[str, Any]:
    """Describe a run by the columns that runs of all domains share."""
    recipe = (task.recipe or {}).get("model", {}).get("init_args", {}).get("backbone", {})
    network = recipe["class_path"].rpartition(".")[2] if recipe else type(task.backbone).__name__
    stacks = [module for module in task.backbone.modules() if isinstance(module, Stack)]
    # Blocks that change the shape may join otherwise than those that keep it.
    kept = Counter(type(block.merge).__name__ for stack in stacks for block in stack)
    merges = Counter(type(block.merge).__name__ for _, block in task.blocks())
    return {
        "task": run.task,
        "config": run.config,
        "data": data,
        "network": network,
        "merge": next((name for name, _ in (kept or merges).most_common(1)), None),
        "merges": dict(merges),
        "coupling": next((type(stack.coupling).__name__ for stack in stacks), None),
        "memory": next((type(stack.memory).__name__ for stack in stacks), None),
        "depth": getattr(task.backbone, "depth", None),
        "parameters": sum(p.numel() for p in task.parameters()),
        "seed": seed,
        "world_size": world_size,
        "commit": commit(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("resdomains", "torch", "pytorch-lightning", "torchmetrics", "wandb")
    found = {"python": platform.python_version()}
    for name in names:
        found[name] = metadata.version(name)
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def commit() -> str | None:
    """Return the git commit of the working folder, with `+changes` where it has any; None outside a repository."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
