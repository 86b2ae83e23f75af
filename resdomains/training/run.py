"""A run's folder, loggers, callbacks and summary."""

import hashlib
import json
import platform
import re
import secrets
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from resdomains.core import Stack
from resdomains.training.callbacks import (
    Examples,
    Pictures,
    Snapshots,
    StepLog,
    TrainingSamples,
)
from resdomains.training.checkpoints import LAST, Start
from resdomains.training.locking import FolderLock
from resdomains.training.metrics_file import MetricsFile
from resdomains.training.progress import RunProgress
from resdomains.training.saving import Checkpoints, LastCheckpoint, LastEpochs
from resdomains.training.task import Task
from resdomains.training.weights_and_biases import WandbOptions, begin_wandb


@dataclass
class RunOptions:
    """Where a run's files go, and how its processes behave.

    Args:
        root: Folder of all runs.
        name: The run's name in place of its config's.
        id: Name of the run's folder in place of the time. Started again, the run goes on from its newest sound
            checkpoint, and once finished it does nothing, unless its end was moved (such as `trainer.max_epochs`): what
            torchrun, Slurm and studies need that start it again.
        wandb: Weights & Biases.
        keep_last: Of how many of the last epochs to keep a checkpoint too, such as to average them; `best.ckpt` and
            `last.ckpt` are always kept.
        save_every_n_steps: After how many optimizer steps to save `last.ckpt` too; it is always saved after validations
            and epochs.
        data_timeout: Seconds to wait for a batch of the loader's workers before the run ends; 0 waits for ever.
        keep_freed_memory: On a CPU, have glibc keep the memory that a step frees for the next one, which is faster and
            may hold somewhat more.

    Raises:
        ValueError: If `id` is no plain file name, `keep_last` or `data_timeout` is negative, or `save_every_n_steps` is
            not positive.
    """

    root: Path = Path("runs")
    name: str | None = None
    id: str | None = None
    wandb: WandbOptions = field(default_factory=WandbOptions)
    keep_last: int = 0
    save_every_n_steps: int | None = None
    data_timeout: float = 600.0
    keep_freed_memory: bool = True

    def __post_init__(self) -> None:
        if self.data_timeout < 0:
            raise ValueError(
                f"data_timeout must be seconds, or 0 to wait for ever, got {self.data_timeout}"
            )
        if self.id is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.id):
            raise ValueError(
                f"id must be a plain file name of letters, digits, '.', '_' and '-' that begins with a letter or digit,"
                f" got {self.id!r}"
            )
        if self.keep_last < 0:
            raise ValueError(f"keep_last must be a number of epochs, got {self.keep_last}")
        if self.save_every_n_steps is not None and self.save_every_n_steps < 1:
            raise ValueError(
                f"save_every_n_steps must be a number of steps above 0 or null, got {self.save_every_n_steps}"
            )


@dataclass
class Run:
    """One run's folder: `<root>/<task>/<config>/<time or id>`.

    Only the first process creates and writes it, and keeps it locked; the others hold a path, which they write to only
    where Lightning lets all processes save together.
    """

    folder: Path
    task: str
    config: str
    wandb: WandbOptions
    keep_last: int = 0
    save_every_n_steps: int | None = None
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    """What tells the run from all others, wherever its folder is; it stays when the run goes on in its folder."""
    continues: str | None = None
    """The `run_id` of the run whose checkpoint this one began with."""
    before: dict[str, Any] | None = None
    """The summary that the folder held; None in a new folder."""

    @classmethod
    def create(cls, options: RunOptions, task: str, config: str) -> "Run":
        """Create a new folder, or take up the one that `options.id` names.

        Without an id the folder is called by the time; a second run of the same second gets a number behind it.

        Raises:
            InUse: If another process works in the folder.
        """
        name = options.name or config
        parent = Path(options.root) / task / name
        stamp = options.id or time.strftime("%Y-%m-%d_%H-%M-%S")
        folder = parent / stamp
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        if is_first_process() and options.id is not None:
            folder.mkdir(parents=True, exist_ok=True)
        elif is_first_process():
            number = 1
            while True:
                try:
                    folder.mkdir(parents=True)
                    break
                except FileExistsError:
                    number += 1
                    folder = parent / f"{stamp}_{number}"
        every = options.save_every_n_steps
        run = cls(folder.absolute(), task, name, options.wandb, options.keep_last, every)
        if is_first_process():
            run._lock = FolderLock(run.folder)
            run._made = [path.absolute() for path in made if path != folder]
        if options.id is not None:
            run._take_up()
        return run

    def _take_up(self) -> None:
        """Read what the folder says of its run."""
        if not self._summary.is_file():
            return
        try:
            found = json.loads(self._summary.read_text())
        except (OSError, ValueError):
            found = None
        # A summary that cannot be read is of a run that has not finished.
        self.before = found if isinstance(found, dict) else {}
        self.run_id = self.before.get("run_id") or self.run_id
        self.continues = self.before.get("continues")

    def __post_init__(self) -> None:
        self._lock: FolderLock | None = None
        self._made: list[Path] = []  # the folders above that were not there before

    def finished(self, end: Mapping[str, Any]) -> bool:
        """Whether the folder holds a run that has reached its end, and the end is still where it was."""
        before = self.before or {}
        return before.get("status") == "finished" and before.get("end", end) == end

    def discard(self) -> None:
        """Let the folder go, and remove it, and what was made for it, if nothing is in it."""
        if self._lock is None:
            return
        self._lock.release()
        if [path.name for path in self.folder.iterdir()] == [self._lock.path.name]:
            self._lock.path.unlink()
            for path in (self.folder, *self._made):
                if any(path.iterdir()):
                    break
                path.rmdir()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest state, from which a stopped run goes on."""
        return self.checkpoints / LAST

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

    @property
    def examples(self) -> Path:
        """What people may read of each validation."""
        return self.folder / "examples.txt"

    @property
    def _summary(self) -> Path:
        return self.folder / "summary.json"

    @rank_zero_only
    def rewind(self, start: Start | None) -> None:
        """Drop what was logged after the checkpoint that the run goes on from; all of it where there is none."""
        if start is None:
            self.metrics.unlink(missing_ok=True)
            self.examples.unlink(missing_ok=True)
        else:
            MetricsFile(self.metrics).rewind(start.step, start.ours["seconds"])

    def loggers(self, facts: dict[str, Any], metric_names: list[str]) -> list[Logger]:
        """Return the run's loggers: a CSV file, and W&B unless that is disabled.

        Args:
            facts: The run's config for W&B (`run_facts`), all plain.
            metric_names: The names of the task's own metrics.
        """
        table = MetricsFile(self.metrics)
        mode = self.wandb.resolved_mode()
        if not is_first_process():
            return [table]
        if mode == "disabled":
            return [table]
        record = begin_wandb(
            self.wandb,
            mode,
            self.folder,
            run_id=self.run_id,
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
            Examples(self.examples),
            Snapshots(self.pictures),
            RunProgress(),
            Checkpoints(self.checkpoints, monitor),
            *([LastEpochs(self.checkpoints, self.keep_last)] if self.keep_last else []),
            LastCheckpoint(self.last_checkpoint, self.save_every_n_steps),
            Pictures(self.pictures, self.tables, self.metrics),
        ]

    @rank_zero_only
    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`, whole or not at all."""
        draft = self.folder / "summary.json.part"
        draft.write_text(json.dumps(summary, indent=2, default=str) + "\n")
        draft.replace(self._summary)


