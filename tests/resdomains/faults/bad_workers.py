"""Data whose reading goes wrong in a loader's process, in one way each."""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from resdomains.scaffold.tone_tagging.src.tone_tagging.data import Tones
from resdomains.scaffold.tone_tagging.src.tone_tagging.task import ToneTagging
from resdomains.training import BadSample


class Tagging(ToneTagging):
    """The sound task, under a name that these data are given to."""


class _Faulty(Tones):
    def dataset(self, split: str) -> Any:
        return _Items(super().dataset(split), self) if split == "train" else super().dataset(split)

    def fail(self, index: int) -> None:
        raise NotImplementedError


class _Items:
    def __init__(self, items: Sequence[Any], data: _Faulty) -> None:
        self.items, self.data = items, data

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        if index == 7:
            self.data.fail(index)
        return self.items[index]


class Killed(_Faulty):
    def fail(self, index: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Hanging(_Faulty):
    def fail(self, index: int) -> None:
        time.sleep(3600)


class Unusable(_Faulty):
    def fail(self, index: int) -> None:
        raise BadSample(f"tone {index}", "cannot be heard")
