"""The terminal's view of a run: one bar for the whole of it."""

import sys
import time
from collections.abc import Iterable
from typing import Any, cast

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from resdomains import schema
from resdomains.training.callbacks import Examples, StepLog
from resdomains.training.task import Task

_EXAMPLES = 3  # lines


class _Bar(Progress):
    """A bar with lines below it."""

    lines: Iterable[Text] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield from self.lines


class RunProgress(ProgressBar):
    """One bar over all epochs with loss, validation score, samples per second and time left.

    Below it stand the examples that the task gave at the last validation, a line each and cut to the width. Where the
    output is no terminal, a line a validation takes the bar's place.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console(file=sys.stderr)
        self._progress: _Bar | None = None
        self._bar: TaskID | None = None
        self._enabled = True
        self._drawn = 0.0

    def disable(self) -> None:
        """Show nothing: Lightning calls this in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def _text(self, trainer: Trainer) -> str:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        log = next(c for c in callbacks if isinstance(c, StepLog)).last
        monitor = cast(Task, trainer.lightning_module).monitor
        score = trainer.callback_metrics.get(monitor)
        parts = [
            f"loss {log[schema.TRAIN_LOSS]:.3f}" if log else "",
            f"{monitor} {float(score):.4f}" if score is not None else "",
            f"{log[schema.SAMPLES_PER_SECOND]:,.0f} samples/s" if log else "",
        ]
        return "  ".join(part for part in parts if part)

    def _epoch(self, trainer: Trainer) -> str:
        last = trainer.max_epochs
        return f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last and last > 0 else "")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        if not self._enabled or not self._console.is_terminal:
            return
        task = cast(Task, pl_module)
        steps = task.total_steps() if trainer.max_epochs != -1 or trainer.max_steps != -1 else None
        self._progress = _Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self._console,
            refresh_per_second=4,
            transient=True,
            expand=True,
        )
        self._bar = self._progress.add_task(
            self._epoch(trainer),
            total=steps,
            completed=task.steps_done,
            text="",
        )
        self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, four times a second at most."""
        now = time.perf_counter()
        if now - self._drawn > 0.25:
            self._drawn = now
            self._move(trainer)

    def _move(self, trainer: Trainer) -> None:
        if self._progress is not None and self._bar is not None:
            self._progress.update(
                self._bar,
                completed=cast(Task, trainer.lightning_module).steps_done,
                description=self._epoch(trainer),
                text=self._text(trainer),
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the examples; where there is no terminal to draw a bar on, print them below a line."""
        if not self._enabled or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        lines = self._examples(trainer)
        if self._progress is not None:
            self._progress.lines = lines
            self._move(trainer)
            self._progress.refresh()
        elif not self._console.is_terminal:
            self._console.print(
                f"{self._epoch(trainer)}  {self._text(trainer)}", highlight=False, soft_wrap=True
            )
            for line in lines:
                self._console.print(line, soft_wrap=True)

    def _examples(self, trainer: Trainer) -> list[Text]:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
        found = next((c.last for c in callbacks if isinstance(c, Examples)), [])
        lines = [Text(f"  {line}", no_wrap=True) for line in found[:_EXAMPLES]]
        for line in lines:
            line.truncate(self._console.width, overflow="ellipsis")
        return lines

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar away."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Take the bar away."""
        self._close()
