"""Sums of the vectors of n-grams, which share a table by a hash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core.linear import dropout
from resdomains.core.masks import Valid, hide
from resdomains.core.parts import Part
from resdomains.core.tables import Table
from resdomains.core.weightings import Weighting

# Odd 64-bit numbers whose bits look random: those of splitmix64 (Steele et al. 2014), as signed.
_BASE, _MIX1, _MIX2 = (
    number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class Grams(Table, Part):
    """Ids ``(B, 1, 1, L)`` to the weighted sums of the vectors of their n-grams, ``(B, D, 1, L)``.

    ``weight`` holds the vectors of single ids, ``own`` of them, then those of the buckets. Given
    ``letters``, the first and the last id of them, an n-gram lies in a word and its two neighbours.
    """

    fresh = True

    def __init__(
        self,
        own: int,
        letters: tuple[int, int] | None,
        width: int,
        orders: Sequence[int],
        buckets: int,
        dropout: float,
        weighting: Callable[[int], Weighting],
    ) -> None:
        if not orders or min(orders) < 1 or len(set(orders)) < len(orders):
            raise ValueError(
                f"orders: expected different numbers from 1, such as [1, 2, 3], got {list(orders)}"
            )
        if buckets < 1:
            raise ValueError(f"buckets: expected at least 1, got {buckets}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"gram_dropout: expected a chance in [0, 1), got {dropout}")
        super().__init__(own + buckets, width)
        self.own = own
        self.letters = letters
        self.orders = tuple(sorted(orders))
        self.buckets = buckets
        self.dropout = dropout
        self.weighting = weighting(own + buckets)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        ids = x[:, 0, 0]
        rows, whole = self.found(ids, valid)
        weights = self.weighting(rows, whole, valid).to(self.weight.dtype)
        if self.training:
            weights = dropout(weights, self.dropout)
        rows, weights, starts = rows.flatten(0, 1), weights.flatten(0, 1), None
        if self.training and ids.device.type == "cpu":
            # Most end no n-gram or have dropped out, and a gradient is not looked for in their rows.
            # Elsewhere to count them would stall the device.
            counts = weights != 0
            starts = F.pad(counts.sum(1).cumsum(0)[:-1], (1, 0))
            rows, weights = rows[counts], weights[counts]
        y = F.embedding_bag(
            rows, self.weight, starts, mode="sum", sparse=self.sparse, per_sample_weights=weights
        )
        return y.view(*ids.shape, -1).movedim(-1, 1).unsqueeze(2)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def found(self, ids: Tensor, valid: Valid | None) -> tuple[Tensor, Tensor]:
        """The row of the n-gram of each order that ends at each position, and whether one does.

        Ids ``(B, L)`` to ``(B, L, N)`` twice.
        """
        # Ends at a position: what it reads lies before, so padding, which lies behind, is not read.
        ends = torch.arange(1, ids.shape[1] + 1, device=ids.device).unsqueeze(1)
        whole = ends >= torch.tensor(self.orders, device=ids.device)
        rows = torch.stack([self._rows(ids, n) for n in self.orders], -1)
        if self.letters is None:
            return rows, whole.expand(rows.shape)
        # How many ids before each position are no letters: between the first and the last of an
        # n-gram, from its start + 1 to its end - 1, there is none.
        breaks = F.pad((~_among(ids, self.letters)).cumsum(1), (1, 0))
        inside = [
            breaks[:, :-1] - F.pad(breaks[:, 1:], (n - 1, 0))[:, : ids.shape[1]]
            for n in self.orders
        ]
        return rows, whole & (torch.stack(inside, -1) <= 0)

    def _rows(self, ids: Tensor, n: int) -> Tensor:
        if n == 1:
            return ids
        # A polynomial of the ids modulo 2^64; n sets the n-grams of different lengths apart.
        key = torch.full_like(ids, n)
        for back in range(n):
            key = key * _BASE + F.pad(ids, (back, 0))[:, : ids.shape[1]]
        return self.row(key)

    def row(self, key: Tensor) -> Tensor:
        """The row in which an n-gram's vector is, of 64-bit keys."""
        return (_mixed(key) >> 20) % self.buckets + self.own


class WordGrams(Grams):
    """The same of n-grams of words, runs of the ids from ``letters[0]`` to ``letters[1]``."""

    def __init__(
        self,
        letters: tuple[int, int],
        width: int,
        orders: Sequence[int],
        buckets: int,
        dropout: float,
        weighting: Callable[[int], Weighting],
    ) -> None:
        super().__init__(0, None, width, orders, buckets, dropout, weighting)
        self.alphabet = letters

    def found(self, ids: Tensor, valid: Valid | None) -> tuple[Tensor, Tensor]:
        letter = hide(_among(ids, self.alphabet), valid, False)
        places = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        before = places.masked_fill(letter, -1).cummax(1).values
        # `before` is where the word's last neighbour stands, -1 at an item's beginning.
        # A word's key is the sum of the keys of its letters, each with its place in the word.
        keys = _mixed(ids * _BASE + (places - before)).masked_fill(~letter, 0)
        sums = F.pad(keys.cumsum(1), (1, 0))
        words = sums[:, 1:] - sums.gather(1, before + 1)
        ends = letter & ~F.pad(letter, (0, 1))[:, 1:]
        # The position, before each, where the last word ended; -1 if none did.
        earlier = F.pad(places.masked_fill(~ends, -1).cummax(1).values, (1, 0), value=-1)[:, :-1]
        found: dict[int, tuple[Tensor, Tensor]] = {}
        key, at, whole = torch.zeros_like(ids), places, ends
        for n in range(1, self.orders[-1] + 1):
            key = key * _BASE + words.gather(1, at)
            found[n] = self.row(key), whole
            at = earlier.gather(1, at)
            whole = whole & (at >= 0)
            at = at.clamp_min(0)
        rows, whole_ones = zip(*(found[n] for n in self.orders), strict=True)
        return torch.stack(rows, -1), torch.stack(whole_ones, -1)


def _among(ids: Tensor, letters: tuple[int, int]) -> Tensor:
    return (ids >= letters[0]) & (ids <= letters[1])


def _mixed(key: Tensor) -> Tensor:
    """64-bit keys with their bits mixed."""
    key = (key ^ (key >> 31)) * _MIX1
    return (key ^ (key >> 29)) * _MIX2
