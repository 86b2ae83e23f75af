"""Metrics of classification. Each is exact over a whole split and over all processes."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

BINS = 15


class Exact(Metric):
    """A metric of probabilities; torchmetrics' cache and input copies are not needed."""

    full_state_update = False
    higher_is_better: bool | None = None
    is_differentiable = False


class TopK(Exact):
    """The share of samples whose class is among the k most probable.

    Args:
        k: How many guesses count.
    """

    correct: Tensor
    total: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.add_state("correct", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Take (B, K) probabilities and (B,) class numbers."""
        best = probabilities.topk(self.k, dim=1).indices
        self.correct += (best == targets[:, None]).any(1).sum()
        self.total += len(targets)

    def compute(self) -> Tensor:
        """Return a number in [0, 1]."""
        return self.correct / self.total.clamp(min=1)


class Confusion(Exact):
    """Counts of (true class, predicted class).

    Args:
        classes: Number of classes.
    """

    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state(
            "counts", torch.zeros(classes, classes, dtype=torch.long), dist_reduce_fx="sum"
        )

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Take (B, K) probabilities and (B,) class numbers."""
        pairs = targets * self.classes + probabilities.argmax(1)
        self.counts += torch.bincount(pairs, minlength=self.classes**2).view(
            self.classes, self.classes
        )

    def compute(self) -> Tensor:
        """Return (K, K) counts; rows are true classes."""
        return self.counts


class Reliability(Exact):
    """How often predictions of a given confidence are right, in bins of equal width."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Take (B, K) probabilities and (B,) class numbers."""
        confidence, predicted = probabilities.double().max(1)
        bins = F.one_hot((confidence * BINS).long().clamp(max=BINS - 1), BINS).double()
        correct = (predicted == targets).double()
        self.sums += torch.stack((torch.ones_like(confidence), confidence, correct)) @ bins

    def compute(self) -> Tensor:
        """Return (3, bins): samples, and the sums of their confidences and of the right answers among them."""
        return self.sums


class CalibrationError(Reliability):
    """Expected calibration error, sum_b n_b / N |accuracy_b - confidence_b| (Guo et al. 2017)."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return a number in [0, 1]."""
        count, confidence, correct = self.sums.unbind()
        return (correct - confidence).abs().sum() / count.sum().clamp(min=1)


class AveragePrecision(Exact):
    """Each class's average precision, of all probabilities and labels of a multi-label split.

    Args:
        classes: Number of classes.
    """

    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Take (B, K) probabilities and (B, K) multi-hot labels."""
        self.probabilities.append(probabilities.float())
        self.labels.append(targets > 0.5)

    def _all(self) -> tuple[Tensor, Tensor]:
        return _joined(self.probabilities), _joined(self.labels)

    def compute(self) -> Tensor:
        """Return each class's average precision, (K,); NaN for a class that no sample has.

        Average precision is sum_n (R_n - R_{n-1}) P_n over the distinct thresholds, as scikit-learn computes it.
        """
        probabilities, labels = self._all()
        return torch.stack(
            [_average_precision(p, y) for p, y in zip(probabilities.T, labels.T, strict=True)]
        )


def _joined(parts: list[Tensor] | Tensor) -> Tensor:
    """Return one tensor: torchmetrics replaces a list by one tensor when it merges processes."""
    return parts if isinstance(parts, Tensor) else torch.cat(parts)


def _average_precision(probabilities: Tensor, labels: Tensor) -> Tensor:
    ranked, order = probabilities.sort(descending=True, stable=True)
    hits = labels[order].double().cumsum(0)
    # Equal probabilities share one threshold: precision counts at the last of them.
    last = torch.ones_like(labels)
    last[:-1] = ranked[1:] != ranked[:-1]
    seen = torch.arange(1, len(ranked) + 1, device=ranked.device, dtype=torch.float64)
    hits, seen = hits[last], seen[last]
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return ((gained * hits / seen).sum() / hits[-1]).float()  # 0 / 0, NaN, without any positive


class MeanAveragePrecision(AveragePrecision):
    """The mean over the classes that occur of their average precision."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return a number in [0, 1]."""
        return super().compute().nanmean()


class MacroF1(Exact):
    """The mean over classes of F1 = 2 TP / (2 TP + FP + FN), at probability 0.5.

    A class that no sample has and that is never predicted counts 0.

    Args:
        classes: Number of classes.
    """

    counts: Tensor
    higher_is_better = True

    def __init__(self, classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(3, classes, dtype=torch.long)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Take (B, K) probabilities and (B, K) multi-hot labels."""
        said, true = probabilities >= 0.5, targets > 0.5
        hit, false, missed = said & true, said & ~true, ~said & true
        self.counts += torch.stack((hit.sum(0), false.sum(0), missed.sum(0)))

    def compute(self) -> Tensor:
        """Return a number in [0, 1]."""
        hit, false, missed = self.counts.double().unbind()
        return (2 * hit / (2 * hit + false + missed).clamp(min=1)).mean()
