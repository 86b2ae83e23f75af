"""A callback by which a process signals itself, in the middle of a step or batch."""

import os
import signal
import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Signalling(Callback):
    """Send a signal within a batch.

    Args:
        where: `train`, `validation` or `test`.
        at: How many batches to let pass; all epochs are counted together.
        name: The signal's name.
        rank: The process that gets it.
        hang: Seconds to hold the batch up.
    """

    def __init__(
        self, where: str, at: int, name: str = "SIGTERM", rank: int = 0, hang: float = 0
    ) -> None:
        self.where = where
        self.left = at
        self.signal = signal.Signals[name]
        self.rank = rank
        self.hang = hang

    def _batch(self, trainer: Trainer, where: str) -> None:
        if where != self.where:
            return
        if self.left == 0 and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.signal)
            time.sleep(0.1 + self.hang)
        self.left -= 1

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch(trainer, "train")

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batch(trainer, "validation")

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batch(trainer, "test")
