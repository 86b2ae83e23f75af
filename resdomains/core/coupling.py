"""What a run of blocks computes; how activations are kept is the memory's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resdomains.core.masks import Valid
from resdomains.core.norms import NoNorm
from resdomains.core.parts import Bare, Chain
from resdomains.core.residual import Residual

Blocks = Sequence[Residual]
Streams = tuple[Tensor, ...]


class Coupling(ABC):
    """The contract: ``x`` becomes streams, each block maps streams to streams, they become ``y``."""

    @abstractmethod
    def expand(self, blocks: Blocks, x: Tensor) -> Streams:
        """The streams that enter the first of ``blocks``."""

    @abstractmethod
    def step(self, block: Residual, streams: Streams, valid: Valid | None) -> Streams:
        """The streams that leave ``block``."""

    @abstractmethod
    def collapse(self, blocks: Blocks, streams: Streams) -> Tensor:
        """The output, given the streams that leave the last of ``blocks``."""

    def whole(self, block: Residual) -> nn.Module:
        """The largest part of ``block`` that is called as one module: what can be compiled."""
        return block

    def check(self, blocks: Blocks) -> None:
        """Refuses ``blocks`` that cannot be coupled this way.

        Raises:
            ValueError: the blocks' merges differ in the number of streams.
        """
        counts = {block.merge.streams for block in blocks}
        if len(counts) > 1:
            raise ValueError(
                f"merge: the blocks of a stack must carry equally many streams, "
                f"got merges of {sorted(counts)}"
            )


class Plain(Coupling):
    """Each block reads the one before it.

    A merge of n > 1 streams gets n copies of the input, ``(n, ...)``; the output is their mean.
    """

    def expand(self, blocks: Blocks, x: Tensor) -> Streams:
        count = _streams(blocks)
        return (x if count == 1 else x.expand(count, *x.shape),)

    def step(self, block: Residual, streams: Streams, valid: Valid | None) -> Streams:
        (x,) = streams
        return (block(x, valid),)

    def collapse(self, blocks: Blocks, streams: Streams) -> Tensor:
        (x,) = streams
        return x if _streams(blocks) == 1 else x.mean(0)


class Reversible(Coupling):
    """Two streams, ``(a, c)`` to ``(c, block(a, c))``: what goes in follows from what comes out.

    The block's shortcut reads ``a``, its branch ``c``: with ``Add`` two blocks are a pair of the
    reversible residual network (Gomez et al. 2017). Both streams start as the input; the output is
    their mean. A function of its own, not that of ``Plain`` with the same weights.

    Under autocast the streams are float32, whatever it makes of the branches: in bfloat16,
    inverting 20 blocks left gradients off by 0.17 of their norm.
    """

    def expand(self, blocks: Blocks, x: Tensor) -> Streams:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x, x

    def step(self, block: Residual, streams: Streams, valid: Valid | None) -> Streams:
        a, c = streams
        _, v, state = block.merge.read(c, valid)
        return c, block.join(a, v, state, valid)

    def unstep(
        self, block: Residual, streams: Streams, valid: Valid | None
    ) -> tuple[Streams, Streams]:
        """The streams that entered ``block``, and from them those that left it, with a graph."""
        c, y = streams
        c = c.detach().requires_grad_()
        _, v, state = block.merge.read(c, valid)
        a, again = block.rejoin(y, v, state, valid)
        return (a, c), (c, again)

    def collapse(self, blocks: Blocks, streams: Streams) -> Tensor:
        a, c = streams
        return (a + c) / 2

    def whole(self, block: Residual) -> nn.Module:
        return block.branch

    def check(self, blocks: Blocks) -> None:
        """Refuses ``blocks`` that two streams cannot pass.

        Raises:
            ValueError: a merge carries several streams or ignores the shortcut, or a shortcut is
                not the identity.
        """
        for block in blocks:
            name = type(block.merge).__name__
            if block.merge.streams != 1:
                raise ValueError(
                    f"coupling=Reversible carries two streams of its own, but merge={name} has "
                    f"streams={block.merge.streams}; use Add, ReZero, LayerScale or Highway, or "
                    f"coupling=Plain"
                )
            if not block.merge.reads_shortcut:
                raise ValueError(
                    f"coupling=Reversible needs a merge that reads the shortcut, but merge={name} "
                    f"ignores it, so that one stream of two would be lost; use Add, ReZero, "
                    f"LayerScale or Highway, or coupling=Plain"
                )
            if not bare(block.shortcut):
                raise ValueError(
                    f"coupling=Reversible needs shortcuts that are the identity, got "
                    f"{type(block.shortcut).__name__}; use inner_shortcut=Identity, which blocks that "
                    f"keep their shape have by default, or coupling=Plain"
                )


def bare(part: nn.Module) -> bool:
    """Whether ``part`` returns its input as it is."""
    if isinstance(part, Chain) and type(part).forward is Chain.forward:
        return all(bare(p) for p in part.parts())
    return isinstance(part, Bare | NoNorm)


def _streams(blocks: Blocks) -> int:
    return blocks[0].merge.streams if blocks else 1
