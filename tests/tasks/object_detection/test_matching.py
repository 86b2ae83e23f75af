"""Matching against COCO's own, against a plain loop, and by hand."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from resdomains_tasks.object_detection.annotations import objects
from resdomains_tasks.object_detection.evaluation import Collected
from resdomains_tasks.object_detection.matching import (
    LEFT_OUT,
    RIGHT,
    THRESHOLDS,
    WRONG,
    best_places,
    confusion,
    greedy,
    outcomes,
    over_thresholds,
    overlaps,
)
from resdomains_tasks.object_detection.metrics import CLASS_COLUMNS, CocoMetrics
from tests.tasks.object_detection.detections import (
    Seen,
    found_of,
    measured,
    random_pictures,
    reference,
    update,
)

BOX = [0.0, 0.0, 10.0, 10.0]
NEAR = [0.0, 0.0, 10.0, 8.0]  # IoU 0.8
NEARER = [0.0, 0.0, 10.0, 9.0]  # IoU 0.9
FAR = [50.0, 50.0, 60.0, 60.0]


def collected(*pictures: Seen, classes: int = 3) -> Collected:
    metric = CocoMetrics(classes)
    update(metric, pictures)
    return metric.collected()


def results_of(everything: Collected) -> npt.NDArray[np.int8]:
    return outcomes(everything, overlaps(everything))


def counted(everything: Collected, classes: int, threshold: float) -> npt.NDArray[np.int64]:
    return confusion(everything, overlaps(everything), classes, threshold)


def single(boxes: object, scores: object, labels: object, *truth: object, **flags: object) -> Seen:
    return Seen(0, found_of(boxes, scores, labels), objects(*truth, **flags))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [1, 4])
def test_what_is_right_and_wrong_is_what_coco_says(seed: int, classes: int) -> None:
    pictures = random_pictures(25, classes, seed, most=25)
    all_of_them = collected(*pictures, classes=classes)
    results = results_of(all_of_them)
    theirs = {}
    for one in reference(pictures, classes).evalImgs:
        if one is not None and one["aRng"] == [0, 1e10]:
            left_out = one["dtIgnore"][0]
            right = one["dtMatches"][0] > 0
            rows = zip(one["dtScores"], left_out, right, strict=True)
            theirs[one["image_id"], one["category_id"]] = [
                (score, LEFT_OUT if out else RIGHT if hit else WRONG) for score, out, hit in rows
            ]
    numbers = all_of_them.pictures[all_of_them.owner]
    ours: dict[tuple[int, int], list[tuple[float, int]]] = {key: [] for key in theirs}
    for number, label, score, result in zip(
        numbers.tolist(),
        all_of_them.labels.tolist(),
        all_of_them.scores.tolist(),
        results.tolist(),
        strict=True,
    ):
        ours[number, label].append((score, result))
    for key, found in ours.items():
        found.sort(key=lambda row: -row[0])
        assert found[:100] == theirs[key]
        assert {result for _, result in found[100:]} <= {LEFT_OUT}
    assert {WRONG, RIGHT, LEFT_OUT} <= set(results.tolist())


@pytest.mark.parametrize(
    ("objects_there", "which"),
    [
        ([[0.0, 0.0, 10.0, 14.0], BOX], "overlaps most"),
        ([[0.0, -3.0, 10.0, 7.0], [0.0, 3.0, 10.0, 13.0]], "is later, of equal overlaps"),
    ],
)
def test_a_detection_takes_the_object_that(objects_there: list[list[float]], which: str) -> None:
    """It then leaves the other one to a second detection, which overlaps that alone."""
    [other, _] = objects_there
    left = [other[0], other[1] - 2 if which.startswith("is") else 4.0, other[2], other[3]]
    seen = single([BOX, left], [0.9, 0.8], [0, 0], objects_there, [0, 0])
    assert results_of(collected(seen)).tolist() == [RIGHT, RIGHT]
    assert reference([seen], 1).stats[1] == pytest.approx(1)


def test_only_the_best_100_of_a_picture_and_class_count() -> None:
    scores = np.linspace(0.2, 0.9, 150)
    seen = single([BOX] * 150, scores.tolist(), [0] * 150, [BOX], [0])
    results = results_of(collected(seen))
    assert results[:50].tolist() == [LEFT_OUT] * 50
    assert results[50:].tolist() == [WRONG] * 99 + [RIGHT]


@pytest.mark.parametrize("seed", range(5))
def test_greedy_is_a_loop_over_the_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    left, right = random.integers(0, 12, (2, 60))
    lefts, rights, expected = set(), set(), []
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        expected.append(a not in lefts and b not in rights)
        if expected[-1]:
            lefts.add(a)
            rights.add(b)
    assert greedy(left, right).tolist() == expected


def test_overlaps_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = collected(*random_pictures(20, 3))
    whole = overlaps(everything)
    monkeypatch.setattr("resdomains_tasks.object_detection.matching._PAIRS", 7)
    for a, b in zip(whole, overlaps(everything), strict=True):
        assert np.array_equal(a, b)
    assert len(whole.iou) > 20


def test_the_pair_that_overlaps_most_is_matched_first_whatever_its_classes() -> None:
    seen = single([NEAR, NEARER], [0.9, 0.8], [0, 1], [BOX], [0])
    assert counted(collected(seen), 3, 0.5).tolist() == [
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]


def test_of_equal_overlaps_the_surer_detection_is_matched() -> None:
    seen = single([NEAR, NEAR], [0.7, 0.8], [1, 0], [BOX], [0])
    counts = counted(collected(seen), 3, 0.5)
    assert (counts[0, 0], counts[3, 1], counts.sum()) == (1, 1, 2)


def test_missed_objects_and_false_detections_are_confused_with_the_background() -> None:
    seen = single([FAR, BOX], [0.9, 0.4], [2, 0], [BOX], [1])
    counts = counted(collected(seen), 3, 0.5)
    assert (counts[1, 3], counts[3, 2], counts.sum()) == (1, 1, 2)


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_what_overlaps_only_a_crowd_or_a_difficult_object_is_left_out(flag: str) -> None:
    alone = single([NEAR, FAR], [0.9, 0.9], [1, 1], [BOX], [0], **{flag: True})
    counts = counted(collected(alone), 3, 0.5)
    assert (counts[3, 1], counts.sum()) == (1, 1)
    beside = single([NEAR], [0.9], [1], [BOX, NEAR], [0, 1], **{flag: [True, False]})
    counts = counted(collected(beside), 3, 0.5)
    assert (counts[1, 1], counts.sum()) == (1, 1)


def test_a_crowd_takes_any_number_of_small_detections_within_it() -> None:
    inside = [[1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 7.0, 7.0]]
    crowd = single(inside, [0.9, 0.8], [0, 0], [BOX], [0], crowd=True)
    assert results_of(collected(crowd)).tolist() == [LEFT_OUT, LEFT_OUT]
    assert counted(collected(crowd), 3, 0.5).sum() == 0
    difficult = single([BOX, BOX], [0.9, 0.8], [0, 0], [BOX], [0], difficult=True)
    assert results_of(collected(difficult)).tolist() == [LEFT_OUT, WRONG]


def test_the_confusion_matrix_counts_every_object_and_every_named_detection() -> None:
    everything = collected(*random_pictures(30, 4, flags=False), classes=4)
    for threshold in (0.0, 0.55, 1.1):
        counts = counted(everything, 4, threshold)
        assert counts[:4].sum(1).tolist() == everything.objects(4).tolist()
        named = everything.labels[everything.scores >= threshold]
        assert counts[:, :4].sum(0).tolist() == np.bincount(named, minlength=4).tolist()


@pytest.mark.parametrize("ties", [True, False])
def test_counts_at_a_threshold_are_those_of_what_has_that_score(ties: bool) -> None:
    pictures = random_pictures(25, 4, ties=ties)
    table = over_thresholds(c := collected(*pictures, classes=4), results_of(c), 4)
    for place in (0, 1, 300, 500, 999, 1000):
        threshold = THRESHOLDS[place]
        cut = [
            seen._replace(
                found=type(seen.found)(
                    *(part[seen.found.scores >= threshold] for part in seen.found)
                )
            )
            for seen in pictures
        ]
        kept = collected(*cut, classes=4)
        results = results_of(kept)
        for kind, counts in ((RIGHT, table.right), (WRONG, table.wrong)):
            expected = np.bincount(kept.labels[results == kind], minlength=4)
            assert counts[place].tolist() == expected.tolist()


def test_f1_is_that_of_precision_and_recall_and_best_where_it_is_highest() -> None:
    pictures = random_pictures(30, 4)
    table = over_thresholds(c := collected(*pictures, classes=4), results_of(c), 4)
    p, r, f1 = (curve[:, :3] for curve in (table.precision, table.recall, table.f1))
    assert np.allclose(f1, 2 * p * r / np.maximum(p + r, 1e-12))
    assert np.isnan(table.f1[:, 3]).all()  # has no object
    mean = f1.mean(1)
    results = measured(pictures, 4)
    assert float(results["f1"]) == pytest.approx(mean.max())
    assert table.best is not None
    assert float(results["threshold"]) == pytest.approx(THRESHOLDS[table.best])
    row = dict(zip(CLASS_COLUMNS, results["classes"][1].tolist(), strict=True))
    assert row["f1"] == pytest.approx(f1[table.best, 1])
    assert row["best_f1"] == pytest.approx(f1[:, 1].max())
    own = int(np.flatnonzero(np.isclose(THRESHOLDS, row["best_threshold"]))[0])
    assert f1[own, 1] == f1[:, 1].max()
    assert torch.isnan(results["classes"][3, 1:]).all()


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    curves = np.zeros((1001, 2))
    curves[[100, 450, 700], 0] = 1.0
    curves[600:, 1] = 0.5
    assert THRESHOLDS[best_places(curves)].tolist() == pytest.approx([0.45, 0.6])
