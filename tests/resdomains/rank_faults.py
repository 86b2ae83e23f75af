"""Data that go wrong in one process of several: the second, at its third step."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from resdomains.scaffold.tone_tagging.src.tone_tagging.data import Tones
from resdomains.scaffold.tone_tagging.src.tone_tagging.task import ToneTagging


class Tagging(ToneTagging):
    """The sound task, under a name that these data are given to."""


class _SecondProcess(Tones):
    def wrong(self, batch: Any) -> Any:
        raise NotImplementedError

    def transform(self, batch: Any, split: str) -> Any:
        batch = super().transform(batch, split)
        trainer = self.trainer
        here = trainer is not None and trainer.global_rank == 1 and trainer.global_step == 2
        return self.wrong(batch) if here and split == "train" else batch


class Raises(_SecondProcess):
    def wrong(self, batch: Any) -> Any:
        raise RuntimeError("the second process has had enough")


class Poisons(_SecondProcess):
    def wrong(self, batch: Any) -> Any:
        return {**batch, "wave": batch["wave"] * torch.nan}


class SlowToEnd(Callback):
    """The first process takes longer to end than its launchers let it live without the others."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if trainer.is_global_zero:
            time.sleep(6)
