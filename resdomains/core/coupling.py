"""What a run of blocks computes; how activations are kept is the memory's matter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from resdomains.core.masks import Valid
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


def _streams(blocks: Blocks) -> int:
    return blocks[0].merge.streams if blocks else 1
