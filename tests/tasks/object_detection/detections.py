"""Random detections, and COCO's own evaluation of them."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics import Metric

from resdomains_tasks.object_detection.annotations import Rows, objects
from resdomains_tasks.object_detection.fcos import Found
from resdomains_tasks.object_detection.metrics import CocoMetrics


class Seen(NamedTuple):
    """A picture's number, what was found on it, and what is there."""

    number: int
    found: Found
    truth: Rows


def found_of(boxes: Any, scores: Any, labels: Any) -> Found:
    """Return detections of plain numbers."""
    return Found(
        torch.tensor(boxes, dtype=torch.float64).view(-1, 4),
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor(labels, dtype=torch.long),
    )


def random_boxes(random: np.random.Generator, count: int, largest: float = 150.0) -> Rows:
    """Return (count, 4) corners of all of COCO's sizes."""
    corners = random.uniform(0, 200, (count, 2))
    sides = np.exp(random.uniform(np.log(4), np.log(largest), (count, 2)))
    return np.concatenate((corners, corners + sides), 1)


def random_pictures(
    count: int,
    classes: int,
    seed: int = 0,
    most: int = 12,
    ties: bool = True,
    flags: bool = True,
) -> list[Seen]:
    """Return pictures with crowds, difficult objects, areas of masks, equal scores, and empty ones among them.

    Args:
        count: Of pictures.
        classes: Number of classes; the last one has no object where there are several.
        seed: Of the random numbers.
        most: Objects of a picture.
        ties: Whether many scores are equal.
        flags: Whether there are crowds and difficult objects.
    """
    random = np.random.default_rng(seed)
    pictures = []
    for number in random.permutation(10 * count)[:count].tolist():
        here = int(random.integers(0, most)) if random.random() < 0.8 else 0
        boxes = random_boxes(random, here)
        labels = random.integers(0, max(classes - 1, 1), here)
        truth = objects(
            boxes,
            labels,
            crowd=random.random(here) < 0.15 * flags,
            difficult=random.random(here) < 0.15 * flags,
            area=(boxes[:, 2:] - boxes[:, :2]).prod(1) * random.uniform(0.3, 1.0, here),
        )
        near = np.repeat(np.arange(here), 3)
        seen = boxes[near] + random.normal(0, 0.06, (len(near), 4)) * np.tile(
            boxes[near, 2:] - boxes[near, :2], 2
        )
        said = np.where(
            random.random(len(near)) < 0.8,
            labels[near],
            random.integers(0, classes, len(near)),
        )
        false = int(random.integers(0, 2 * most))
        seen = np.concatenate((seen, random_boxes(random, false)))
        said = np.concatenate((said, random.integers(0, classes, false)))
        chosen = random.permutation(len(seen))[: 0 if random.random() < 0.1 else None]
        scores = random.random(len(chosen))
        if ties:
            scores = scores.round(1)
        order = np.argsort(-scores, kind="stable")
        pictures.append(
            Seen(number, found_of(seen[chosen], scores[order], said[chosen].tolist()), truth)
        )
    return pictures


def update(metric: Metric, pictures: Sequence[Seen]) -> None:
    """Give a metric one batch."""
    owner = [place for place, seen in enumerate(pictures) for _ in seen.truth]
    metric.update(
        torch.tensor([seen.number for seen in pictures], dtype=torch.long),
        [seen.found for seen in pictures],
        torch.from_numpy(np.concatenate([np.empty((0, 8)), *(seen.truth for seen in pictures)])),
        torch.tensor(owner, dtype=torch.long),
    )


def measured(pictures: Sequence[Seen], classes: int, size: int = 4) -> dict[str, Tensor]:
    """Return our results, from batches of a size."""
    metric = CocoMetrics(classes)
    for begin in range(0, len(pictures), size):
        update(metric, pictures[begin : begin + size])
    return metric.compute()


class Reference(COCOeval):  # type: ignore[misc]
    """COCO's evaluation, with the flag `ignore` of the annotations that its code reads and then overwrites."""

    def _prepare(self) -> None:
        super()._prepare()
        for objects_here in self._gts.values():
            for one in objects_here:
                one["ignore"] = one["iscrowd"] or one["difficult"]


def reference(pictures: Sequence[Seen], classes: int) -> Reference:
    """Evaluate by pycocotools."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for seen in pictures:
        for x1, y1, x2, y2, label, crowd, difficult, area in seen.truth.tolist():
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": seen.number,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area,
                    "iscrowd": int(crowd),
                    "difficult": int(difficult),
                }
            )
        for (x1, y1, x2, y2), score, label in zip(*(o.tolist() for o in seen.found), strict=True):
            found.append(
                {
                    "image_id": seen.number,
                    "category_id": label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO()
        theirs.dataset = {
            "images": [{"id": seen.number} for seen in pictures],
            "categories": [{"id": k} for k in range(classes)],
            "annotations": truth,
            "info": {},
        }
        theirs.createIndex()
        evaluation = Reference(theirs, theirs.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
