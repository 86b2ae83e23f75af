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


class Gathered(Exact):
    """A metric that keeps rows, batch after batch; those of all processes follow one another."""

    def __init__(self) -> None:
        super().__init__()
        self._none: dict[str, Tensor] = {}

    def keep(self, name: str, none: Tensor) -> None:
        """Add a state, a list of rows.

        Args:
            name: Its attribute.
            none: No rows: (0, ...), of the shape and the type that they have.
        """
        self.add_state(name, [], dist_reduce_fx="cat")
        self._none[name] = none
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        super().reset()
        # For a process that saw no batch torchmetrics would send an empty float32 vector, which fits neither the shape
        # nor the type of the others' rows: gloo ends the process.
        for name, none in self._none.items():
            setattr(self, name, [none.to(self.device)])

    def kept(self, name: str) -> Tensor:
        """Return all rows of a state, (N, ...)."""
        # torchmetrics replaces a list by one tensor when it merges processes.
        rows: list[Tensor] | Tensor = getattr(self, name)
        return rows if isinstance(rows, Tensor) else torch.cat(rows)


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


class AveragePrecision(Gathered):
    """Each class's average precision, of all probabilities and labels of a multi-label split.

    Args:
        classes: Number of classes.
    """

    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.keep("probabilities", torch.empty(0, classes))
        self.keep("labels", torch.empty(0, classes, dtype=torch.bool))

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Take (B, K) probabilities and (B, K) multi-hot labels."""
        self.probabilities.append(probabilities.float())
        self.labels.append(targets > 0.5)

    def _all(self) -> tuple[Tensor, Tensor]:
        return self.kept("probabilities"), self.kept("labels")

    def compute(self) -> Tensor:
        """Return each class's average precision, (K,); NaN for a class that no sample has.

        Average precision is sum_n (R_n - R_{n-1}) P_n over the distinct thresholds, as scikit-learn computes it.
        """
        probabilities, labels = self._all()
        return torch.stack(
            [_average_precision(p, y) for p, y in zip(probabilities.T, labels.T, strict=True)]
        )


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


class Outcomes(Exact):
    """For each class, how often it was found, named in error, and missed.

    What is named is the most probable class; where samples may have several, all of probability 0.5 or more.

    Args:
        classes: Number of classes.
    """

    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        zeros = torch.zeros(3, classes, dtype=torch.long)
        self.add_state("counts", zeros, dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, targets: Tensor) -> None:
        """Take (B, K) probabilities, and (B,) class numbers or (B, K) multi-hot labels."""
        if targets.ndim == 1:
            said = F.one_hot(probabilities.argmax(1), self.classes).bool()
            true = F.one_hot(targets, self.classes).bool()
        else:
            said, true = probabilities >= 0.5, targets > 0.5
        found, false, missed = said & true, said & ~true, ~said & true
        self.counts += torch.stack((found.sum(0), false.sum(0), missed.sum(0)))

    def compute(self) -> Tensor:
        """Return (3, K) counts: found (TP), named in error (FP), missed (FN)."""
        return self.counts


def precision_recall_f1(outcomes: Tensor) -> Tensor:
    """Return each class's precision, recall and F1, (3, K); 0 where one divides by 0.

    Args:
        outcomes: (3, K) counts, as `Outcomes` computes them.
    """
    found, false, missed = outcomes.double().unbind()
    divisors = torch.stack((found + false, found + missed, found + (false + missed) / 2))
    return found / divisors.clamp(
        min=0.5
    )  # counts of halves: below 0.5 is 0, and then so is `found`


class MacroF1(Outcomes):
    """The mean over classes of F1 = 2 TP / (2 TP + FP + FN).

    A class that no sample has and that is never named counts 0.
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return a number in [0, 1]."""
        return precision_recall_f1(self.counts)[2].mean()


class Matthews(Confusion):
    """Matthews' correlation of true and predicted classes, for any number of them (Gorodkin 2004)."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return a number in [-1, 1]; 0 where all samples are of one class, or are taken for one."""
        counts = self.counts.double()
        true, said, total = counts.sum(1), counts.sum(0), counts.sum()
        covariance = counts.trace() * total - true @ said
        spread = (total**2 - true @ true) * (total**2 - said @ said)
        return torch.where(spread > 0, covariance / spread.clamp(min=1).sqrt(), 0.0)


class F1Curve(AveragePrecision):
    """Macro F1 for every threshold on the probabilities, one threshold for all classes.

    Of exclusive classes give the one that matters as a single column, (B, 1).
    """

    def compute(self) -> Tensor:
        """Return (2, M): the distinct probabilities, falling, and macro F1 where those >= each are named."""
        probabilities, labels = self._all()
        ranked, order = probabilities.sort(0, descending=True)
        labels = labels.gather(0, order)
        named = torch.arange(1, len(ranked) + 1, device=ranked.device, dtype=torch.float64)
        f1 = 2 * labels.cumsum(0) / (named[:, None] + labels.sum(0))
        # Each probability changes the F1 of its own class alone, so the mean is the sum of all changes so far.
        gains = torch.diff(f1, dim=0, prepend=torch.zeros_like(f1[:1])) / self.classes
        thresholds, order = ranked.flatten().sort(descending=True)
        mean = gains.flatten()[order].cumsum(0)
        last = torch.ones_like(thresholds, dtype=torch.bool)
        last[:-1] = thresholds[1:] != thresholds[:-1]
        return torch.stack((thresholds[last].double(), mean[last]))


