"""COCO's numbers against COCO's own code, on random detections."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from resdomains_tasks.object_detection.annotations import objects
from resdomains_tasks.object_detection.metrics import (
    CLASS_COLUMNS,
    PICTURE_COLUMNS,
    CocoMetrics,
    build_metrics,
    tables,
)
from tests.pairs import in_two_processes
from tests.tasks.object_detection.detections import (
    Seen,
    found_of,
    measured,
    random_boxes,
    random_pictures,
    reference,
    update,
)

TWELVE = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
NOTHING = found_of([], [], [])
NO_OBJECTS = objects([], [])
BOX = [10.0, 20.0, 40.0, 60.0]


def many_found(seed: int = 0) -> list[Seen]:
    """More than 100 detections of a picture and class, the best of which do not all hit."""
    random = np.random.default_rng(seed)
    pictures = []
    for number in (7, 3):
        boxes = random_boxes(random, 130, 20.0)
        scores = np.sort(random.random(260))[::-1]
        seen = np.repeat(boxes, 2, 0)[random.permutation(260)]
        labels = random.integers(0, 2, 260)
        truth = objects(boxes, random.integers(0, 2, 130))
        pictures.append(Seen(number, found_of(seen, scores.copy(), labels.tolist()), truth))
    return pictures


def without_objects(classes: int) -> list[Seen]:
    return [seen._replace(truth=NO_OBJECTS) for seen in random_pictures(6, classes)]


CASES: dict[str, tuple[Callable[[], list[Seen]], int]] = {
    "crowds, difficult ones, areas of masks, ties": (lambda: random_pictures(40, 4), 4),
    "other numbers": (lambda: random_pictures(40, 4, seed=5, ties=False), 4),
    "one class": (lambda: random_pictures(30, 1, seed=1), 1),
    "many classes, most without objects": (lambda: random_pictures(10, 30, seed=2), 30),
    "crowded pictures": (lambda: random_pictures(5, 2, seed=3, most=60), 2),
    "more than 100 detections": (many_found, 2),
    "no picture has objects": (lambda: without_objects(3), 3),
    "one picture": (lambda: random_pictures(1, 2, seed=4), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_cocos_numbers_are_those_of_pycocotools(name: str) -> None:
    make, classes = CASES[name]
    pictures = make()
    results, theirs = measured(pictures, classes), reference(pictures, classes)
    ours = torch.stack([results[name] for name in TWELVE])
    expected = np.where(theirs.stats < 0, np.nan, theirs.stats)
    assert np.allclose(ours, expected, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", CASES)
def test_each_classs_numbers_are_those_of_pycocotools(name: str) -> None:
    make, classes = CASES[name]
    pictures = make()
    results, theirs = measured(pictures, classes), reference(pictures, classes)
    precision = theirs.eval["precision"][..., -1]
    precision = np.where(precision < 0, np.nan, precision)
    assert np.allclose(
        results["precision_curve"], precision[0, :, :, 0], rtol=0, atol=1e-6, equal_nan=True
    )
    # A class is known at all recalls and overlaps, or at none.
    columns = {"ap": precision[..., 0], "ap50": precision[:1, ..., 0]}
    columns |= {f"ap_{s}": precision[..., i] for i, s in enumerate(("small", "medium", "large"), 1)}
    for column, values in columns.items():
        ours = results["classes"][:, CLASS_COLUMNS.index(column)]
        assert np.allclose(ours, values.mean((0, 1)), rtol=0, atol=1e-6, equal_nan=True), column


def test_the_cases_tell_flags_apart() -> None:
    """Crowds, difficult objects and areas change the numbers: the laws above could fail."""
    pictures = random_pictures(40, 4)
    results = measured(pictures, 4)
    assert 0.05 < results["ap"] < 0.95
    for column in (5, 6, 7):
        changed = [seen._replace(truth=seen.truth.copy()) for seen in pictures]
        for seen in changed:
            seen.truth[:, column] = 1.0 if column == 7 else 0.0
        other = measured(changed, 4)
        assert any(abs(float(other[name] - results[name])) > 1e-3 for name in TWELVE), column


def test_neither_the_order_nor_the_size_of_batches_matters() -> None:
    pictures = random_pictures(30, 3)
    alone = measured(pictures, 3, size=1)
    shuffled = [pictures[i] for i in np.random.default_rng(1).permutation(30)]
    other = measured(shuffled, 3, size=7)
    assert alone.keys() == other.keys()
    for name in alone:
        assert torch.equal(alone[name].nan_to_num(-1), other[name].nan_to_num(-1)), name


def test_a_picture_that_comes_twice_counts_once() -> None:
    pictures = random_pictures(9, 3)
    once, twice = measured(pictures, 3), measured([*pictures, pictures[4], pictures[0]], 3)
    for name in once:
        assert torch.equal(once[name].nan_to_num(-1), twice[name].nan_to_num(-1)), name


def test_labels_and_numbers_are_exact_whatever_the_precision_of_the_boxes() -> None:
    found = found_of([BOX], [0.5], [1999])
    found = found._replace(boxes=found.boxes.bfloat16(), scores=found.scores.bfloat16())
    results = measured([Seen(2**40 + 1, found, objects([BOX], [1999]))], 2000)
    assert float(results["ap"]) == 1
    assert results["pictures"].tolist() == [[2**40 + 1, 1, 1, 0, 0]]


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_of_no_pictures_nothing_is_known() -> None:
    results = CocoMetrics(2).compute()
    assert all(bool(results[name].isnan()) for name in (*TWELVE, "f1", "threshold"))
    assert results["confusion"].sum() == 0
    assert results["pictures"].shape == (0, len(PICTURE_COLUMNS))


def test_pictures_with_neither_objects_nor_detections_are_right() -> None:
    results = measured([Seen(3, NOTHING, NO_OBJECTS), Seen(5, NOTHING, NO_OBJECTS)], 2)
    assert bool(results["ap"].isnan())
    assert results["pictures"].tolist() == [[3, 0, 0, 0, 0], [5, 0, 0, 0, 0]]


def test_nothing_found_is_0_where_there_are_objects() -> None:
    results = measured([Seen(3, NOTHING, objects([BOX], [0]))], 2)
    assert [float(results[name]) for name in ("ap", "ap50", "ar100", "f1")] == [0, 0, 0, 0]


def test_a_box_without_area_is_no_error() -> None:
    flat = [10.0, 20.0, 10.0, 20.0]
    results = measured([Seen(3, found_of([flat, BOX], [0.9, 0.8], [0, 0]), objects([BOX], [0]))], 1)
    assert float(results["ap"]) == pytest.approx(0.5)


def test_the_tables_name_classes_and_pictures() -> None:
    pictures = [
        Seen(4, found_of([BOX], [0.9], [0]), objects([BOX], [0])),
        Seen(2, found_of([BOX, BOX], [0.8, 0.7], [1, 1]), objects([BOX, BOX], [0, 0])),
    ]
    found = tables(measured(pictures, 2), ["cat", "dog"], "picture {}".format)
    cat, dog = found["classes"]
    assert list(cat) == ["class", *CLASS_COLUMNS]
    assert (cat["class"], cat["objects"], cat["recall"]) == ("cat", 3, pytest.approx(1 / 3))
    assert (cat["precision"], cat["f1"]) == (1, pytest.approx(0.5))
    assert (dog["class"], dog["objects"]) == ("dog", 0)
    assert np.isnan(dog["ap"])
    assert np.isnan(dog["f1"])
    assert found["pictures"] == [
        {"source": "picture 2", "index": 2, "objects": 2, "found": 0, "false": 2, "missed": 2},
        {"source": "picture 4", "index": 4, "objects": 1, "found": 1, "false": 0, "missed": 0},
    ]


SHARES = [
    (slice(0, 7), slice(7, 20)),
    (slice(0, 20), slice(0, 0)),
    (slice(0, 0), slice(0, 20)),
    (slice(1, 20, 2), slice(0, 20, 2)),
]
"""The pictures of two processes; in the second and third one process has none."""


def test_processes_merged_equal_one() -> None:
    """Merge the states of two metrics by torchmetrics' own rules, as its synchronisation does."""
    pictures = random_pictures(20, 3)
    alone = measured(pictures, 3)
    for shares in SHARES:
        first, second = (CocoMetrics(3) for _ in shares)
        for metric, share in zip((first, second), shares, strict=True):
            update(metric, pictures[share])
        first.merge_state(second)
        same(first.compute(), alone)


def same(ours: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    assert ours.keys() == alone.keys()
    for name in alone:
        assert torch.equal(ours[name].nan_to_num(-1), alone[name].nan_to_num(-1)), name


def work(rank: int) -> list[dict[str, Any]]:
    pictures = random_pictures(20, 3)
    metric = build_metrics(3)["coco"]
    found = []
    for shares in SHARES:
        metric.reset()
        own = pictures[shares[rank]]
        for begin in range(0, len(own), 4):
            update(metric, own[begin : begin + 4])
        found.append(metric.compute())
    return found


@pytest.mark.slow
def test_two_processes_equal_one_though_one_sees_no_batch(tmp_path: Path) -> None:
    alone = measured(random_pictures(20, 3), 3)
    for rank in in_two_processes(work, tmp_path):
        for found in rank:
            same(found, alone)