def is_first_process() -> bool:
    """Say whether this process writes the run's files; known from the environment before any group exists."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]  # Lightning sets it on import
    return rank == 0


def run_facts(
    task: Task,
    run: Run,
    data: str,
    seed: int,
    world_size: int,
    samples: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Describe a run by the columns that runs of all domains share.

    Args:
        task: The task, with its recipe where it was built from a config.
        run: The run.
        data: The data module's short name.
        seed: The run's seed.
        world_size: How many processes train.
        samples: How many samples each split has.
    """
    recipe = (task.recipe or {}).get("model", {}).get("init_args", {}).get("backbone", {})
    network = recipe["class_path"].rpartition(".")[2] if recipe else type(task.backbone).__name__
    stacks = [module for module in task.backbone.modules() if isinstance(module, Stack)]
    # Blocks that change the shape may join otherwise than those that keep it.
    kept = Counter(type(block.merge).__name__ for stack in stacks for block in stack)
    merges = Counter(type(block.merge).__name__ for _, block in task.blocks())
    return {
        "task": run.task,
        "config": run.config,
        "run_id": run.run_id,
        "continues": run.continues,
        "data": data,
        "network": network,
        "merge": next((name for name, _ in (kept or merges).most_common(1)), None),
        "merges": dict(merges),
        "coupling": next((type(stack.coupling).__name__ for stack in stacks), None),
        "memory": next((type(stack.memory).__name__ for stack in stacks), None),
        "depth": getattr(task.backbone, "depth", None),
        "parameters": sum(p.numel() for p in task.parameters()),
        "seed": seed,
        "setup": setup_of(task.recipe, samples or {}),
        "world_size": world_size,
        "commit": commit(),
        "versions": versions(),
    }


# What a run's result does not depend on: where it computes, and what it shows or measures on the way.
_BESIDE = {
    "trainer": (
        *("accelerator", "devices", "num_nodes", "strategy", "plugins", "logger", "callbacks"),
        *("log_every_n_steps", "enable_progress_bar", "enable_model_summary", "profiler"),
    ),
    "data": ("num_workers",),
}
_PROBES = "resdomains.probes."


def setup_of(recipe: Mapping[str, Any] | None, samples: Mapping[str, int]) -> str | None:
    """Return what tells the setup of a run from all others, None for a run that was built in Python.

    It is equal for runs that repeat each other: of one model, data and training, whatever their seeds and machines.

    Args:
        recipe: What the run was built from.
        samples: How many samples each split has.
    """
    if recipe is None:
        return None
    kept = json.loads(json.dumps({name: recipe.get(name) for name in ("model", "data", "trainer")}))
    callbacks = (kept["trainer"] or {}).get("callbacks") or []
    for name, keys in _BESIDE.items():
        section = kept[name] or {}
        values = section.get("init_args", section)
        for key in keys:
            values.pop(key, None)
        if values.get("root") is not None:
            values["root"] = str(Path(str(values["root"])).expanduser().absolute())
    kept["callbacks"] = [
        callback
        for callback in (callbacks if isinstance(callbacks, list) else [callbacks])
        if not str(callback.get("class_path", callback)).startswith(_PROBES)
    ]
    described = json.dumps([kept, dict(samples)], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:8]


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
