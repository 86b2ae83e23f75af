"""How a run of blocks keeps the activations that its gradients need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resdomains.core.masks import Valid

Blocks = Sequence[nn.Module]
Run = Callable[[Blocks, Tensor, Valid | None], Tensor]


class Memory(ABC):
    """Runs blocks and decides what stays in memory until the backward pass."""

    @abstractmethod
    def run(self, run: Run, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        """The same values as ``run(blocks, x, valid)``."""


class Store(Memory):
    """Keeps every activation: fastest, and what plain PyTorch does."""

    def run(self, run: Run, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        return run(blocks, x, valid)


class Recompute(Memory):
    """Keeps the input of every ``every`` blocks and computes the rest again (Chen et al. 2016).

    Gradients are those of ``Store``: random state is replayed, and batch-norm statistics are not
    updated a second time.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every: expected at least 1 block, got {every}")
        self.every = every

    def run(self, run: Run, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        if not torch.is_grad_enabled():
            return run(blocks, x, valid)
        for start in range(0, len(blocks), self.every):
            few = blocks[start : start + self.every]
            x = checkpoint(run, few, x, valid, use_reentrant=False, context_fn=_contexts)
        return x


class _State:
    """Process-wide rather than per thread: the backward pass may run in a thread of the device,
    while the thread that asked for it waits."""

    def __init__(self) -> None:
        self.recomputing = False


# An instance, since torch.compile guards its attributes: compiled blocks have a version for each
# value. Those of a class it takes for constants.
_STATE = _State()


def recomputing() -> bool:
    """Whether the forward pass in progress is a second one, made for the backward pass.

    Whatever counts forward passes (statistics, probes) asks and leaves these out.
    """
    return _STATE.recomputing


@contextmanager
def _second_pass() -> Iterator[None]:
    before = _STATE.recomputing
    _STATE.recomputing = True
    try:
        yield
    finally:
        _STATE.recomputing = before


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _second_pass()
