"""COCO's evaluation of many detections, against torchmetrics with pycocotools and with faster-coco-eval, one thread.

python -m tests.benchmarks.detection_evaluation

Random pictures, with some seven objects of three classes each as COCO's have; two fifths of the detections are near an
object. Updates in batches of 16 count too, and ours includes confusion, F1 and what it says of each class and picture.
Its AP differs from torchmetrics' in the fourth place: that rounds the recalls 0, 0.01 ... 1 to float32.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from resdomains_tasks.object_detection.annotations import Rows, objects
from resdomains_tasks.object_detection.fcos import Found
from resdomains_tasks.object_detection.metrics import CocoMetrics
from tests.benchmarks.measure import in_turn, ratio, report

_BATCH = 16
_SIDE = 640.0


class Split:
    """Pictures with objects and detections.

    Args:
        pictures: How many.
        found: Detections of each.
        classes: Number of classes.
    """

    def __init__(self, pictures: int, found: int, classes: int) -> None:
        random = np.random.default_rng(0)
        self.classes = classes
        self.truth: list[Tensor] = []
        self.found: list[Found] = []
        for _ in range(pictures):
            usual = random.integers(0, classes, 3)
            count = int(random.poisson(7))
            boxes, labels = _boxes(random, count), random.choice(usual, count)
            self.truth.append(torch.from_numpy(objects(boxes, labels)))
            seen, said = _boxes(random, found), random.choice(usual, found)
            scores = random.random(found)
            near = random.random(found) < 0.4 * (count > 0)
            source = random.integers(0, max(count, 1), found)[near]
            sides = np.tile(boxes[source, 2:] - boxes[source, :2], 2)
            seen[near] = boxes[source] + random.normal(0, 0.06, sides.shape) * sides
            said[near], scores[near] = labels[source], scores[near] ** 0.5
            order = np.argsort(-scores)
            self.found.append(
                Found(
                    torch.from_numpy(seen[order]).float(),
                    torch.from_numpy(scores[order]).float(),
                    torch.from_numpy(said[order]),
                )
            )

    def ours(self) -> dict[str, Tensor]:
        """Evaluate with the detector's metrics."""
        metric = CocoMetrics(self.classes)
        for begin in range(0, len(self.found), _BATCH):
            truth = self.truth[begin : begin + _BATCH]
            places = torch.arange(len(truth))
            metric.update(
                places + begin,
                self.found[begin : begin + _BATCH],
                torch.cat(truth),
                places.repeat_interleave(torch.tensor([len(rows) for rows in truth])),
            )
        return metric.compute()

    def theirs(self, backend: Any) -> dict[str, Tensor]:
        """Evaluate with torchmetrics."""
        metric = MeanAveragePrecision(backend=backend)
        for begin in range(0, len(self.found), _BATCH):
            metric.update(
                [found._asdict() for found in self.found[begin : begin + _BATCH]],
                [
                    {"boxes": rows[:, :4].float(), "labels": rows[:, 4].long()}
                    for rows in self.truth[begin : begin + _BATCH]
                ],
            )
        return metric.compute()


def _boxes(random: np.random.Generator, count: int) -> Rows:
    sides = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    corners = random.random((count, 2)) * (_SIDE - sides)
    return np.concatenate((corners, corners + sides), 1)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--found", type=int, default=100, help="detections of a picture")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split = Split(arguments.pictures, arguments.found, arguments.classes)
    results: dict[str, float] = {}

    def noting(name: str, key: str, run: Callable[[], dict[str, Tensor]]) -> Callable[[], None]:
        def evaluate() -> None:
            results[name] = float(run()[key])

        return evaluate

    things = {"resdomains": noting("resdomains", "ap", split.ours)}
    for backend in ("pycocotools", "faster_coco_eval"):
        name = f"torchmetrics, {backend}"
        things[name] = noting(name, "map", lambda backend=backend: split.theirs(backend))  # type: ignore[misc]
    seconds = in_turn(things, arguments.rounds)
    report(
        "detection_evaluation",
        [
            {
                "of": name,
                "pictures": arguments.pictures,
                "detections each": arguments.found,
                "classes": arguments.classes,
                "AP": results[name],
                "s": statistics.median(values),
                "resdomains is faster by": ratio(values, seconds["resdomains"]),
            }
            for name, values in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
