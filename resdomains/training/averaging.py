"""Averaged weights, which are evaluated and kept in place of the last ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from resdomains.training.sharding import shares


class EMA(Callback):
    """Exponential moving average of weights and buffers, one update a step.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the untrained weights are forgotten within
    the first steps (as in TensorFlow's ExponentialMovingAverage with a step count). Whole numbers among the buffers,
    and what has no average because it is or was infinite, are the newest.

    Validation sees the average, a checkpoint's `state_dict` holds it, and the task has it when training ends. A
    checkpoint's `current_model_state` holds the weights that training goes on from. Each process averages what it
    keeps: the whole network, or its share (`Sharded`).

    (In Lightning's WeightAveraging a GPU's average stays on the CPU, and parameters that are shared out are refused.)

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
        self._average: list[Tensor] | None = None
        self._updates = 0
        self._updated_at = 0
        self._swapped = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what an earlier fit left."""
        if stage == "fit":
            self._average, self._updates, self._updated_at = None, 0, 0

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights as they are, or with the average that a checkpoint held, where the weights are."""
        held = shares(pl_module)
        begun = held if self._average is None else self._average
        self._average = [
            value.to(now.device, copy=True) for value, now in zip(begun, held, strict=True)
        ]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step; a batch whose gradients are accumulated makes none."""
        if trainer.global_step == self._updated_at:
            return
        assert self._average is not None
        rate = min(self.decay, (1 + self._updates) / (10 + self._updates)) if self._updates else 0.0
        update = get_ema_multi_avg_fn(rate)  # type: ignore[no-untyped-call]
        alike: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        held = shares(pl_module)
        for averaged, current in zip(self._average, held, strict=True):
            if averaged.is_floating_point():
                pair = alike.setdefault(averaged.dtype, ([], []))
                pair[0].append(averaged)
                pair[1].append(current)
            else:
                averaged.copy_(current)
        for averages, currents in alike.values():
            update(averages, currents, self._updates)
        # A buffer may hold infinities, such as a bound that is not known yet, and those have no average.
        first = len(held) - len(list(pl_module.buffers()))
        for averaged, current in zip(self._average[first:], held[first:], strict=True):
            if averaged.is_floating_point():
                averaged.copy_(torch.where(averaged.isnan(), current, averaged))
        self._updates += 1
        self._updated_at = trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in the place of the weights."""
        if self._average is not None:
            self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights back."""
        if self._swapped:
            self._swap(pl_module)

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average to the task."""
        assert self._average is not None
        for averaged, current in zip(self._average, shares(pl_module), strict=True):
            current.copy_(averaged)

    @torch.no_grad()
    def _swap(self, module: LightningModule) -> None:
        assert self._average is not None
        for averaged, current in zip(self._average, shares(module), strict=True):
            kept = averaged.clone()
            averaged.copy_(current)
            current.copy_(kept)
        self._swapped = not self._swapped

    @contextmanager
    def _other(self, module: LightningModule) -> Iterator[None]:
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    def state_dict(self) -> dict[str, Any]:
        """Return the step of the last update."""
        return {"latest_update_step": self._updated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the step of the last update back."""
        self._updated_at = state_dict["latest_update_step"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as the weights, and the weights beside it."""
        if self._average is None:
            return
        here = _copied(checkpoint["state_dict"])
        with self._other(pl_module):
            there = _copied(trainer.strategy.lightning_module_state_dict())
        average, current = (here, there) if self._swapped else (there, here)
        checkpoint["state_dict"], checkpoint["current_model_state"] = average, current
        checkpoint["averaging_state"] = {"n_averaged": torch.tensor(self._updates)}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the average, which is loaded already, and take up the weights; without them both begin alike."""
        if "current_model_state" not in checkpoint:
            return
        self._average = [value.detach().clone() for value in shares(pl_module)]
        self._updates = int(checkpoint["averaging_state"]["n_averaged"])
        state = {"state_dict": checkpoint["current_model_state"]}
        trainer.strategy.load_model_state_dict(state, strict=pl_module.strict_loading)


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
        for name, value in state.items()
    }
