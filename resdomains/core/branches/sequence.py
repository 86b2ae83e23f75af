"""The contract of branches over sequences and vectors.

A network takes factories ``Callable[[SequencePlace], SequenceBranch]``. Branches map ``(B, T, D)``,
packed rows ``(N, D)``, or vectors ``(B, D)`` to the same shape; where the norm stands is the
network's matter (``NormPosition``).
"""

from __future__ import annotations

from resdomains.core.masks import Valid
from resdomains.core.parts import Chain


class SequenceBranch(Chain):
    """The contract: keeps the shape, and the valid positions."""

    def advance(self, valid: Valid | None) -> Valid | None:
        return valid
