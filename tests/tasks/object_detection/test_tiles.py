"""Laws of tiles: they cover a picture, and what a perfect detector finds in them is what the picture holds."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from resdomains_tasks.object_detection.annotations import Rows
from resdomains_tasks.object_detection.fcos import Found
from resdomains_tasks.object_detection.tiles import Place, cut, merge


def perfect(boxes: Rows, scores: Rows, labels: Any, places: list[Place]) -> list[Found]:
    """What one who misses nothing finds in each tile: what is seen there of every object."""
    founds = []
    for top, left, tall, wide in places:
        start = np.array([left, top, left, top])
        seen = np.clip(boxes - start, 0, [wide, tall, wide, tall])
        which = (seen[:, 2:] > seen[:, :2]).all(1)
        founds.append(
            Found(
                torch.tensor(seen[which], dtype=torch.float32),
                torch.tensor(scores[which], dtype=torch.float32),
                torch.tensor(labels[which]),
            )
        )
    return founds


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Found:
    return Found(
        torch.tensor(boxes).reshape(-1, 4).float(),
        torch.tensor(scores),
        torch.tensor(labels).long(),
    )


def equal(a: Found, boxes: Rows, scores: Rows, labels: Any) -> None:
    order = np.argsort(-scores)
    np.testing.assert_allclose(a.scores.numpy(), scores[order], rtol=1e-6)
    np.testing.assert_array_equal(a.labels.numpy(), labels[order])
    np.testing.assert_allclose(a.boxes.numpy(), boxes[order], atol=1e-3)


@pytest.mark.parametrize("seed", range(30))
def test_tiles_cover_the_picture_evenly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 900, 2))
    tile, overlap = int(rng.integers(1, 300)), float(rng.uniform(0, 0.9))
    if tile < 20:
        height, width = height % 50 + 1, width % 50 + 1
    places = cut(height, width, tile, overlap)
    covered = np.zeros((height, width), bool)
    for top, left, tall, wide in places:
        assert (tall, wide) == (min(tile, height), min(tile, width))
        assert top >= 0
        assert left >= 0
        assert top + tall <= height
        assert left + wide <= width
        covered[top : top + tall, left : left + wide] = True
    assert covered.all()
    assert len(set(places)) == len(places)
    common = min(round(tile * overlap), tile - 1)
    for axis in (0, 1):
        starts = sorted({place[axis] for place in places})
        assert all(b - a <= tile - common for a, b in pairwise(starts))


@pytest.mark.parametrize("size", [(1, 1), (100, 37), (512, 512), (3, 512)])
def test_a_picture_no_larger_than_a_tile_is_one(size: tuple[int, int]) -> None:
    assert cut(*size, 512, 0.25) == [(0, 0, *size)]


def test_no_more_tiles_than_needed() -> None:
    assert cut(100, 190, 100, 0.1) == [(0, 0, 100, 100), (0, 90, 100, 100)]
    assert [left for _, left, *_ in cut(100, 191, 100, 0.1)] == [0, 45, 91]


@pytest.mark.parametrize("seed", range(60))
def test_a_perfect_detector_finds_each_object_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 700, 2)
    tile, overlap = int(rng.integers(60, 250)), float(rng.uniform(0.1, 0.6))
    places = cut(int(height), int(width), tile, overlap)
    # Up to the overlap, less the pixel at either side where a box counts as cut.
    largest = max(3.0, round(tile * overlap) - 2.5)
    # Many overlap, some nearly as a whole and of the same class.
    count = int(rng.integers(0, 80))
    sides = np.minimum(rng.uniform(2, largest, (count, 2)), [width, height])
    start = rng.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    if count > 20:
        start[:10], sides[:10] = start[10:20], sides[10:20] * rng.uniform(0.8, 1.0, (10, 2))
    boxes = np.concatenate([start, start + sides], 1)
    labels, scores = rng.integers(0, 2, count), rng.permutation(count) / 100 + 0.1
    equal(merge(perfect(boxes, scores, labels, places), places), boxes, scores, labels)


def test_an_object_larger_than_a_tile_is_put_together() -> None:
    boxes = np.array([[30.0, 20.0, 370.0, 280.0], [150.0, 140.0, 180.0, 170.0]])
    scores, labels = np.array([0.9, 0.8]), np.array([1, 0])
    places = cut(300, 400, 128, 0.25)
    assert len(places) == 12
    equal(merge(perfect(boxes, scores, labels, places), places), boxes, scores, labels)


def test_a_whole_box_stands_for_its_pieces() -> None:
    places = [(0, 0, 100, 100), (0, 60, 100, 100)]
    # The object spans 70 to 110: the first tile sees up to 100, the second all of it.
    piece, whole = [70.0, 10, 100, 50], [10.5, 10, 50, 50]
    merged = merge([found([piece], [0.9], [3]), found([whole], [0.6], [3])], places)
    equal(merged, np.array([[70.5, 10, 110, 50]]), np.array([0.6]), np.array([3]))
    # And the other way round, where the whole one comes first.
    merged = merge(
        [found([[62.0, 10, 90, 50]], [0.6], [3]), found([[0.0, 10, 30, 50]], [0.9], [3])],
        [(0, 0, 100, 100), (0, 65, 100, 100)],
    )
    equal(merged, np.array([[62.0, 10, 90, 50]]), np.array([0.6]), np.array([3]))


def test_of_two_whole_boxes_the_surer_stays() -> None:
    places = [(0, 0, 100, 100), (0, 50, 100, 100)]
    first, second = [60.0, 10, 90, 50], [12.0, 11, 41, 50]
    for scores in ([0.9, 0.6], [0.6, 0.9]):
        merged = merge(
            [found([first], [scores[0]], [3]), found([second], [scores[1]], [3])], places
        )
        best = first if scores[0] > scores[1] else [62.0, 11, 91, 50]
        equal(merged, np.array([best]), np.array([0.9]), np.array([3]))


def test_a_piece_in_a_box_of_its_class_is_left_out() -> None:
    places = [(0, 0, 100, 100), (0, 60, 100, 100)]
    # The piece is too poor to be known as the same object, but lies in it.
    whole, piece = [20.0, 10, 60, 90], [85.0, 20, 100, 50]
    merged = merge([found([piece], [0.9], [3]), found([whole], [0.6], [3])], places)
    equal(merged, np.array([[80.0, 10, 120, 90]]), np.array([0.6]), np.array([3]))
    # A small object of another class, or one that is not cut, stays.
    for box, label in ((piece, 4), ([85.0, 20, 95, 50], 3)):
        merged = merge([found([box], [0.9], [label]), found([whole], [0.6], [3])], places)
        assert len(merged.boxes) == 2


def test_classes_are_not_joined() -> None:
    places = [(0, 0, 100, 100), (0, 50, 100, 100)]
    merged = merge(
        [found([[60.0, 10, 90, 50]], [0.5], [3]), found([[10.0, 10, 40, 50]], [0.6], [4])], places
    )
    assert merged.labels.tolist() == [4, 3]


def test_nothing_found_is_nothing() -> None:
    places = cut(300, 300, 128, 0.25)
    merged = merge([found([], [], []) for _ in places], places)
    assert merged.boxes.shape == (0, 4)
    assert merged.scores.shape == merged.labels.shape == (0,)
    assert (merged.boxes.dtype, merged.labels.dtype) == (torch.float32, torch.int64)


def test_one_tile_changes_nothing() -> None:
    boxes = np.random.default_rng(0).uniform(0, 50, (20, 4))
    boxes[:, 2:] += boxes[:, :2]
    scores, labels = np.linspace(0.9, 0.1, 20), np.arange(20) % 3
    places = cut(100, 100, 100, 0.5)
    one = perfect(boxes, scores, labels, places)
    equal(merge(one, places), one[0].boxes.numpy(), scores, labels)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (0, 0.2, "tile must be at least 1 pixel, got 0"),
        (64, 1.0, r"overlap must be a share of the tile from 0 to below 1, got 1\.0"),
        (64, -0.1, "overlap must be a share"),
        (64, float("nan"), "overlap must be a share"),
    ],
)
def test_tiles_that_cannot_be_are_refused(tile: int, overlap: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut(100, 100, tile, overlap)
