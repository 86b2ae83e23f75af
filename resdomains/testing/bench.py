"""Build and train what a case describes, through the launcher's own parts."""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from resdomains import schema
from resdomains.cli.arguments import Arguments
from resdomains.cli.fitting import build_trainer
from resdomains.cli.quiet import quiet
from resdomains.cli.session import Session
from resdomains.schema import Split
from resdomains.testing.case import TaskCase
from resdomains.training import EMA, DataModule, Run, RunOptions, Task, WandbOptions

# One float32 process on the CPU is what everything else is compared with.
_ALWAYS = {
    "trainer.accelerator": "cpu",
    "trainer.devices": "1",
    "trainer.precision": "32-true",
    "trainer.log_every_n_steps": "1",
    "trainer.enable_progress_bar": "false",
}
_CONFIG = "checked"


@dataclass
class Trained:
    """A finished run."""

    task: Task
    data: DataModule
    trainer: Trainer
    run: Run

    @property
    def rows(self) -> list[dict[str, float]]:
        """Everything that was logged."""
        return read_rows(self.run.metrics)

    def state(self) -> dict[str, Tensor]:
        """Weights and buffers."""
        return self.task.state_dict()


class Whole:
    """One run of a case from its first step to its last, for all rules that look at such a run.

    It has three epochs and averages its weights; a checkpoint of the middle of the second lies beside its own.
    """

    EPOCHS = 3

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="resdomains-check-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.middle = self.folder / "middle.ckpt"
        self.trained: Trained | None = None

    def callbacks(self) -> list[Callback]:
        """Return what repeats the run, but for the checkpoint."""
        # The decay forgets within the few steps that a case has.
        return [EMA(decay=0.9)]


