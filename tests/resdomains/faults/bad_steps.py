"""Training steps that go wrong: a batch a million times too loud, and a finite loss without a finite gradient."""

from typing import Any

import torch

from resdomains.scaffold.tone_tagging.src.tone_tagging.data import Tones
from resdomains.scaffold.tone_tagging.src.tone_tagging.task import ToneTagging
from resdomains.schema import Split
from resdomains.training import StepResult


class Even(Tones):
    """The tones, under a name of this module."""


class Loud(Even):
    def transform(self, batch: Any, split: str) -> Any:
        batch = super().transform(batch, split)
        now = split == "train" and self.trainer is not None and self.trainer.global_step == 30
        return {**batch, "wave": batch["wave"] * 1e6} if now else batch


class Tagging(ToneTagging):
    """The sound task, under a name that these data are given to."""


class Steep(Tagging):
    """The slope of the square root at 0 is infinite, and what is added is 0: in an epoch's last step."""

    def step(self, batch: Any, split: Split) -> StepResult:
        result = super().step(batch, split)
        if split == "train" and self.trainer.global_step == 11:
            result.loss = result.loss + torch.sqrt(0 * next(self.parameters()).sum())
        return result
