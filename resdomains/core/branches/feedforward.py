"""Branches that treat every position by itself: two linear maps and what stands between them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.linear import Dropout, Linear, Scale
from resdomains.core.masks import Valid
from resdomains.core.parts import Bare, Part
from resdomains.core.place import SequencePlace


class FeedForward(SequenceBranch):
    """``scale * dropout(W2 dropout(act(W1 x)))`` (Vaswani et al. 2017).

    ``W1`` maps D to ``expansion`` D. ``inner_dropout`` stands after the activation; ``scale`` 0.5
    makes the half steps of Conformer.

    Raises:
        ValueError: ``expansion`` D is not a whole number of at least 1.
    """

    def __init__(
        self,
        place: SequencePlace,
        expansion: float = 4.0,
        dropout: float = 0.0,
        inner_dropout: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        hidden = _hidden(place.width, expansion)
        super().__init__(
            expand=Linear(place.width, hidden),
            act=place.activation(),
            inner_dropout=_dropout(inner_dropout),
            project=Linear(hidden, place.width),
            dropout=_dropout(dropout),
            scale=Bare() if scale == 1 else Scale(scale),
        )


class SwiGLU(SequenceBranch):
    """``dropout(W2 (silu(W x) * V x))`` (Shazeer 2020); the network's activation is not asked.

    W and V stand in one map, ``expand``. The inner width is ``expansion`` D, rounded up to a
    multiple of 8; 8/3 has the parameters of a ``FeedForward`` of 4.

    Raises:
        ValueError: ``expansion`` is not above 0.
    """

    def __init__(
        self,
        place: SequencePlace,
        expansion: float = 8 / 3,
        dropout: float = 0.0,
        inner_dropout: float = 0.0,
    ) -> None:
        if expansion <= 0:
            raise ValueError(f"expansion: expected a number above 0, got {expansion}")
        hidden = -int(-place.width * expansion // 8) * 8
        super().__init__(
            expand=Linear(place.width, 2 * hidden, maps=2),
            gate=_Gate(),
            inner_dropout=_dropout(inner_dropout),
            project=Linear(hidden, place.width),
            dropout=_dropout(dropout),
        )


class _Gate(Part):
    """``silu(a) * b`` for the halves ``a`` and ``b`` of the last axis."""

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        a, b = x.chunk(2, -1)
        return F.silu(a) * b


def _dropout(p: float) -> Part:
    return Dropout(p) if p else Bare()


def _hidden(width: int, expansion: float) -> int:
    hidden = round(width * expansion)
    if hidden < 1 or abs(hidden - width * expansion) > 1e-6:
        raise ValueError(
            f"expansion: expected a number whose product with the width {width} is whole and at "
            f"least 1, got {expansion}"
        )
    return hidden
