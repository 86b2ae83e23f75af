"""Metrics of object detection, exact over a whole split and over all processes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from resdomains.classification import Gathered

from .annotations import COLUMNS, Rows
from .evaluation import AREAS, MOST_FOUND, Collected, Curves, Whole, evaluate
from .matching import (
    RIGHT,
    THRESHOLDS,
    WRONG,
    Thresholds,
    best_places,
    confusion,
    outcomes,
    over_thresholds,
    overlaps,
    spans,
)

if TYPE_CHECKING:
    from .fcos import Found

_NONE = -1.0
_HALF, _THREE_QUARTERS = 0, 5  # places of IoU 0.5 and 0.75
_SIZES = tuple(enumerate(AREAS))[1:]

CLASS_COLUMNS = (
    "objects",
    "ap",
    "ap50",
    *(f"ap_{area}" for area in AREAS[1:]),
    "precision",
    "recall",
    "f1",
    "best_threshold",
    "best_f1",
)
"""Of a class: objects that shall be found, COCO's average precision (of all, at IoU 0.5, by area), precision, recall
and F1 at the threshold that is best for all classes together, and the one that is best for it alone, with its F1."""

PICTURE_COLUMNS = ("index", "objects", "found", "false", "missed")
"""Of a picture: its number in the split, objects that shall be found, of them found, detections that are none, and
objects missed, at the best threshold."""


class CocoMetrics(Gathered):
    """COCO's numbers (Lin et al. 2014), and what tables and figures show, of all detections of a split.

    A picture that occurs twice counts once. Detections of equal score rank by their picture's number, then as given, so
    that neither the order of batches nor the number of processes matters.

    Args:
        classes: Number of classes.
    """

    higher_is_better = True
    pictures: list[Tensor]
    found: list[Tensor]
    truth: list[Tensor]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.keep("pictures", torch.empty(0, 3, dtype=torch.long))
        self.keep("found", torch.empty(0, 6, dtype=torch.float64))
        self.keep("truth", torch.empty(0, len(COLUMNS), dtype=torch.float64))

    def update(self, index: Tensor, found: "Sequence[Found]", truth: Tensor, owner: Tensor) -> None:
        """Take the pictures of a batch.

        Args:
            index: (B,) their numbers in the split.
            found: Of each picture, boxes (n, 4) x1 y1 x2 y2 in pixels of the picture as read, scores and labels.
            truth: (N, 8) rows of `COLUMNS`, in the same pixels.
            owner: (N,) each object's place in the batch, rising.
        """
        rows = [
            torch.column_stack([part.double() for part in (one.boxes, one.scores, one.labels)])
            for one in found
        ]
        numbers = index.new_tensor([len(row) for row in rows])
        objects = torch.bincount(owner, minlength=len(index))
        self.pictures.append(torch.stack((index, numbers, objects), 1))
        self.found.extend(rows)
        self.truth.append(truth.double())

    def collected(self) -> Collected:
        """Return all pictures, each once, by number."""
        pictures, found, truth = (
            self.kept(name).cpu().numpy() for name in ("pictures", "found", "truth")
        )
        numbers, first = np.unique(pictures[:, 0], return_index=True)
        rows, owner = _chosen(pictures[:, 1], first)
        found = found[rows]
        truth_rows, truth_owner = _chosen(pictures[:, 2], first)
        return Collected(
            pictures=numbers,
            boxes=found[:, :4],
            scores=found[:, 4],
            labels=found[:, 5].astype(np.int64),
            owner=owner,
            truth=truth[truth_rows],
            truth_owner=truth_owner,
        )

    def compute(self) -> dict[str, Tensor]:
        """Return numbers in [0, 1], and more.

        Numbers are NaN where no object shall be found.

        Returns:
            COCO's twelve: `ap` (over IoU 0.5, 0.55 ... 0.95), `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, and
            recall of the best 1, 10 and 100 of a picture and class, `ar1`, `ar10`, `ar100`, `ar_small`, `ar_medium`,
            `ar_large`. At IoU 0.5, `f1` is the highest mean of the classes' F1 and `threshold` the score where it is
            reached. `classes` is (K, 11), of `CLASS_COLUMNS`; `precision_curve` (101, K) at recall 0, 0.01 ... 1;
            `f1_curve` (1001, K) at `matching.THRESHOLDS`; `confusion` (K + 1, K + 1) as `matching.confusion` counts;
            `pictures` (P, 5) of `PICTURE_COLUMNS`, those with the most errors first.
        """
        collected = self.collected()
        curves = evaluate(collected, self.classes)
        pairs = overlaps(collected)
        results = outcomes(collected, pairs)
        counts = over_thresholds(collected, results, self.classes)
        best = counts.best
        threshold = 0.5 if best is None else float(THRESHOLDS[best])
        precision = np.where(curves.precision > _NONE, curves.precision, np.nan)
        arrays = {
            **coco_numbers(curves),
            "f1": np.nan if best is None else np.nanmean(counts.f1[best]),
            "threshold": np.nan if best is None else threshold,
            "classes": _by_class(curves, counts),
            "precision_curve": precision[_HALF, :, :, 0],
            "f1_curve": counts.f1,
        }
        return {
            **{name: torch.as_tensor(array, dtype=torch.float32) for name, array in arrays.items()},
            "confusion": torch.from_numpy(confusion(collected, pairs, self.classes, threshold)),
            "pictures": torch.from_numpy(_by_picture(collected, results, threshold)),
        }


def coco_numbers(curves: Curves) -> dict[str, float]:
    """Return COCO's twelve numbers; NaN where no object shall be found."""
    precision, recall = curves
    return {
        "ap": float(_mean(precision[..., 0])),
        "ap50": float(_mean(precision[_HALF, ..., 0])),
        "ap75": float(_mean(precision[_THREE_QUARTERS, ..., 0])),
        **{f"ap_{name}": float(_mean(precision[..., a])) for a, name in _SIZES},
        **{f"ar{most}": float(_mean(recall[..., 0, m])) for m, most in enumerate(MOST_FOUND)},
        **{f"ar_{name}": float(_mean(recall[..., a, -1])) for a, name in _SIZES},
    }


