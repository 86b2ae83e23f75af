"""COCO's average precision and recall of all pictures of a split (Lin et al. 2014)."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from .annotations import COLUMNS, Rows

Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_LABEL, _CROWD, _DIFFICULT, _AREA = (
    COLUMNS.index(name) for name in ("label", "crowd", "difficult", "area")
)
AREAS = ("all", "small", "medium", "large")
"""COCO's ranges of an object's area: any, below 32², from there to 96², and above, in pixels²."""
MOST_FOUND = (1, 10, 100)
"""How many detections count, the best of a picture and class: for recall each of these, for precision the last."""
IOUS, RECALLS = 10, 101


class Collected(NamedTuple):
    """All pictures of a split, with what was found and what is there; rows stand in the order of the pictures.

    Attributes:
        pictures: (P,) their numbers, rising; below, a picture is its place in this list.
        boxes: (D, 4) what was found, corners in pixels.
        scores: (D,).
        labels: (D,) class numbers.
        owner: (D,) each one's picture.
        truth: (N, 8) rows of `COLUMNS`.
        truth_owner: (N,) each one's picture.
    """

    pictures: Whole
    boxes: Rows
    scores: Rows
    labels: Whole
    owner: Whole
    truth: Rows
    truth_owner: Whole

    @property
    def truth_labels(self) -> Whole:
        """(N,) class numbers."""
        return self.truth[:, _LABEL].astype(np.int64)

    @property
    def crowd(self) -> Flags:
        """(N,) whether it stands for a crowd."""
        return self.truth[:, _CROWD] > 0

    @property
    def counts(self) -> Flags:
        """(N,) whether it shall be found: neither crowd nor difficult."""
        wanted: Flags = (self.truth[:, _CROWD] == 0) & (self.truth[:, _DIFFICULT] == 0)
        return wanted

    def objects(self, classes: int) -> Whole:
        """Return how many objects of each class shall be found, (K,)."""
        return np.bincount(self.truth_labels[self.counts], minlength=classes)


class Curves(NamedTuple):
    """What COCO's evaluation accumulates; -1 where no object of that class and area shall be found.

    Attributes:
        precision: (10, 101, K, 4) at IoU 0.5, 0.55 ... 0.95, at recall 0, 0.01 ... 1, by class, by `AREAS`.
        recall: (10, K, 4, 3), the highest, by IoU, class, area, and for the best 1, 10 and 100 of a picture and class.
    """

    precision: Rows
    recall: Rows


def evaluate(collected: Collected, classes: int) -> Curves:
    """Evaluate as COCO does.

    An object that stands for a crowd is overlapped by what share of a detection lies in it, any number of detections
    may match it, and as with a difficult one, what matches it is neither right nor wrong.

    Args:
        collected: All pictures.
        classes: Number of classes.
    """
    if not len(collected.pictures):
        return Curves(
            np.full((IOUS, RECALLS, classes, len(AREAS)), -1.0),
            np.full((IOUS, classes, len(AREAS), len(MOST_FOUND)), -1.0),
        )
    with _no_garbage_collection():
        evaluator = COCOeval_faster(
            _coco(collected, classes, _truth(collected)),
            _coco(collected, classes, _found(collected)),
            "bbox",
            print_function=_say_nothing,
        )
        evaluator.params.maxDets = list(MOST_FOUND)
        evaluator.evaluate()
        evaluator.accumulate()
    return Curves(evaluator.eval["precision"][..., -1], evaluator.eval["recall"])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for cycles: among a dictionary for each detection it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _say_nothing(*_: object) -> None:
    """In place of printing."""


def _coco(collected: Collected, classes: int, annotations: list[dict[str, Any]]) -> COCO:
    described = {
        "images": [{"id": i} for i in range(len(collected.pictures))],
        "categories": [{"id": k, "name": str(k)} for k in range(classes)],
        "annotations": annotations,
    }
    return COCO(described, print_function=_say_nothing)


def _truth(collected: Collected) -> list[dict[str, Any]]:
    truth = collected.truth
    # COCO's evaluation overwrites `ignore` by `iscrowd`. An area beyond all ranges has it ignore the difficult ones.
    areas = np.where(truth[:, _DIFFICULT] > 0, np.inf, truth[:, _AREA])
    columns = (
        collected.truth_owner.tolist(),
        collected.truth_labels.tolist(),
        _sized(truth).tolist(),
        areas.tolist(),
        collected.crowd.tolist(),
    )
    return [
        {"id": i, "image_id": p, "category_id": k, "bbox": box, "area": area, "iscrowd": int(crowd)}
        # A match is written as the other's number, and 0 is none: numbers begin at 1.
        for i, (p, k, box, area, crowd) in enumerate(zip(*columns, strict=True), 1)
    ]


def _found(collected: Collected) -> list[dict[str, Any]]:
    boxes = _sized(collected.boxes)
    columns = (
        collected.owner.tolist(),
        collected.labels.tolist(),
        boxes.tolist(),
        boxes[:, 2:].prod(1).tolist(),
        collected.scores.tolist(),
    )
    return [
        {"id": i, "image_id": p, "category_id": k, "bbox": box, "area": area, "score": score}
        for i, (p, k, box, area, score) in enumerate(zip(*columns, strict=True), 1)
    ]


def _sized(corners: Rows) -> Rows:
    """Return x, y, width, height."""
    return np.concatenate((corners[:, :2], corners[:, 2:4] - corners[:, :2]), 1)
