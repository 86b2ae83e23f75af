"""A run of blocks that keep the shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from resdomains.core.coupling import Coupling, Plain
from resdomains.core.masks import Valid
from resdomains.core.memory import Memory, Store
from resdomains.core.residual import Residual


class Stack(nn.Module):
    """Blocks that keep the shape, a coupling, and a memory.

    Raises:
        ValueError: the blocks do not fit the coupling, or the coupling does not fit the memory.
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
        self.coupling.check(list(self))
        self.memory.check(self.coupling, list(self))

    def __iter__(self) -> Iterator[Residual]:
        return iter(self.blocks)  # type: ignore[arg-type]  # a ModuleList of what was passed in

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return self.memory.run(self.coupling, list(self), x, valid)
