"""How a run of blocks keeps the activations that its gradients need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from resdomains.core.coupling import Blocks, Coupling, Streams
from resdomains.core.masks import Valid
from resdomains.core.recomputation import recomputation


class Memory(ABC):
    """Runs blocks and decides what stays in memory until the backward pass."""

    @abstractmethod
    def run(self, coupling: Coupling, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        """What ``coupling`` computes with ``blocks`` on ``x``."""

    @abstractmethod
    def check(self, coupling: Coupling, blocks: Blocks) -> None:
        """Raises ValueError, with the reason, if gradients cannot be had this way."""

    @property
    def outside(self) -> Memory:
        """The memory for blocks that change the shape, which stand between stacks."""
        return self


class Store(Memory):
    """Keeps every activation: fastest, and what plain PyTorch does."""

    def check(self, coupling: Coupling, blocks: Blocks) -> None:
        """Works with everything."""

    def run(self, coupling: Coupling, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        return coupling.collapse(
            blocks, _steps(coupling, blocks, coupling.expand(blocks, x), valid)
        )


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

    def check(self, coupling: Coupling, blocks: Blocks) -> None:
        """Works with everything."""

    def run(self, coupling: Coupling, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        streams = coupling.expand(blocks, x)
        if not torch.is_grad_enabled():
            return coupling.collapse(blocks, _steps(coupling, blocks, streams, valid))
        for start in range(0, len(blocks), self.every):
            few = blocks[start : start + self.every]
            streams = checkpoint(
                _steps, coupling, few, streams, valid, use_reentrant=False, context_fn=_contexts
            )
        return coupling.collapse(blocks, streams)


def _steps(coupling: Coupling, blocks: Blocks, streams: Streams, valid: Valid | None) -> Streams:
    for block in blocks:
        streams = coupling.step(block, streams, valid)
    return streams


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), recomputation()