class _SaveInTheMiddle(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx + 1 == int(trainer.num_training_batches) // 2:
            trainer.save_checkpoint(self.path)


class Bench:
    """Sessions, parts and runs of one case.

    Args:
        case: The task and its material.
        folder: An empty folder for runs and files.
        whole: The run that the case's rules share.
    """

    def __init__(self, case: TaskCase, folder: Path, whole: Whole) -> None:
        self.case = case
        self.folder = folder
        self.shared = whole
        quiet()

    def session(
        self, changes: Mapping[str, str] | None = None, config: str | None = None
    ) -> Session:
        """Compose the case's config, or a shipped one, with changes on top."""
        own = self.case.config if config is None else config
        merged = {**(self.case.changes if config is None else {}), **_ALWAYS, **(changes or {})}
        arguments = Arguments(
            configs=[] if isinstance(own, Mapping) else [str(own)],
            overrides=[(tuple(key.split(".")), value) for key, value in merged.items()],
            plugins=list(self.case.modules),
        )
        return Session(arguments, own if isinstance(own, Mapping) else None, _CONFIG)

    def build(
        self, changes: Mapping[str, str] | None = None, config: str | None = None
    ) -> tuple[Task, DataModule]:
        """Build task and data under the config's seed."""
        session = self.session(changes, config)
        seed_everything(session.seed, workers=True, verbose=False)
        data = session.data()
        return session.task(data.spec), data

    def task(self, data: DataModule, changes: Mapping[str, str]) -> Task:
        """Build another task for data that are built already, under the config's seed."""
        session = self.session(changes)
        seed_everything(session.seed, workers=True, verbose=False)
        return session.task(data.spec)

    def batch(self, task: Task, data: DataModule, split: Split = "val") -> Any:
        """Return the case's batch, or the first training samples, changed as the split is."""
        if self.case.batch is not None:
            return self.case.batch(task, data)
        return data.transform(next(iter(data.train_dataloader())), split)

    def fit(
        self,
        changes: Mapping[str, str] | None = None,
        callbacks: Sequence[Callback] = (),
        resume: Path | None = None,
        change: Callable[[DataModule], None] | None = None,
        folder: Path | None = None,
    ) -> Trained:
        """Train as the launcher does, one process, without W&B.

        Args:
            changes: Dotted keys to set on top of the case's config.
            callbacks: What the run adds to the usual ones.
            resume: A checkpoint to go on from.
            change: What is done to the data module before the task is built.
            folder: Where the run's folder goes, if not to this bench's.
        """
        session = self.session(changes)
        seed_everything(session.seed, workers=True, verbose=False)
        data = session.data()
        if change is not None:
            change(data)
        task = session.task(data.spec)
        options = RunOptions((folder or self.folder) / "runs", wandb=WandbOptions(mode="disabled"))
        run = Run.create(options, self.case.plugin.name, _CONFIG)
        monitor = task.monitor if data.has("val") else None
        trainer, _ = build_trainer(
            session, [*run.callbacks(monitor), *callbacks], run.folder, bar=False
        )
        trainer.loggers = run.loggers({}, list(task.build_metrics()))
        trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
        return Trained(task, data, trainer, run)

    def whole(self) -> Trained:
        """Return the run that rules share; they must leave it as it is."""
        shared = self.shared
        if shared.trained is None:
            shared.trained = self.fit(
                {"trainer.max_epochs": str(shared.EPOCHS)},
                callbacks=[*shared.callbacks(), _SaveInTheMiddle(shared.middle)],
                folder=shared.folder,
            )
        return shared.trained

    def repeat(self, resume: Path | None = None) -> Trained:
        """Train the shared run again, from its beginning or a checkpoint."""
        changes = {"trainer.max_epochs": str(self.shared.EPOCHS)}
        return self.fit(changes, callbacks=self.shared.callbacks(), resume=resume)

    def evaluate(
        self, task: Task, data: DataModule, changes: Mapping[str, str] | None = None
    ) -> dict[str, Tensor]:
        """Return the validation results of a task."""
        trainer, _ = build_trainer(self.session(changes), [], self.folder, bar=False)
        trainer.validate(task, datamodule=data, verbose=False)
        return task.results["val"]

    def inputs(self) -> list[Path]:
        """Write the files to predict."""
        folder = self.folder / "inputs"
        folder.mkdir(exist_ok=True)
        assert self.case.inputs is not None
        return list(self.case.inputs(folder))

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `resdomains` in a new process, with the case's modules."""
        plugins = [part for module in self.case.modules for part in ("--plugin", module)]
        return [sys.executable, "-m", "resdomains.cli", *arguments, *plugins]

    def fit_command(self, changes: Mapping[str, str], root: Path) -> list[str]:
        """Return the command line that trains the case's config."""
        own = self.case.config
        if isinstance(own, Mapping):
            path = self.folder / f"{_CONFIG}.yaml"
            path.write_text(yaml.safe_dump(dict(own)))
            own = path
        merged = {
            **self.case.changes,
            **_ALWAYS,
            "run.root": str(root),
            "run.wandb.mode": "disabled",
            "test_after_fit": "false",
            **changes,
        }
        pairs = [part for key, value in merged.items() for part in (f"--{key}", value)]
        return self.command("fit", "--config", str(own), *pairs)


def start(command: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder, with this process's import paths, and return what it said."""
    paths = [path for path in sys.path if path and not path.endswith(".zip")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read a run's `metrics.csv`; a row holds what was logged together."""
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def losses(rows: Sequence[Mapping[str, float]]) -> dict[int, float]:
    """Return the training loss of each step."""
    return {int(row["step"]): row[schema.TRAIN_LOSS] for row in rows if schema.TRAIN_LOSS in row}


def batches_of(data: DataModule, split: Split, groups: Sequence[Sequence[int]]) -> Iterator[Any]:
    """Yield evaluation batches of chosen samples."""
    for group in groups:
        yield data.transform(data.batch(split, group), split)


def gradients(task: Task, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and gradients of one training step on a batch, without changing the weights."""
    task.train()
    task.zero_grad()
    result = task.step(batch, "train")
    torch.autograd.backward(result.loss)
    found = {
        name: parameter.grad.detach().clone()
        for name, parameter in task.named_parameters()
        if parameter.grad is not None
    }
    return result.loss.detach(), found


def floating(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a batch."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from floating(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from floating(child)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from floating(getattr(value, name))


def numbers(value: Any) -> Iterator[float]:
    """Yield the numbers in plain records, in order."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        yield float(value)
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from numbers(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from numbers(child)


def predict(task: Task, paths: Sequence[Path], size: int) -> list[dict[str, Any]]:
    """Predict files in batches of a size."""
    items = list(task.read([str(path) for path in paths]))
    task.eval()
    records = []
    with torch.inference_mode():
        for begin in range(0, len(items), size):
            records += task.predict(task.collate(items[begin : begin + size]))
    return records
