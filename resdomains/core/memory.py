"""How a run of blocks keeps the activations that its gradients need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from resdomains.core.coupling import Blocks, Coupling, Reversible, Streams, bare
from resdomains.core.masks import Valid
from resdomains.core.recomputation import Precision, Randomness, recomputation
from resdomains.core.stance import Stance


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


class Reverse(Memory):
    """Keeps what leaves the last block and computes all else again from there (Gomez et al. 2017).

    Activation memory does not grow with depth; what does are a few bytes a block, and the state of
    the random-number generators of blocks that draw numbers. Gradients are those of ``Store`` but
    for rounding, which grows with depth and with what the branches add (resdomains/core/README.md
    has figures). Batch-norm statistics are updated once. All gradients of the blocks' parameters
    come at once, when the first block is reached; only first gradients can be had.

    Raises:
        ValueError: in a training step the streams have less than float32's precision.
    """

    @property
    def outside(self) -> Memory:
        return Store()

    def check(self, coupling: Coupling, blocks: Blocks) -> None:
        """Refuses what cannot be run backwards.

        Raises:
            ValueError: the coupling is not ``Reversible``, a merge is not invertible, or something
                follows the sum.
        """
        if not isinstance(coupling, Reversible):
            raise ValueError(
                f"memory=Reverse needs coupling=Reversible, got {type(coupling).__name__}: the "
                f"input of a block does not follow from its output alone; or use memory=Recompute"
            )
        for block in blocks:
            if not block.merge.invertible:
                raise ValueError(
                    f"memory=Reverse needs a merge that can be inverted, got "
                    f"{type(block.merge).__name__}: the shortcut does not follow from the sum and "
                    f"the branch; use Add, ReZero, LayerScale or DropPath of one of these, or "
                    f"memory=Recompute"
                )
            if not bare(block.after):
                raise ValueError(
                    f"memory=Reverse needs blocks that end with the sum, got "
                    f"after={type(block.after).__name__}, which loses what went in; use "
                    f"block=PreActivationBasic or after=Nothing (in an encoder, pre-norm), or "
                    f"memory=Recompute"
                )

    def run(self, coupling: Coupling, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        streams = coupling.expand(blocks, x)
        if not torch.is_grad_enabled() or not blocks:
            return coupling.collapse(blocks, _steps(coupling, blocks, streams, valid))
        if torch.finfo(x.dtype).bits < 32 and streams[0].dtype == x.dtype:
            raise ValueError(
                f"memory=Reverse needs streams of at least float32, got {x.dtype}: inverted blocks "
                f"would lose their gradients to rounding; keep the network in float32 under "
                f"autocast (precision bf16-mixed), or use memory=Recompute"
            )
        parameters = dict.fromkeys(p for block in blocks for p in block.parameters())
        streams = _Reversed.apply(  # type: ignore[no-untyped-call]
            coupling, blocks, valid, *streams, *parameters
        )
        return coupling.collapse(blocks, streams)


class _Reversed(torch.autograd.Function):
    """``(coupling, blocks, valid, *streams, *parameters)`` to the streams that leave the blocks."""

    @staticmethod
    def forward(
        ctx: Any, coupling: Reversible, blocks: Blocks, valid: Valid | None, *tensors: Tensor
    ) -> Streams:
        streams, parameters = tensors[:2], tensors[2:]
        device = streams[0].device
        ctx.precision, ctx.stance = Precision(device), Stance()
        ctx.draws = []
        before = Randomness(device)
        for block in blocks:
            streams = coupling.step(block, streams, valid)
            now = Randomness(device)
            ctx.draws.append(before if before.moved(now) else None)
            before = now
        ctx.coupling, ctx.blocks, ctx.valid = coupling, blocks, valid
        ctx.places = {parameter: place for place, parameter in enumerate(parameters)}
        # Parameters only so that one changed before the backward pass is noticed.
        ctx.save_for_backward(*streams, *parameters)
        return streams

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "memory=Reverse gives first gradients only, but create_graph=True asks for a graph "
                "of them; use memory=Store or memory=Recompute"
            )
        streams: Streams = ctx.saved_tensors[:2]
        needed = ctx.needs_input_grad[5:]
        sums: list[Tensor | None] = [None] * len(needed)
        for block, draws in zip(reversed(ctx.blocks), reversed(ctx.draws), strict=True):
            wanted = [p for p in block.parameters() if needed[ctx.places[p]]]
            with (
                torch.enable_grad(),
                recomputation(),
                ctx.precision.again(),
                ctx.stance.again(),
                nullcontext() if draws is None else draws.again(),
            ):
                streams, again = ctx.coupling.unstep(block, streams, ctx.valid)
            found = torch.autograd.grad(again, (*streams, *wanted), gradients, allow_unused=True)
            gradients = found[:2]
            for parameter, gradient in zip(wanted, found[2:], strict=True):
                place = ctx.places[parameter]
                sums[place] = _plus(sums[place], gradient)
        return None, None, None, *gradients, *sums


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two gradients; None is an absent one."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _steps(coupling: Coupling, blocks: Blocks, streams: Streams, valid: Valid | None) -> Streams:
    for block in blocks:
        streams = coupling.step(block, streams, valid)
    return streams


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _second(Stance())


@contextmanager
def _second(stance: Stance) -> Iterator[None]:
    with recomputation(), stance.again():
        yield
