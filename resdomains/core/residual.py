"""The residual block: the one place where branch and shortcut become a sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from resdomains.core.masks import Valid
from resdomains.core.merges import Merge
from resdomains.core.parts import Bare, adapt


class Residual(nn.Module):
    """``y = after(merge(shortcut(x), branch(x)))``.

    All variants choose the parts; none has a forward of its own. ``branch``, ``shortcut`` and
    ``after`` are called ``(x, valid)``; plain modules are wrapped.

    Raises:
        ValueError: the merge cannot work with these parts (``Merge.check``).
    """

    def __init__(
        self,
        branch: nn.Module,
        shortcut: nn.Module,
        merge: Merge,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.branch = adapt(branch)
        self.shortcut = adapt(shortcut)
        self.merge = merge
        self.after = adapt(after or Bare())
        merge.check(self)
        merge.initialise(self.branch)

    def join(self, u: Tensor, v: Tensor, state: Any, valid: Valid | None) -> Tensor:
        """The block's output when the shortcut reads ``u`` and the branch reads ``v``."""
        return self._sum(u, self.branch(v, valid), state, valid)

    def rejoin(
        self, y: Tensor, v: Tensor, state: Any, valid: Valid | None
    ) -> tuple[Tensor, Tensor]:
        """The ``u`` for which ``join(u, v, state, valid)`` is ``y``, and from it ``y`` again.

        For blocks whose shortcut and ``after`` return their input.

        Raises:
            TypeError: the merge cannot be inverted.
        """
        b = self.branch(v, valid)
        with torch.no_grad():
            u = self.merge.invert(y, b, state)
        return u.requires_grad_(), self._sum(u, b, state, valid)

    def _sum(self, u: Tensor, b: Tensor, state: Any, valid: Valid | None) -> Tensor:
        y = self.merge(self.shortcut(u, valid), b, state)
        out: Tensor = self.after(y, self.branch.advance(valid))
        return out

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return self.join(*self.merge.read(x, valid), valid)

    def advance(self, valid: Valid | None) -> Valid | None:
        """The valid positions of the output."""
        return self.branch.advance(valid)
