"""Which detection is which object, at an IoU of at least 0.5, and what follows for every threshold on the score."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .annotations import Rows
from .evaluation import MOST_FOUND, Collected, Flags, Whole

IOU = 0.5
THRESHOLDS = np.linspace(0.0, 1.0, 1001)
"""Scores at which F1 is known; what has at least that score is named."""
_PAIRS = 2_000_000  # at a time: some 100 MB

WRONG, RIGHT, LEFT_OUT = 0, 1, 2


class Overlaps(NamedTuple):
    """Pairs of a detection and an object of the same picture, whatever their classes.

    Attributes:
        found: (E,) rows of `Collected.boxes`.
        truth: (E,) rows of `Collected.truth`.
        iou: (E,) intersection over union; for a crowd, over the area of the detection.
    """

    found: Whole
    truth: Whole
    iou: Rows

    def where(self, chosen: Flags) -> "Overlaps":
        """Return some of them."""
        return Overlaps(self.found[chosen], self.truth[chosen], self.iou[chosen])

    def by(self, *keys: npt.NDArray[np.generic]) -> "Overlaps":
        """Return them sorted by the first key, of equals by the next one, and so on."""
        order = np.lexsort(keys[::-1])
        return Overlaps(self.found[order], self.truth[order], self.iou[order])


def overlaps(collected: Collected) -> Overlaps:
    """Return the pairs whose IoU is at least 0.5."""
    objects = np.bincount(collected.truth_owner, minlength=len(collected.pictures))
    first = np.cumsum(objects) - objects
    parts = [Overlaps(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for rows in _chunks(objects[collected.owner]):
        owner = collected.owner[rows]
        found, truth = spans(first[owner], objects[owner])
        pairs = Overlaps(rows[found], truth, np.empty(0))
        pairs = pairs._replace(iou=_iou(collected, pairs.found, truth))
        parts.append(pairs.where(pairs.iou >= IOU))
    return Overlaps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def outcomes(collected: Collected, pairs: Overlaps) -> npt.NDArray[np.int8]:
    """Match as COCO does at IoU 0.5, and return (D,) `RIGHT`, `WRONG` or `LEFT_OUT`.

    Detections of a picture and class choose in the order of their scores, each the object of its class that it overlaps
    most of those not yet chosen. Left out is what matches a crowd or a difficult object only, and what is not among the
    best 100 of its picture and class. A threshold on the score changes none of it.

    Args:
        collected: All pictures.
        pairs: What `overlaps` returns.
    """
    order = np.lexsort((-collected.scores, collected.labels, collected.owner))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group = np.stack((collected.owner, collected.labels))[:, order]
    begins = np.ones(len(order), bool)
    begins[1:] = (group[:, 1:] != group[:, :-1]).any(0)
    place = np.arange(len(order))
    counted = place - np.maximum.accumulate(np.where(begins, place, 0)) < MOST_FOUND[-1]
    results = np.full(len(order), LEFT_OUT, np.int8)
    results[order[counted]] = WRONG
    same = collected.labels[pairs.found] == collected.truth_labels[pairs.truth]
    pairs = pairs.where(same & (results[pairs.found] == WRONG))
    # Of equal overlaps COCO takes the later object.
    pairs = pairs.by(rank[pairs.found], -pairs.iou, -pairs.truth)
    matched, left_out = _match(collected, pairs)
    results[matched.found] = RIGHT
    results[left_out] = LEFT_OUT
    return results


def confusion(collected: Collected, pairs: Overlaps, classes: int, threshold: float) -> Whole:
    """Count what each object was taken for, (K + 1, K + 1); rows are true classes, the last of both is the background.

    Whatever their classes, the detection and the object that overlap most are matched, then of the rest the next two,
    down to IoU 0.5 (Ultralytics' rule). An object without a detection was taken for background, and a detection without
    an object takes background for its class. What overlaps a crowd or a difficult object only is left out.

    Args:
        collected: All pictures.
        pairs: What `overlaps` returns.
        classes: Number of classes.
        threshold: The lowest score that counts.
    """
    named = collected.scores >= threshold
    pairs = pairs.where(named[pairs.found])
    pairs = pairs.by(-pairs.iou, -collected.scores[pairs.found])
    matched, left_out = _match(collected, pairs)
    missed = collected.counts.copy()
    missed[matched.truth] = False
    false = named.copy()
    false[matched.found] = False
    false[left_out] = False
    labels = collected.truth_labels
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, (labels[matched.truth], collected.labels[matched.found]), 1)
    counts[:classes, classes] = np.bincount(labels[missed], minlength=classes)
    counts[classes, :classes] = np.bincount(collected.labels[false], minlength=classes)
    return counts


def greedy(left: Whole, right: Whole) -> Flags:
    """Take pairs in order, each unless its left or right is taken; return (E,) which ones were.

    A pair that comes first for its left and for its right is taken whatever else is: all those are taken at once,
    and what they exclude is dropped, until none is left.
    """
    taken = np.zeros(len(left), bool)
    places = np.arange(len(left))
    while len(places):
        a, b = left[places], right[places]
        chosen = _first(a) & _first(b)
        taken[places[chosen]] = True
        places = places[~(np.isin(a, a[chosen]) | np.isin(b, b[chosen]))]
    return taken


class Thresholds(NamedTuple):
    """What is right and wrong of each class among the detections of at least each of `THRESHOLDS`.

    Attributes:
        right: (1001, K).
        wrong: (1001, K).
        objects: (K,) that shall be found.
    """

    right: Whole
    wrong: Whole
    objects: Whole

    @property
    def precision(self) -> Rows:
        """(1001, K); 0 where nothing is found, NaN for a class without objects."""
        return self._share(self.right, self.right + self.wrong)

    @property
    def recall(self) -> Rows:
        """(1001, K); NaN for a class without objects."""
        return self._share(self.right, self.objects)

    @property
    def f1(self) -> Rows:
        """(1001, K), 2 TP / (2 TP + FP + FN); NaN for a class without objects."""
        return self._share(2 * self.right, self.right + self.wrong + self.objects)

    def _share(self, some: Whole, of: Whole) -> Rows:
        return np.where(self.objects > 0, some / np.maximum(of, 1), np.nan)

    @property
    def best(self) -> int | None:
        """The place of the highest mean F1 of the classes that have objects; None if no class has."""
        known = self.objects > 0
        return (
            int(best_places(self.f1[:, known].mean(1, keepdims=True))[0]) if known.any() else None
        )


def best_places(curves: Rows) -> Whole:
    """Return where each column of (1001, K) is highest; of several places the one whose threshold is nearest to 0.5."""
    highest = curves == np.fmax.reduce(curves, axis=0)
    places: Whole = np.where(highest, np.abs(THRESHOLDS - 0.5)[:, None], np.inf).argmin(0)
    return places


def over_thresholds(
    collected: Collected, results: npt.NDArray[np.int8], classes: int
) -> Thresholds:
    """Count for every threshold.

    Args:
        collected: All pictures.
        results: What `outcomes` returns.
        classes: Number of classes.
    """
    # The highest threshold that a score reaches; the counts of higher ones are added to each.
    highest = np.searchsorted(THRESHOLDS, collected.scores, side="right") - 1
    cells = highest * classes + collected.labels
    size = len(THRESHOLDS) * classes
    right, wrong = (
        np.bincount(cells[results == kind], minlength=size)
        .reshape(-1, classes)[::-1]
        .cumsum(0)[::-1]
        for kind in (RIGHT, WRONG)
    )
    return Thresholds(right, wrong, collected.objects(classes))


def _match(collected: Collected, pairs: Overlaps) -> tuple[Overlaps, Whole]:
    """Match in the order of pairs; return the pairs of objects that shall be found, and detections to leave out."""
    counts = collected.counts
    regular = pairs.where(counts[pairs.truth])
    matched = regular.where(greedy(regular.found, regular.truth))
    free = np.ones(len(collected.scores), bool)
    free[matched.found] = False
    others = pairs.where(~counts[pairs.truth] & free[pairs.found])
    # Any number of detections may match a crowd: to each it is another one.
    each = len(collected.truth) + np.arange(len(others.truth))
    taken = greedy(others.found, np.where(collected.crowd[others.truth], each, others.truth))
    return matched, others.found[taken]


def _first(values: Whole) -> Flags:
    """Return which values did not occur before."""
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _iou(collected: Collected, found: Whole, truth: Whole) -> Rows:
    # In the order of operations of COCO's own code, so that the same pairs reach 0.5.
    area, other = (boxes[:, 2:4] - boxes[:, :2] for boxes in (collected.boxes, collected.truth))
    common = np.ones(len(found))
    for axis in (0, 1):
        a, b = collected.boxes[found, axis], collected.truth[truth, axis]
        ends = np.minimum(a + area[found, axis], b + other[truth, axis])
        common *= np.maximum(ends - np.maximum(a, b), 0.0)
    areas, others = area.prod(1)[found], other.prod(1)[truth]
    union = np.where(collected.crowd[truth], areas, areas + others - common)
    iou: Rows = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def spans(first: Whole, lengths: Whole) -> tuple[Whole, Whole]:
    """Return, for spans of rows that begin at `first`, each row's span and the row."""
    span = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(span)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return span, first[span] + within


def _chunks(pairs: Whole) -> Iterator[Whole]:
    """Yield rows that have some millions of pairs together."""
    begins = np.flatnonzero(np.diff(np.cumsum(pairs) // _PAIRS)) + 1
    yield from np.split(np.arange(len(pairs)), begins)
