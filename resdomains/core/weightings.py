"""How much each n-gram of an item counts."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from resdomains.core.masks import Valid, hide, sizes
from resdomains.core.recomputation import recomputing


class Weighting(nn.Module):
    """The contract: rows of a table ``(B, L, N)`` to their weights ``(B, L, N)``.

    N n-grams end at each of the L positions of an item, each standing for a row from 0 to
    ``rows - 1``. ``whole``, of the same shape, is True where there is such an n-gram: others have
    weight 0. What stands at padding is not read and may have any weight. No gradient reaches a
    weight of 0 in training.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, rows: Tensor, whole: Tensor, valid: Valid | None) -> Tensor:
        """The weights, float32."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(rows, whole, valid)")


class Uniform(Weighting):
    """1 for each n-gram."""

    def forward(self, rows: Tensor, whole: Tensor, valid: Valid | None) -> Tensor:
        return whole.float()


class InverseFrequency(Weighting):
    """``scale length damp(t) / t idf / norm`` of an n-gram that occurs t times in an item: TF-IDF.

    ``idf = ln((1 + items) / (1 + items with it)) + 1``, or 0 while no item had it, ``damp(t) =
    1 + ln t``, and ``norm^2`` is the sum of ``(damp(t) idf)^2`` over the item's different n-grams. The
    mean over the ``length`` positions is so the sum of the vectors of different n-grams with weights
    whose squares add up to ``scale^2``: ``scale`` times those of scikit-learn's
    ``TfidfVectorizer(sublinear_tf=True)``. The larger the scale, the faster the vectors learn
    beside the layers that follow.

    Items are counted in training, those of a batch before they are weighted, over all processes;
    n-grams that share a row are one. Counts are float32, so that averages of weights take them in,
    and exact up to 16.7 million items.

    Raises:
        ValueError: ``scale`` is not above 0.
    """

    items: Tensor
    items_with: Tensor

    def __init__(self, rows: int, scale: float = 1.0) -> None:
        super().__init__(rows)
        if not scale > 0:
            raise ValueError(f"scale: expected a number above 0, got {scale}")
        self.scale = scale
        self.register_buffer("items", torch.zeros(()))
        self.register_buffer("items_with", torch.zeros(rows))

    @torch.no_grad()
    def forward(self, rows: Tensor, whole: Tensor, valid: Valid | None) -> Tensor:
        batch = rows.shape[0]
        none = self.rows  # stands for what is no n-gram, behind all others
        keys = rows.masked_fill(~whole, none)
        keys = hide(keys.movedim(1, -1), valid, none).flatten(1)
        ordered, order = keys.sort(dim=1)
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        # Equal n-grams of an item form a run; runs are numbered through the batch.
        run = first.flatten().cumsum(0) - 1
        ones = torch.ones_like(run, dtype=torch.float32)
        times = torch.zeros_like(ones).index_add_(0, run, ones)[run].view_as(ordered)
        if self.training and not recomputing():
            self._count(ordered[first & (ordered < none)], batch)
        idf = torch.log((1 + self.items) / (1 + self.items_with)) + 1
        idf = torch.cat((idf * (self.items_with > 0), idf.new_zeros(1)))[ordered]
        weights = (1 + times.log()) / times * idf
        # The sum over occurrences of w^2 t is that over different n-grams of (w t)^2.
        norm = (weights.square() * times).sum(1, keepdim=True).sqrt()
        weights = weights / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        weights = torch.zeros_like(weights).scatter(1, order, weights)
        length = self.scale * sizes(rows, valid).to(weights.dtype)
        return (weights * length).view(batch, rows.shape[2], rows.shape[1]).movedim(1, -1)

    def extra_repr(self) -> str:
        return f"{self.rows}, scale={self.scale}"

    def _count(self, met: Tensor, items: int) -> None:
        """Adds the rows that a batch's items hold, once an item, to the counts."""
        new = torch.zeros_like(self.items_with)
        new.index_add_(0, met, torch.ones_like(met, dtype=new.dtype))
        new = torch.cat((new, new.new_full((1,), items)))
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(new)
        self.items_with += new[:-1]
        self.items += new[-1]
