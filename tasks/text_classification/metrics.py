"""Metrics of predicted numbers; those of classes are in `resdomains.classification`.

Each is exact over a whole split and over all processes: all pairs are kept, and computed with in float64.
"""

import torch
from torch import Tensor

from resdomains.classification import Gathered, Surest


class Pairs(Gathered):
    """Every prediction with its target."""

    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("predictions", "targets"):
            self.keep(name, torch.empty(0, dtype=torch.float64))

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Take (B,) predictions and (B,) targets."""
        self.predictions.append(predictions.double())
        self.targets.append(targets.double())

    def compute(self) -> Tensor:
        """Return (2, N): predictions, targets."""
        return torch.stack((self.kept("predictions"), self.kept("targets")))


class MeanAbsoluteError(Pairs):
    """The mean of |prediction - target|, in the targets' unit."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return a number of at least 0."""
        predictions, targets = super().compute()
        error: Tensor = (predictions - targets).abs().mean()
        return error


class RootMeanSquaredError(Pairs):
    """The root of the mean squared error, in the targets' unit."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return a number of at least 0."""
        predictions, targets = super().compute()
        error: Tensor = (predictions - targets).square().mean().sqrt()
        return error


class R2(Pairs):
    """The share of the targets' variance that is explained, 1 - sum (y - p)^2 / sum (y - mean y)^2."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return a number of at most 1; 0 where all targets are equal."""
        predictions, targets = super().compute()
        total = (targets - targets.mean()).square().sum()
        left = (targets - predictions).square().sum()
        return torch.where(total > 0, 1 - left / total, 0.0)


class Pearson(Pairs):
    """Pearson's correlation of predictions and targets."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return a number in [-1, 1]; 0 where either are all equal."""
        return _correlation(*super().compute())


class Spearman(Pairs):
    """Spearman's correlation: Pearson's of the ranks, of equals their mean rank."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return a number in [-1, 1]; 0 where either are all equal."""
        return _correlation(*(_ranks(values) for values in super().compute()))


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(), y - y.mean()
    spread = x.norm() * y.norm()
    return torch.where(spread > 0, (x @ y / spread).clamp(-1.0, 1.0), 0.0)


def _ranks(values: Tensor) -> Tensor:
    _, places, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0).double() - (counts - 1) / 2
    return ranks[places]


class LargestErrors(Surest):
    """The predicted numbers that are furthest from their targets.

    Args:
        keep: How many to keep.
    """

    def __init__(self, keep: int = 16) -> None:
        super().__init__(4, keep)

    def update(self, predictions: Tensor, targets: Tensor, index: Tensor) -> None:
        """Take (B,) predictions, (B,) targets and (B,) sample numbers; rows are error, target, prediction, sample."""
        columns = ((predictions - targets).abs(), targets, predictions, index)
        self.add(torch.stack([column.double() for column in columns], 1))
