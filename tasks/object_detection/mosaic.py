"""Four training pictures in one."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from resdomains.training.randomness import draws
from resdomains.vision import resize

from .annotations import Rows
from .augment import SHORTEST, VISIBLE, remaining

_COUNT = 4
_CENTRE = 0.25, 0.75  # shares of height and width between which the four meet


class Mosaic:
    """Show four training pictures in one of the same size (Bochkovskiy et al. 2020).

    The four meet at a random point of the picture's middle half. Each is scaled by a factor of its own; of what is
    larger than its quarter a random part is shown, what is smaller stands at a random place on grey ground.

    Args:
        probability: Share of the training pictures that become mosaics.
        scale: Smallest and largest factor.
        epochs: Mosaics are made in that many first epochs, so that training ends on pictures as they are
            (Ge et al. 2021); in all if not given.
        fill: The grey, 0 to 255.

    Raises:
        ValueError: If a value cannot be used.
    """

    def __init__(
        self,
        probability: float = 1.0,
        scale: tuple[float, float] = (0.5, 1.0),
        epochs: int | None = None,
        fill: int = 114,
    ) -> None:
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability must be from 0 to 1, got {probability}")
        if len(scale) != 2 or not 0.0 < scale[0] <= scale[1] < float("inf"):
            raise ValueError(f"scale must be two rising factors above 0, got {list(scale)}")
        if epochs is not None and epochs < 0:
            raise ValueError(f"epochs must be at least 0, got {epochs}")
        if not 0 <= fill <= 255:
            raise ValueError(f"fill must be a pixel's value from 0 to 255, got {fill}")
        self.probability, self.scale, self.epochs, self.fill = probability, scale, epochs, fill

    def drawn(self, key: int, epoch: int) -> bool:
        """Return whether a training picture becomes a mosaic.

        Args:
            key: A number of `resdomains.training.randomness.keys`, which fixes all draws.
            epoch: The epoch, from 0.
        """
        if self.epochs is not None and epoch >= self.epochs:
            return False
        return _drawn(key)[0] < self.probability

    def others(self, key: int, count: int) -> list[int]:
        """Return which three of `count` training pictures stand beside a picture; one may be drawn twice.

        Args:
            key: As in `drawn`.
            count: Training pictures.
        """
        return [int(u * count) for u in _drawn(key)[1:_COUNT]]

    def __call__(self, pictures: Sequence[tuple[Tensor, Rows]], key: int) -> tuple[Tensor, Rows]:
        """Return one picture of four.

        Args:
            pictures: Four times (C, H, W) uint8 and (n, 8) rows of `COLUMNS`; sizes may differ.
            key: As in `drawn`.

        Returns:
            A picture as large as the first, and the objects of which enough is left (`augment.VISIBLE`). A picture
            with a side shorter than `augment.SHORTEST` is returned as it was.

        Raises:
            ValueError: Unless there are four pictures.
        """
        if len(pictures) != _COUNT:
            raise ValueError(f"a mosaic needs {_COUNT} pictures, got {len(pictures)}")
        channels, height, width = pictures[0][0].shape
        if min(height, width) < SHORTEST:
            return pictures[0]
        u = _drawn(key)[_COUNT:]
        down, across = (
            round(side * (_CENTRE[0] + part * (_CENTRE[1] - _CENTRE[0])))
            for side, part in zip((height, width), u, strict=False)
        )
        canvas = torch.full((channels, height, width), self.fill, dtype=torch.uint8)
        objects = []
        for place, (pixels, rows) in enumerate(pictures):
            top, bottom = ((0, down), (down, height))[place // 2]
            left, right = ((0, across), (across, width))[place % 2]
            factor, y, x = u[2 + 3 * place : 5 + 3 * place]
            factor = self.scale[0] + factor * (self.scale[1] - self.scale[0])
            size = [max(1, round(side * factor)) for side in pixels.shape[-2:]]
            scaled = resize(pixels, size[0], size[1], "bilinear")
            # Below 0 where the picture is larger than its quarter.
            y, x = round(y * (bottom - top - size[0])), round(x * (right - left - size[1]))
            part = scaled[
                :,
                max(-y, 0) : max(-y, 0) + bottom - top,
                max(-x, 0) : max(-x, 0) + right - left,
            ]
            y, x = y + top, x + left
            start = max(y, top), max(x, left)
            canvas[:, start[0] : start[0] + part.shape[1], start[1] : start[1] + part.shape[2]] = (
                part
            )
            whole = rows[:, :4].copy()
            whole[:, ::2] = whole[:, ::2] * (size[1] / pixels.shape[2]) + x
            whole[:, 1::2] = whole[:, 1::2] * (size[0] / pixels.shape[1]) + y
            seen = whole.copy()
            seen[:, ::2] = seen[:, ::2].clip(left, right)
            seen[:, 1::2] = seen[:, 1::2].clip(top, bottom)
            objects.append(remaining(rows, whole, seen, 0.0, VISIBLE))
        return canvas, np.concatenate(objects)


def _drawn(key: int) -> list[float]:
    """Return the numbers in [0, 1) of a mosaic: whether, which others, where they meet, each one's scale and place."""
    return draws(torch.tensor([key]), _COUNT + 2 + 3 * _COUNT)[0].tolist()
