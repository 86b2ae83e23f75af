import math
import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from resdomains_tasks.object_detection.assignment import CenterSampling, Level
from resdomains_tasks.object_detection.fcos import SpreadGrid, StrideGrid

STRIDES = (8, 16, 32, 64, 128)


def levels_of(height: int, width: int, strides: Sequence[int] = STRIDES) -> list[Level]:
    return [
        StrideGrid().level(-(-height // s), -(-width // s), s, (height, width)) for s in strides
    ]


def brute_force(
    boxes: Tensor, owner: Tensor, levels: Sequence[Level], pictures: int, radius: float
) -> dict[int, int]:
    """Position to object, by asking every object about every position, one after another."""
    assigned = {}
    total = sum(level.height * level.width for level in levels)
    for picture in range(pictures):
        first = picture * total
        for number, level in enumerate(levels):
            low = 0 if number == 0 else 4 * level.stride
            high = math.inf if number == len(levels) - 1 else 8 * level.stride
            for j in range(level.height):
                for i in range(level.width):
                    x, y = i * level.across, j * level.down
                    smallest = math.inf
                    for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
                        sides = (x - x1, y - y1, x2 - x, y2 - y)
                        if (
                            owner[row] == picture
                            and min(sides) > 0
                            and low < max(sides) < high
                            and abs(x - (x1 + x2) / 2) < radius * level.stride
                            and abs(y - (y1 + y2) / 2) < radius * level.stride
                            and (x2 - x1) * (y2 - y1) < smallest
                        ):
                            smallest = (x2 - x1) * (y2 - y1)
                            assigned[first + j * level.width + i] = row
            first += level.height * level.width
    return assigned


def random_boxes(count: int, height: int, width: int, whole: bool) -> Tensor:
    """Boxes of all sizes, some beyond the picture; whole pixels make ties and exact borders."""
    extent = torch.tensor([width, height])
    centre = torch.rand(count, 2) * extent
    half = torch.exp(torch.rand(count, 2) * 5) / 2
    boxes = torch.cat((centre - half, centre + half), 1)
    return boxes.round() if whole else boxes


@pytest.mark.parametrize("radius", [1.5, 0.5, 2.25])
@pytest.mark.parametrize("whole", [True, False])
def test_each_position_gets_what_asking_every_object_gives(radius: float, whole: bool) -> None:
    torch.manual_seed(int(radius * 10))
    boxes = random_boxes(60, 96, 160, whole).double()
    boxes = torch.cat((boxes, boxes[:10]))  # the same boxes again: the first ones must win
    owner = torch.arange(len(boxes)) % 3
    owner[60:] = owner[:10]
    levels = levels_of(96, 160)
    got = CenterSampling(radius)(boxes, owner, levels, 3)
    expected = brute_force(boxes, owner, levels, 3, radius)
    assert len(expected) > 20
    assert dict(zip(got.position.tolist(), got.object.tolist(), strict=True)) == expected
    assert got.position.tolist() == sorted(expected)


def test_positions_may_lie_closer_than_the_stride() -> None:
    torch.manual_seed(0)
    levels = [
        SpreadGrid().level(-(-160 // s), -(-224 // s), s, (160, 224)) for s in (16, 32, 64, 128)
    ]
    assert [level.down for level in levels] == [16, 32, 53, 80]
    boxes, owner = random_boxes(80, 160, 224, whole=True).double(), torch.zeros(80).long()
    got = CenterSampling()(boxes, owner, levels, 1)
    expected = brute_force(boxes, owner, levels, 1, 1.5)
    assert dict(zip(got.position.tolist(), got.object.tolist(), strict=True)) == expected


def test_a_picture_of_one_position_a_level() -> None:
    levels = levels_of(8, 8)
    got = CenterSampling()(torch.tensor([[-3.0, -3.0, 7.0, 7.0]]), torch.zeros(1).long(), levels, 1)
    assert (got.position.tolist(), got.object.tolist()) == ([0], [0])


def test_no_objects_are_no_positions() -> None:
    got = CenterSampling()(torch.zeros(0, 4), torch.zeros(0).long(), levels_of(64, 64), 2)
    assert got.position.shape == got.object.shape == (0,)
    assert got.position.dtype == got.object.dtype == torch.long


def test_ten_thousand_objects_take_little_time() -> None:
    """Of 22,000 positions: a matrix of both would hold 220 million entries for each comparison."""
    torch.manual_seed(0)
    boxes, owner = random_boxes(10_000, 800, 1344, whole=False), torch.zeros(10_000).long()
    levels = levels_of(800, 1344)
    CenterSampling()(boxes, owner, levels, 1)
    began = time.perf_counter()
    got = CenterSampling()(boxes, owner, levels, 1)
    assert time.perf_counter() - began < 1.0
    assert len(got.position) > 5000


def test_a_radius_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="radius must be above 0 strides, got 0"):
        CenterSampling(0)