def best_threshold(curve: Tensor) -> Tensor:
    """Return the threshold of the highest F1, halfway to the next probability; of equals that nearest to 0.5.

    Halfway, because a probability that is computed anew in another batch may differ in its last bit.

    Args:
        curve: (2, M), as `F1Curve` computes it.
    """
    thresholds, f1 = curve
    below = torch.cat((thresholds[1:], thresholds.new_zeros(1)))
    halfway = ((thresholds + below) / 2).float()
    # Between neighbours in float32 there is no room: the threshold is then the probability itself.
    halfway = torch.where(halfway > below, halfway, thresholds.float())
    best = f1 >= f1.max() - 1e-12  # sums in another order differ by less
    chosen: Tensor = halfway[torch.where(best, (halfway - 0.5).abs(), 2.0).argmin()]
    return chosen


def f1_at(curve: Tensor, threshold: Tensor) -> Tensor:
    """Return macro F1 where probabilities of at least the threshold are named.

    Args:
        curve: (2, M), as `F1Curve` computes it.
        threshold: A number.
    """
    thresholds, f1 = curve
    named = int((thresholds >= threshold).sum())
    found: Tensor = f1[named - 1] if named else f1.new_zeros(())
    return found


class Threshold(F1Curve):
    """The threshold in use: the best for the split itself, unless `fixed` to one that was chosen before."""

    fixed: Tensor | None = None

    def threshold(self, curve: Tensor) -> Tensor:
        """Return the fixed threshold, or the best of an F1 curve."""
        return best_threshold(curve) if self.fixed is None else self.fixed

    def compute(self) -> Tensor:
        """Return a number in [0, 1]."""
        return self.threshold(super().compute())


class F1AtThreshold(Threshold):
    """Macro F1 at the threshold in use."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """Return a number in [0, 1]."""
        curve = F1Curve.compute(self)
        return f1_at(curve, self.threshold(curve))


class Surest(Exact):
    """The rows whose first number is largest, of equals those of the first samples; a derived metric makes the rows.

    Args:
        width: Numbers in a row. The first is not negative, and the fourth is the sample's number.
        keep: How many rows to keep.
    """

    rows: Tensor

    def __init__(self, width: int, keep: int) -> None:
        super().__init__()
        self.keep = keep
        # One state, because rows must stay together when processes are merged. A first number of -1 marks an empty
        # row. Float64 holds sample numbers exactly.
        empty = torch.full((keep, width), -1.0, dtype=torch.float64)
        self.add_state("rows", empty, dist_reduce_fx="cat")

    def best(self, sureness: Tensor, index: Tensor) -> Tensor:
        """Return the places of those to keep, at most `keep`, in order."""
        first = index.argsort(stable=True)
        return first[sureness[first].argsort(descending=True, stable=True)][: self.keep]

    def add(self, rows: Tensor) -> None:
        """Take (n, width) rows."""
        rows = torch.cat((self.rows, rows.double()))
        self.rows = rows[self.best(rows[:, 0], rows[:, 3])]

    def compute(self) -> Tensor:
        """Return (n, width), n <= keep, the largest first."""
        rows = self.rows.reshape(-1, self.rows.shape[-1])
        rows = rows[self.best(rows[:, 0], rows[:, 3])]
        return rows[rows[:, 0] >= 0]


class Mistakes(Surest):
    """The wrong predictions of the highest confidence.

    Args:
        keep: How many to keep.
        details: Further numbers of each, which a derived metric adds.
    """

    def __init__(self, keep: int = 16, details: int = 0) -> None:
        super().__init__(4 + details, keep)

    def surest(
        self, probabilities: Tensor, targets: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the batch's candidates, (n, 4) as `compute` gives them, and their places in it, (n,)."""
        confidence, predicted = probabilities.max(1)
        wrong = torch.where(predicted == targets, -1.0, confidence)
        places = self.best(wrong, index)
        columns = (wrong[places], targets[places], predicted[places], index[places])
        return torch.stack([column.double() for column in columns], 1), places

    def update(self, probabilities: Tensor, targets: Tensor, index: Tensor) -> None:
        """Take (B, K) probabilities, (B,) class numbers and (B,) sample numbers."""
        self.add(self.surest(probabilities, targets, index)[0])


class WrongLabels(Surest):
    """The samples with the most confident wrong label, of those that may have several.

    Args:
        keep: How many to keep.
    """

    def __init__(self, keep: int = 16) -> None:
        super().__init__(4, keep)

    def update(self, probabilities: Tensor, targets: Tensor, index: Tensor) -> None:
        """Take (B, K) probabilities, (B, K) multi-hot labels and (B,) sample numbers."""
        error, label = (probabilities.double() - targets.double()).abs().max(1)
        has = targets.gather(1, label[:, None])[:, 0]
        # An error below 0.5 is no mistake.
        error = torch.where(error > 0.5, error, -1.0)
        self.add(torch.stack((error, label.double(), has.double(), index.double()), 1))
