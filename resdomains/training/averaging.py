"""Averaged weights, which are evaluated and kept in place of the last ones."""

from typing import Any

from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(WeightAveraging):
    """Exponential moving average of weights and buffers, one update a step.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the untrained weights are forgotten within
    the first steps (as in TensorFlow's ExponentialMovingAverage with a step count).

    Args:
        decay: Share of the average that stays at each update, in [0, 1); 0.999 averages over some 1,000 steps.

    Raises:
        ValueError: If the decay lies outside.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(
                f"decay must lie in [0, 1), got {decay}; 0.999 averages over some 1,000 steps"
            )
        self.decay = decay
        self._warm = False

        def average(averaged: Any, current: Any, updates: Tensor | int) -> None:
            rate = decay
            if not self._warm:
                # Reading the count waits for a GPU, so it is read during the warm-up only.
                count = int(updates)
                rate = min(decay, (1 + count) / (10 + count))
                self._warm = rate == decay
            update = get_ema_multi_avg_fn(rate)  # type: ignore[no-untyped-call]
            update(averaged, current, updates)

        super().__init__(multi_avg_fn=average)
