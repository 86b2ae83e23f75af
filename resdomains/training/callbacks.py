"""What happens around the steps of every run: counting, timing, pictures, a way back after Ctrl-C."""

import logging
import os
import random
import resource
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from resdomains import schema
from resdomains.schema import Split
from resdomains.training.figures import (
    NoFilm,
    learning_curves,
    log_boxed,
    log_figure,
    log_film,
    log_table,
    plot_over_samples,
    write_png,
)
from resdomains.training.task import Task

_warn = rank_zero_only(logging.getLogger(__name__).warning)


class StepLog(Callback):
    """Log loss, speed and memory every `log_every_n_steps` optimizer steps, and stop when the loss is no number.

    Sums are kept on the device and reduced over the processes once an interval, so that no step waits for the log.
    `perf/data_wait` is the share of the interval in which no step ran: reading, copying and augmenting the batch,
    and on a CPU nothing else. On a GPU steps are queued, and the share shows what the queue did not hide.
    """

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        """The newest loss, and the samples per second of the epoch so far."""
        self._logged = 0
        self._plotted: set[str] = set()
        self._idle_since: float | None = None
        self._epoch_items = 0
        self._epoch_seconds = 0.0
        self._reset()

    def _reset(self) -> None:
        self._sums: Tensor | None = None
        self._measures: list[str] = []
        self._steps = 0
        self._busy = 0.0
        self._waited = 0.0
        self._step_began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier fit left."""
        self._reset()
        self._logged = trainer.global_step
        self._idle_since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new mean of the speed."""
        self._epoch_items, self._epoch_seconds = 0, 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Close the time that was spent waiting."""
        now = time.perf_counter()
        if self._idle_since is not None:
            self._waited += now - self._idle_since
        self._step_began = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step to the interval's sums, and log when the interval is full."""
        task = cast(Task, pl_module)
        items = outputs["items"]
        value = outputs["value"].double()
        # For each measure: its sum over the samples for which it is defined, and their number.
        columns = [value * items, torch.full_like(value, items)]
        for measure in outputs["measures"].values():
            known = ~measure.isnan()
            columns += [measure.double().nan_to_num() * items, known.double() * items]
        self._measures = list(outputs["measures"])
        step = torch.stack(columns)
        self._sums = step if self._sums is None else self._sums + step
        self._steps += 1
        if trainer.world_size == 1 and task.device.type == "cpu":
            task.check_finite(float(value), trainer.global_step, trainer.global_step)
        now = time.perf_counter()
        self._busy += now - self._step_began
        self._idle_since = now
        step_count = trainer.global_step
        interval = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
        if step_count // interval > self._logged // interval:
            self._flush(trainer, task)

    def _flush(self, trainer: Trainer, task: Task) -> None:
        if self._sums is None:
            return
        sums = cast(Tensor, trainer.strategy.reduce(self._sums, reduce_op="sum"))
        loss, items = float(sums[0] / sums[1]), round(float(sums[1]))
        # Reading the sums waited for the device, so the clock now covers the whole interval's work.
        if self._idle_since is not None:
            self._busy += time.perf_counter() - self._idle_since
        task.samples_seen += items
        task.check_finite(loss, self._logged + 1, trainer.global_step)
        seconds = self._busy + self._waited
        measures = {
            schema.key("train", name): float(sums[place] / sums[place + 1])
            for name, place in zip(self._measures, range(2, len(sums), 2), strict=True)
            if sums[place + 1] > 0
        }
        plot_over_samples(trainer.loggers, measures.keys() - self._plotted)
        self._plotted |= measures.keys()
        task.write(
            {
                schema.TRAIN_LOSS: loss,
                **measures,
                schema.LEARNING_RATE: trainer.optimizers[0].param_groups[-1]["lr"],
                schema.SAMPLES_PER_SECOND: items / seconds,
                schema.STEP_SECONDS: seconds / self._steps,
                schema.DATA_WAIT: self._waited / seconds,
                schema.PEAK_MEMORY: peak_memory_mib(task.device),
            }
        )
        self._epoch_items += items
        self._epoch_seconds += seconds
        self.last = {
            schema.TRAIN_LOSS: loss,
            schema.SAMPLES_PER_SECOND: self._epoch_items / self._epoch_seconds,
        }
        self._reset()
        self._logged = trainer.global_step
        self._idle_since = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what is left before validation, so that a loss that is no number never counts as a result."""
        if trainer.state.fn == "fit":
            self._flush(trainer, cast(Task, pl_module))
        self._idle_since = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the time again: validation is no part of a training step."""
        self._idle_since = time.perf_counter()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Log what is left before a checkpoint, so that a run that goes on from it has counted every step."""
        self._flush(trainer, cast(Task, pl_module))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last steps."""
        self._flush(trainer, cast(Task, pl_module))


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory in MiB: what torch allocated on a GPU, the process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Pictures(Callback):
    """Draw the learning curves, and the task's figures, films and tables of the last validation and of the test.

    Args:
        folder: Where the PNG and GIF files go.
        tables: Where the CSV files go.
        curves_from: The run's `metrics.csv`.
    """

    def __init__(self, folder: Path, tables: Path, curves_from: Path) -> None:
        self.folder = folder
        self.tables = tables
        self.curves_from = curves_from

    def _draw(self, trainer: Trainer, task: Task, split: Split) -> None:
        if not trainer.is_global_zero or split not in task.results:
            return
        for name, rows in task.tables(split, task.results[split]).items():
            log_table(trainer.loggers, rows, self.tables / f"{split}_{name}.csv")
        for name, figure in task.figures(split, task.results[split]).items():
            log_figure(trainer.loggers, figure, self.folder / f"{split}_{name}.png")
        training = task.training
        task.eval()
        try:
            with torch.inference_mode():
                films = task.films(split, task.results[split])
            for name, film in films.items():
                log_film(trainer.loggers, film, self.folder / f"{split}_{name}.gif")
        except NoFilm as error:
            _warn(f"no film of {split}: {error}")
        finally:
            task.train(training)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the learning curves and the last validation's figures."""
        self._draw(trainer, cast(Task, pl_module), "val")
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            # A run that had nothing left to train has logged nothing.
            if not self.curves_from.exists():
                return
            figure = learning_curves(self.curves_from, cast(Task, pl_module).monitor)
            if figure is not None:
                log_figure(trainer.loggers, figure, self.folder / "learning_curves.png")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the test's figures."""
        self._draw(trainer, cast(Task, pl_module), "test")


