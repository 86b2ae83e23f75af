"""Annotated pictures, as they were found."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from resdomains.schema import Split

Rows = npt.NDArray[np.float64]

COLUMNS = ("x1", "y1", "x2", "y2", "label", "crowd", "difficult", "area")
"""Of an object: corners in pixels (0, 0 is the upper left corner of the upper left pixel), class number, whether it
stands for a crowd, whether evaluation shall not count it, and its area in pixels² (COCO's is that of the mask)."""


def objects(
    boxes: npt.ArrayLike,
    labels: npt.ArrayLike,
    crowd: npt.ArrayLike = False,
    difficult: npt.ArrayLike = False,
    area: npt.ArrayLike | None = None,
) -> Rows:
    """Return objects as rows of `COLUMNS`.

    Args:
        boxes: (n, 4) corners x1, y1, x2, y2 in pixels.
        labels: (n,) class numbers.
        crowd: (n,), or one for all.
        difficult: (n,), or one for all.
        area: (n,) in pixels²; that of the boxes if not given.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    rows = np.empty((len(corners), len(COLUMNS)))
    rows[:, :4] = corners
    rows[:, 4], rows[:, 5], rows[:, 6] = labels, crowd, difficult
    rows[:, 7] = (corners[:, 2:] - corners[:, :2]).prod(1) if area is None else area
    return rows


class Picture(ABC):
    """A picture, read when it is needed.

    `height` and `width` are in pixels, of the picture that its boxes were drawn on; both are known without reading.
    """

    __slots__ = ()

    height: int
    width: int

    @abstractmethod
    def read(self, channels: int) -> Tensor:
        """Return (channels, H, W) uint8, upright.

        Raises:
            BadSample: If it cannot be read.
        """

    def upright(self, boxes: Rows, height: int, width: int) -> Rows:
        """Return (n, 4) boxes on the picture that `read` gave, which has the given size.

        Raises:
            BadSample: If the picture has another size than its boxes were drawn on.
        """
        return boxes


@dataclass(slots=True)
class Annotated:
    """A picture with its objects.

    Args:
        picture: What is seen.
        objects: (n, 8) rows of `COLUMNS`; n may be 0. Every box lies in the picture and has an area above 0.
        source: Where it stands, such as a file's path, for messages and tables.
        number: The picture's id in the annotations, or its place.
    """

    picture: Picture
    objects: Rows
    source: str
    number: int


@dataclass
class Corpus:
    """All splits of annotated pictures.

    Args:
        classes: Class names; a label is a place in this list.
        splits: `train`, and `val` and `test` where the data have them.
        category_ids: The number of each class in COCO's JSON; 1, 2, ... if not given.
        notes: What was guessed, corrected or left out: a sentence each.
    """

    classes: Sequence[str]
    splits: dict[Split, list[Annotated]]
    category_ids: Sequence[int] | None = None
    notes: list[str] = field(default_factory=list)