def _mean(values: Rows, axis: int | tuple[int, ...] | None = None) -> Rows:
    """Return the mean over axes, all if not given, of the values that are known; NaN of none."""
    known = values > _NONE
    count = known.sum(axis)
    return np.where(
        count > 0, np.where(known, values, 0.0).sum(axis) / np.maximum(count, 1), np.nan
    )


def _by_class(curves: Curves, counts: Thresholds) -> Rows:
    """Return (K, 11), of `CLASS_COLUMNS`."""
    ap = [_mean(curves.precision[..., a], (0, 1)) for a in range(len(AREAS))]
    half = _mean(curves.precision[_HALF, ..., 0], 0)
    best, own = counts.best, best_places(counts.f1)
    known = counts.objects > 0
    unknown = np.full(len(known), np.nan)
    return np.stack(
        (
            counts.objects,
            ap[0],
            half,
            *ap[1:],
            *(
                unknown if best is None else curve[best]
                for curve in (counts.precision, counts.recall, counts.f1)
            ),
            np.where(known, THRESHOLDS[own], np.nan),
            np.where(known, counts.f1[own, np.arange(len(known))], np.nan),
        ),
        1,
    )


def _by_picture(collected: Collected, results: npt.NDArray[np.int8], threshold: float) -> Whole:
    """Return (P, 5), of `PICTURE_COLUMNS`, those with the most errors first."""
    named = collected.scores >= threshold
    objects, right, wrong = (
        np.bincount(owners, minlength=len(collected.pictures))
        for owners in (
            collected.truth_owner[collected.counts],
            collected.owner[named & (results == RIGHT)],
            collected.owner[named & (results == WRONG)],
        )
    )
    missed = objects - right
    order = np.argsort(-(wrong + missed), kind="stable")
    return np.stack((collected.pictures, objects, right, wrong, missed), 1)[order]


def _chosen(lengths: Whole, pictures: Whole) -> tuple[Whole, Whole]:
    """Return the rows of chosen pictures, one picture after another, and which of them each row belongs to."""
    owner, rows = spans((np.cumsum(lengths) - lengths)[pictures], lengths[pictures])
    return rows, owner


def tables(
    results: Mapping[str, Tensor],
    classes: Sequence[str],
    describe: Callable[[int], str] = "sample {}".format,
) -> dict[str, list[dict[str, Any]]]:
    """Return a row for each class, and one for each picture, those with the most errors first.

    Args:
        results: As `CocoMetrics` computes them.
        classes: Class names.
        describe: Names the picture of a number.

    Returns:
        `classes`: `class`, then `CLASS_COLUMNS`; `pictures`: `source`, then `PICTURE_COLUMNS`.
    """
    by_class = zip(classes, results["classes"].tolist(), strict=True)
    return {
        "classes": [
            {"class": name, "objects": int(row[0])}
            | dict(zip(CLASS_COLUMNS[1:], row[1:], strict=True))
            for name, row in by_class
        ],
        "pictures": [
            {"source": describe(row[0]), **dict(zip(PICTURE_COLUMNS, row, strict=True))}
            for row in results["pictures"].tolist()
        ],
    }


def build_metrics(classes: int) -> dict[str, Metric]:
    """Return the metrics of a split.

    Args:
        classes: Number of classes.
    """
    return {"coco": CocoMetrics(classes)}
