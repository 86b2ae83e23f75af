"""What all probes share: their blocks, their files, and one table of what they found."""

import csv
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger

from resdomains import schema
from resdomains.probes.blocks import Block, blocks_of
from resdomains.training import Task
from resdomains.training.figures import log_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = float | str | None
Columns = Mapping[str, Sequence[Value]]


class Probe(Callback):
    """A callback that measures each residual block of the task's backbone.

    It measures while a task is fitted, or while a finished one is validated; a fit's results are complete when
    training ends, a validation's when it ends. Every process measures, values are reduced, and the first one writes:
    `<name>.csv`, a row for each block and time; `<name>.png`; and, by the last of a trainer's probes, `profile.csv`,
    a row for each block with the newest values of all probes, which is the table `residual/profile` in W&B.

    Args:
        folder: Where the files go; `probes` in the run's folder if not given.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self.blocks: list[Block] = []
        self.newest: Columns = {}
        """The newest values: for each column one for each block."""
        self._written: set[Path] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the blocks; nothing is attached to them yet.

        Raises:
            ValueError: If there are none.
        """
        if stage in ("fit", "validate"):
            self.blocks = blocks_of(pl_module)
        if stage == "fit":
            self._written.clear()

    @abstractmethod
    def figure(self, task: Task) -> "Figure | None":
        """Return a picture of what was found, or None if nothing was."""

    def measure(self, trainer: Trainer, task: Task) -> None:
        """Measure what can only be measured when everything else is done."""

    def detach(self) -> None:
        """Take away whatever is attached to the blocks."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the results of a fit."""
        self._complete(trainer, cast(Task, pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the results of a finished run."""
        if trainer.state.fn == "validate":
            self._complete(trainer, cast(Task, pl_module))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave nothing behind."""
        self.detach()

    def _complete(self, trainer: Trainer, task: Task) -> None:
        self.detach()
        self.measure(trainer, task)
        if not trainer.is_global_zero:
            return
        folder = self.files(trainer)
        figure = self.figure(task)
        if figure is not None:
            log_figure(trainer.loggers, figure, folder / f"{self.name}.png")
        probes = [c for c in trainer.callbacks if isinstance(c, Probe)]  # type: ignore[attr-defined]
        if self is probes[-1] and any(probe.newest for probe in probes):
            self._write_profile(trainer, profile(probes), folder)

    def _write_profile(self, trainer: Trainer, rows: list[dict[str, Value]], folder: Path) -> None:
        path = folder / "profile.csv"
        self._written.discard(path)  # it holds the newest values only
        self.append(path, rows)
        self.send(trainer, schema.PROFILE, rows)

    def send(self, trainer: Trainer, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows as a table in W&B."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                data = [list(row.values()) for row in rows]
                logger.log_table(key, columns=list(rows[0]), data=data)

    def files(self, trainer: Trainer) -> Path:
        """Return the folder of the probe's files."""
        return self.folder or Path(trainer.default_root_dir) / "probes"

    def record(self, trainer: Trainer, columns: Columns, step: int | None = None) -> None:
        """Keep values of all blocks as the newest, and add them to `<name>.csv`.

        Args:
            trainer: What runs the task.
            columns: For each column one value for each block.
            step: The optimizer steps before the measurement, those made until now if not given; the column stays
                empty where a finished run is probed.
        """
        self.newest = columns
        if trainer.is_global_zero:
            made = trainer.global_step if step is None else step
            before: dict[str, Value] = {"step": made if trainer.state.fn == "fit" else None}
            rows = [before | row for row in table(self.blocks, columns)]
            self.append(self.files(trainer) / f"{self.name}.csv", rows)

    def append(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to a CSV file; the first of this probe begin a new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path not in self._written
        with path.open("w" if new else "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            if new:
                writer.writeheader()
                self._written.add(path)
            writer.writerows(rows)


def table(blocks: Sequence[Block], columns: Columns) -> list[dict[str, Value]]:
    """Return a row for each block: its number from 1, its name, its relative depth, and its values."""
    return [
        {
            "block": block.index + 1,
            "name": block.name,
            "relative_depth": round(block.relative_depth, 6),
            **{name: values[block.index] for name, values in columns.items()},
        }
        for block in blocks
    ]


def profile(probes: Sequence[Probe]) -> list[dict[str, Value]]:
    """Return a row for each block with the newest values of all probes."""
    columns: dict[str, Sequence[Value]] = {}
    for probe in probes:
        columns.update(probe.newest)
    return table(probes[-1].blocks, columns)


def number(value: float) -> float | None:
    """Return the value, or None in place of NaN: a cell without a value stays empty."""
    return None if value != value else value
