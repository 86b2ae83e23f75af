"""A run of blocks that keep the shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from resdomains.core.masks import Valid
from resdomains.core.memory import Blocks, Memory, Store
from resdomains.core.residual import Residual


class Coupling(ABC):
    """What a run of blocks computes; how activations are kept is the memory's matter."""

    @abstractmethod
    def run(self, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        """The output of ``blocks`` on ``x``."""


class Plain(Coupling):
    """Each block reads the one before it."""

    def run(self, blocks: Blocks, x: Tensor, valid: Valid | None) -> Tensor:
        for block in blocks:
            x = block(x, valid)
        return x


class Stack(nn.Module):
    """Blocks that keep the shape, a coupling, and a memory.

    Raises:
        ValueError: a merge carries several streams, which no coupling here provides.
    """

    def __init__(
        self,
        blocks: Iterable[Residual],
        coupling: Coupling | None = None,
        memory: Memory | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.coupling = coupling or Plain()
        self.memory = memory or Store()
        for number, block in enumerate(self.blocks):
            if block.merge.streams != 1:  # type: ignore[union-attr]
                raise ValueError(
                    f"merge={type(block.merge).__name__} in block {number} carries "
                    f"{block.merge.streams} streams, but coupling={type(self.coupling).__name__} "  # type: ignore[union-attr]
                    f"carries 1; use a merge of one stream"
                )

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return self.memory.run(self.coupling.run, list(self.blocks), x, valid)
