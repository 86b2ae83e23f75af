"""What tells positions of a sequence apart.

Two contracts: ``AddedPositions`` are added to a stem's output, ``AttentionPositions`` act inside
self-attention. Positions count from 0, each item's first.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core.linear import Linear


class AddedPositions(nn.Module):
    """The contract: a vector of ``width`` numbers for each position; stems add them.

    A stem takes a factory ``Callable[[int, int], AddedPositions]`` of ``width`` and ``length``, the
    number of positions that it promises. The attribute ``length`` is the most that there may be;
    None: any number.
    """

    length: int | None = None

    def forward(self, x: Tensor, places: Tensor, size: int) -> Tensor:
        """``x`` plus the vectors of ``places`` ``(T,)`` or ``(N,)``, which lie below ``size``.

        ``x`` is ``(B, T, D)`` or ``(N, D)``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, places, size)")


class NoPositions(AddedPositions):
    """Adds nothing; for attention that knows positions itself."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, places: Tensor, size: int) -> Tensor:
        return x


class LearnedPositions(AddedPositions):
    """A learned vector for each of ``length`` positions (Devlin et al. 2019).

    The table has ``offset`` rows more, which come first and are never read: RoBERTa's begins with
    ``padding_idx + 1`` such rows (Liu et al. 2019).
    """

    length: int

    def __init__(self, width: int, length: int, offset: int = 0) -> None:
        super().__init__()
        self.length = length
        self.offset = offset
        self.weight = nn.Parameter(torch.empty(offset + length, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, places: Tensor, size: int) -> Tensor:
        """``x`` plus the vectors of its positions.

        Raises:
            ValueError: the sequences are longer than the table.
        """
        if size > self.length:
            raise ValueError(
                f"x: expected at most {self.length} positions, the length of the table of learned "
                f"positions, got {size}; cut the input, or build the stem with a longer table"
            )
        # Not indexing: its backward pass adds row by row.
        return x + F.embedding(places + self.offset, self.weight)

    def extra_repr(self) -> str:
        return f"length={self.length}, offset={self.offset}"


class SinusoidalPositions(AddedPositions):
    """Sines and cosines of wavelengths from 2 pi to 20000 pi (Vaswani et al. 2017), any length.

    Raises:
        ValueError: ``width`` is odd.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width: SinusoidalPositions needs an even number, got {width}")
        self.width = width

    def forward(self, x: Tensor, places: Tensor, size: int) -> Tensor:
        return x + sinusoids(places, self.width).to(x.dtype)


class AttentionPositions(nn.Module):
    """The contract: changes queries and keys ``(B, H, T, d)``, or adds to their scores.

    Attention takes a factory ``Callable[[int, int], AttentionPositions]`` of the number of heads H
    and their width d.
    """

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries, keys, and what is added to ``q k^T / sqrt(d)``, ``(B, H, T, T)`` or None."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(q, k)")


class PositionFree(AttentionPositions):
    """Attention as it is, blind to order; the stem adds positions, if anyone does."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return q, k, None


class RotaryPositions(AttentionPositions):
    """Rotates each pair ``(i, i + d/2)`` of a query or key by ``position / base^(2i/d)``.

    Scores then depend on distances alone (Su et al. 2021; the pairs are those of GPT-NeoX).

    Raises:
        ValueError: the width of a head is odd.
    """

    def __init__(self, heads: int, width: int, base: float = 10000.0) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(
                f"positions=RotaryPositions needs heads of even width, got {width}; change the "
                f"number of heads"
            )
        self.base = base

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        places = torch.arange(q.shape[-2], device=q.device)
        angles = _angles(places, q.shape[-1], self.base)
        cos, sin = angles.cos(), angles.sin()
        return _rotated(q, cos, sin), _rotated(k, cos, sin), None

    def extra_repr(self) -> str:
        return f"base={self.base}"


class RelativePositions(AttentionPositions):
    """Scores ``((q + u) k^T + (q + v) r^T) / sqrt(d)`` with ``r`` a map of the distance's sinusoids.

    As in Transformer-XL (Dai et al. 2019) and Conformer; ``u`` and ``v`` start at zero.

    Raises:
        ValueError: ``heads * width`` is odd.
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        if heads * width % 2:
            raise ValueError(
                f"positions=RelativePositions needs an even network width, got {heads * width}"
            )
        self.distance = Linear(heads * width, heads * width, bias=False)
        self.u = nn.Parameter(torch.zeros(heads, 1, width))
        self.v = nn.Parameter(torch.zeros(heads, 1, width))

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        size, (heads, _, width) = q.shape[-2], self.u.shape
        distances = torch.arange(size - 1, -size, -1, device=q.device)
        r = self.distance(sinusoids(distances, heads * width).to(q.dtype))
        r = r.view(-1, heads, width).permute(1, 2, 0)
        scores = (q + self.v.to(q.dtype)) @ r  # column c stands for distance T - 1 - c
        return q + self.u.to(q.dtype), k, _shifted(scores) / math.sqrt(width)


def sinusoids(places: Tensor, width: int) -> Tensor:
    """``(..., width)``: sines and cosines of ``place / 10000^(2i/width)``, one after the other."""
    angles = _angles(places, width, 10000.0)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)


def _angles(places: Tensor, width: int, base: float) -> Tensor:
    """``(..., width / 2)``, in float32 whatever autocast says."""
    exponents = torch.arange(0, width, 2, device=places.device, dtype=torch.float32) / width
    return places.unsqueeze(-1).float() * base**-exponents


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def _shifted(scores: Tensor) -> Tensor:
    """``(B, H, T, 2T - 1)`` by distance to ``(B, H, T, T)`` by key: row i moves i to the right."""
    batch, heads, size, distances = scores.shape
    padded = F.pad(scores, (1, 0)).view(batch, heads, distances + 1, size)
    return padded[:, :, 1:].reshape(batch, heads, size, distances)[..., :size]