class Examples(Callback):
    """Keep what a task lets people read after each validation.

    A run that goes on in the same folder drops what came after its checkpoint.

    Args:
        path: A text file, to which each validation adds its lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last: list[str] = []
        """The lines of the newest validation."""
        self._kept: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the file's size."""
        return {"size": self.path.stat().st_size if self.path.is_file() else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what to keep; a test that loads a checkpoint drops nothing."""
        self._kept = state_dict["size"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop what came after the checkpoint."""
        if self._kept is not None and trainer.is_global_zero and self.path.is_file():
            os.truncate(self.path, min(self._kept, self.path.stat().st_size))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the task, and add its lines to the file."""
        task = cast(Task, pl_module)
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not fitting or not trainer.is_global_zero or "val" not in task.results:
            return
        self.last = [_one_line(text) for text in task.examples("val", task.results["val"])]
        if self.last:
            with self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"epoch {trainer.current_epoch + 1}, {task.samples_seen:,} samples\n")
                file.writelines(f"  {line}\n" for line in self.last)


class Snapshots(Callback):
    """Keep what a task draws of its samples with boxes, after each validation of a fit and after the test.

    All epochs are kept, so that one can look back: a task gives a few small pictures.

    Args:
        folder: Where the PNG files go: `<split>_<name>/epoch_007.png`, and `test_<name>.png`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the epoch's sheet."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            epoch = f"/epoch_{trainer.current_epoch + 1:03d}"
            self._draw(trainer, cast(Task, pl_module), "val", epoch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the test's sheet."""
        self._draw(trainer, cast(Task, pl_module), "test", "")

    def _draw(self, trainer: Trainer, task: Task, split: Split, epoch: str) -> None:
        if not trainer.is_global_zero or split not in task.results:
            return
        for name, pictures in task.snapshots(split, task.results[split]).items():
            own = f"{split}_{name}"
            log_boxed(trainer.loggers, pictures, self.folder / f"{own}{epoch}.png", own)


class TrainingSamples(Callback):
    """Draw the first training batch as the network will see it, before training: wrong labels show there at once.

    The batch is made beside the loader, so that neither its order nor any random number of the run changes. A run that
    goes on from a checkpoint, and a task that draws no samples, get no picture.

    Args:
        path: The PNG file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the task, in the first process of a run from its beginning."""
        task = cast(Task, pl_module)
        data = task.data
        draws = type(task).samples is not Task.samples
        if not draws or data is None or trainer.global_step or not trainer.is_global_zero:
            return
        generator, numbers = random.getstate(), np.random.get_state()
        device = task.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(data.seed)
            chosen = next(iter(data.batch_sampler("train", 0, trainer.world_size)))
            batch = task.transfer_batch_to_device(data.batch("train", chosen), device, 0)
            batch = data.transform(batch, "train")
            picture = task.samples(batch)
        random.setstate(generator)
        np.random.set_state(numbers)
        if picture is not None:
            write_png(picture, self.path)


def _one_line(text: str) -> str:
    """The text without line ends and without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
