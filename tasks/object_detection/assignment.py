"""Which positions of a pyramid stand for which object."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """The positions of one map of a pyramid, in pixels of the picture.

    Position (row j, column i) stands at x = i * across, y = j * down. `stride` is the level's unit of length; the
    distances between positions are the same unless a grid says otherwise.
    """

    height: int
    width: int
    stride: int
    down: float
    across: float


class Assigned(NamedTuple):
    """The positions that stand for an object, rising.

    `position` (P,) counts through the batch: the picture's place times the positions of a picture, plus the position.
    `object` (P,) is a row of the boxes.
    """

    position: Tensor
    object: Tensor


class Assignment(ABC):
    """Says which positions learn which object."""

    @abstractmethod
    def __call__(
        self, boxes: Tensor, owner: Tensor, levels: Sequence[Level], pictures: int
    ) -> Assigned:
        """Assign objects to positions; a position stands for at most one object.

        Args:
            boxes: (N, 4) corners x1, y1, x2, y2 in pixels; N may be 0.
            owner: (N,) the picture of each.
            levels: Of each picture, finest first.
            pictures: How many there are.
        """


class CenterSampling(Assignment):
    """FCOS's rule (Tian et al. 2019): the middle of an object, at the level of its size.

    A position of a level of stride s stands for an object if it lies inside its box, closer than `radius` s to the
    centre along both axes, and the largest distance to the box's sides is between 4 s and 8 s (from 0 at the finest
    level, without end at the coarsest). Of several objects the smallest wins, and of equal ones the first.

    Each object looks only at the positions around its centre, so that the cost is that of the objects, not of objects
    times positions.

    Args:
        radius: In strides.

    Raises:
        ValueError: If the radius is not above 0.
    """

    def __init__(self, radius: float = 1.5) -> None:
        if not radius > 0:
            raise ValueError(f"radius must be above 0 strides, got {radius}")
        self.radius = radius

    def __call__(
        self, boxes: Tensor, owner: Tensor, levels: Sequence[Level], pictures: int
    ) -> Assigned:
        total = sum(level.height * level.width for level in levels)
        count = len(boxes)
        # The smallest object has the lowest rank; a position keeps the lowest that reaches it.
        order = (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort(stable=True)
        boxes, owner = boxes[order], owner[order]
        rank = torch.arange(count, device=boxes.device)
        best = rank.new_full((pictures * total,), count)
        first = 0
        for number, level in enumerate(levels):
            lowest = 0.0 if number == 0 else 4.0 * level.stride
            highest = math.inf if number == len(levels) - 1 else 8.0 * level.stride
            near, column, row = self._near(boxes, level)
            x1, y1, x2, y2 = (side[:, None] for side in boxes.unbind(1))
            x, y = column * level.across, row * level.down
            # (N, rows, 1) and (N, 1, columns) meet where both are needed.
            nearest_x, nearest_y = torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y)
            furthest_x, furthest_y = torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y)
            furthest = torch.maximum(furthest_y[:, :, None], furthest_x[:, None, :])
            inside = (nearest_y > 0)[:, :, None] & (nearest_x > 0)[:, None, :]
            chosen = near & inside & (furthest > lowest) & (furthest < highest)
            position = owner[:, None, None] * total + first + row[:, :, None] * level.width
            position = position + column[:, None, :]
            # What is not chosen writes the rank of nobody to a position that exists.
            candidate = torch.where(chosen, rank[:, None, None], count)
            position = torch.where(chosen, position, 0)
            best.scatter_reduce_(0, position.flatten(), candidate.flatten(), "amin")
            first += level.height * level.width
        position = (best < count).nonzero().squeeze(1)
        return Assigned(position, order[best[position]])

    def _near(self, boxes: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Return which positions around the centres are near and on the map, their columns and their rows."""
        reach = self.radius * level.stride
        centre_x, centre_y = ((boxes[:, :2] + boxes[:, 2:]) / 2).unbind(1)
        near_x, column = _along(centre_x, level.across, level.width, reach)
        near_y, row = _along(centre_y, level.down, level.height, reach)
        return near_y[:, :, None] & near_x[:, None, :], column, row


def _along(centre: Tensor, step: float, size: int, reach: float) -> tuple[Tensor, Tensor]:
    """Return for one axis which places (N, n) are closer than `reach` to the centre, and the places."""
    # An open interval of 2 reach holds at most this many, and one more for rounding.
    most = min(math.ceil(2 * reach / step) + 1, size)
    begin = ((centre - reach) / step).floor().long().clamp(0, size - most)
    place = begin[:, None] + torch.arange(most, device=centre.device)
    return (place * step - centre[:, None]).abs() < reach, place
