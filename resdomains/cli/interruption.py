"""Ctrl-C between two steps, so that what is saved is a whole number of them."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class StopBetweenSteps(Callback):
    """Let a training step finish after Ctrl-C, then interrupt; a second Ctrl-C interrupts at once.

    Interrupted in its middle, a step's batch would be counted as read and never be learned from.
    Stands behind the callbacks that count steps.
    """

    def __init__(self) -> None:
        self._in_step = False
        self._asked = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._in_step and not self._asked:
            self._asked = True
        else:
            raise KeyboardInterrupt

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen for Ctrl-C; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin a step."""
        self._in_step = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End a step, and training where that was asked for.

        Raises:
            KeyboardInterrupt: If Ctrl-C arrived in the step.
        """
        self._in_step = False
        if self._asked:
            raise KeyboardInterrupt

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen no longer."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)


class SaveOnInterrupt(Callback):
    """Save a checkpoint when the run is stopped by Ctrl-C or a signal, so that it can go on.

    Args:
        path: Where to save.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save when the exception is an interruption; one process of several cannot save alone."""
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        if (
            stopped
            and trainer.world_size == 1
            and trainer.global_step > 0
            and trainer.state.fn == "fit"
        ):
            trainer.save_checkpoint(self.path)
