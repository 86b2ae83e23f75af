"""What networks return and heads read."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from resdomains.core.masks import Valid


class Features(NamedTuple):
    """The output of every stage, the last one the deepest.

    ``maps`` are ``(B, C, H, W)`` or ``(B, C, L)``; ``valid`` has an entry for each map, None where
    all positions count. A tuple, so that wrappers which walk outputs (DDP, FSDP) find the tensors.
    """

    maps: tuple[Tensor, ...]
    valid: tuple[Valid | None, ...]
