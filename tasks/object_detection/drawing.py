"""Pictures with their boxes drawn, to be read at any size."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

if TYPE_CHECKING:
    from .fcos import Found

_WIDE = 480  # pixels that the longer side of a picture should have for labels to fit
_LARGEST = 16
_CELL = 640  # pixels of the longer side of a picture on a sheet
_GAP = 8
_LONGEST = 20  # letters of a class name
_COLOURS = 100
_WEIGHTS = (0.299, 0.587, 0.114)  # how bright red, green and blue look

Corners = tuple[int, int, int, int]
Colour = tuple[int, int, int]


def enlargement(height: int, width: int) -> int:
    """Return the whole factor by which `draw` enlarges a picture, so that labels can be read: 1 from 480 pixels on."""
    return min(max(1, math.ceil(_WIDE / max(height, width))), _LARGEST)


def colour_of(label: int) -> Colour:
    """Return the colour of a class, (red, green, blue) of 0 to 255, the same in all pictures."""
    colours = _palette()
    return colours[label % len(colours)]


@cache
def _palette() -> list[Colour]:
    """Return vivid colours; each next one is the furthest from all before."""
    levels = range(0, 256, 51)
    mixed = [(red, green, blue) for red, green, blue in product(levels, repeat=3)]
    vivid = [c for c in mixed if max(c) - min(c) > 100 and max(c) > 150]
    seen = np.sqrt(_WEIGHTS) * vivid
    chosen = [vivid.index((255, 0, 0))]
    nearest = np.full(len(vivid), np.inf)
    while len(chosen) < _COLOURS:
        nearest = np.minimum(nearest, np.linalg.norm(seen - seen[chosen[-1]], axis=1))
        chosen.append(int(nearest.argmax()))
    return [vivid[i] for i in chosen]


def draw(
    picture: Tensor,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None,
    classes: Sequence[str],
) -> Tensor:
    """Draw boxes with the names of their classes and their scores.

    A name stands where it hides no other one; where no room is left in the picture only the colour tells the class.

    Args:
        picture: (C, H, W) uint8, 1 or 3 channels.
        boxes: (n, 4) corners x1, y1, x2, y2 in pixels.
        labels: (n,) class numbers.
        scores: (n,), or None. The highest is drawn on top.
        classes: Class names.

    Returns:
        (3, f H, f W) uint8, where f is `enlargement(H, W)`.

    Raises:
        ValueError: If the picture has another shape or type.
    """
    if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) not in (1, 3):
        raise ValueError(
            f"picture must be (1 or 3, H, W) uint8, got {tuple(picture.shape)} {picture.dtype}"
        )
    factor = enlargement(*picture.shape[-2:])
    large = picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    image = _image(large.expand(3, -1, -1))
    canvas = ImageDraw.Draw(image)
    scale = math.sqrt(image.width * image.height)
    line = max(1, round(scale / 280))
    limits = torch.tensor([image.width, image.height] * 2)
    corners = (boxes.detach().cpu().double().nan_to_num(0.0) * factor).clamp(min=0).minimum(limits)
    order = range(len(labels)) if scores is None else scores.argsort(descending=True).tolist()
    numbers = labels.tolist()
    drawn = {i: _pixels(corners[i].tolist(), image.size) for i in order}
    for i in reversed(order):
        _outline(canvas, drawn[i], colour_of(numbers[i]), line)
    names = _Names(canvas, image.size, _font(max(11, round(scale / 45))))
    for i in order:
        name = _plain(classes[numbers[i]])
        texts = [name] if scores is None else [f"{name} {float(scores[i]):.2f}", name]
        names.write(texts, drawn[i], colour_of(numbers[i]))
    return _tensor(image)


def side_by_side(picture: Tensor, truth: "Found", found: "Found", classes: Sequence[str]) -> Tensor:
    """Draw what there is beside what was found, under headings; of a wide picture above it.

    Args:
        picture: (C, H, W) uint8, 1 or 3 channels.
        truth: What there is, in pixels of the picture; its scores are not shown.
        found: What was found.
        classes: Class names.

    Returns:
        (3, H', W') uint8.
    """
    left = draw(picture, truth.boxes, truth.labels, None, classes)
    right = draw(picture, found.boxes, found.labels, found.scores, classes)
    _, height, width = left.shape
    font = _font(max(13, round(math.sqrt(height * width) / 36)))
    band = round(1.6 * font.size)
    above = width > 2 * height
    size = (width, 2 * (height + band)) if above else (2 * width + _GAP, height + band)
    sheet = Image.new("RGB", size, "white")
    canvas = ImageDraw.Draw(sheet)
    for place, (half, heading) in enumerate(
        ((left, f"truth: {len(truth.labels)}"), (right, f"found: {len(found.labels)}"))
    ):
        x, y = (0, place * (height + band)) if above else (place * (width + _GAP), 0)
        canvas.text((x + 2, y + band / 2), heading, "black", font, anchor="lm")
        sheet.paste(_image(half), (x, y + band))
    return _tensor(sheet)


def contact_sheet(pictures: Sequence[Tensor]) -> Tensor:
    """Lay pictures out in rows on one, shrinking those with more than 640 pixels a side.

    Args:
        pictures: Each (3, H, W) uint8, at least one.

    Returns:
        (3, H', W') uint8.

    Raises:
        ValueError: If there is no picture.
    """
    if not pictures:
        raise ValueError("pictures must be at least one, got none")
    images = [_image(picture) for picture in pictures]
    for image in images:
        image.thumbnail((_CELL, _CELL))
    columns = math.ceil(math.sqrt(len(images)))
    rows = [images[begin : begin + columns] for begin in range(0, len(images), columns)]
    widths = [max(row[i].width for row in rows if i < len(row)) for i in range(columns)]
    heights = [max(image.height for image in row) for row in rows]
    size = (sum(widths) + _GAP * (columns + 1), sum(heights) + _GAP * (len(rows) + 1))
    sheet = Image.new("RGB", size, "white")
    y = _GAP
    for row, height in zip(rows, heights, strict=True):
        x = _GAP
        for image, width in zip(row, widths, strict=False):
            sheet.paste(image, (x, y))
            x += width + _GAP
        y += height + _GAP
    return _tensor(sheet)


class _Names:
    """Names on a picture, none of which hides another one."""

    def __init__(
        self,
        canvas: ImageDraw.ImageDraw,
        size: tuple[int, int],
        font: ImageFont.FreeTypeFont,
    ) -> None:
        self.canvas, self.size, self.font = canvas, size, font
        self.taken = np.empty((0, 4))
        self.ascent, descent = font.getmetrics()
        self.height, self.edge = self.ascent + descent, max(1, round(font.size / 8))

    def write(self, texts: Sequence[str], box: Corners, colour: Colour) -> None:
        """Write the first text that fits somewhere at a box."""
        for text in texts:
            width = math.ceil(self.font.getlength(text)) + 2 * self.edge
            for x, y in self._places(box, width):
                place = (x, y, x + width, y + self.height)
                if self._free(place):
                    self.taken = np.concatenate((self.taken, [place]))
                    self.canvas.rectangle((x, y, place[2] - 1, place[3] - 1), colour)
                    ink = "black" if _lightness(colour) > 0.45 else "white"
                    self.canvas.text((x + self.edge, y), text, ink, self.font)
                    return

    def _places(self, box: Corners, width: int) -> Iterator[tuple[int, int]]:
        """Yield upper left corners: above the box, below, within, at its left or right."""
        left, top, right, bottom = box
        left, right = min(left, self.size[0] - width), right + 1 - width
        for y in (top - self.height, bottom + 1, top, bottom + 1 - self.height):
            yield left, y
            yield right, y
        yield box[2] + 1, top
        yield box[0] - width, top

    def _free(self, place: Corners) -> bool:
        left, top, right, bottom = place
        if left < 0 or top < 0 or right > self.size[0] or bottom > self.size[1]:
            return False
        a = self.taken
        return not bool(
            ((a[:, 0] < right) & (a[:, 2] > left) & (a[:, 1] < bottom) & (a[:, 3] > top)).any()
        )


def _outline(canvas: ImageDraw.ImageDraw, box: Corners, colour: Colour, line: int) -> None:
    """Draw a rectangle with a dark edge, to be seen on any ground."""
    left, top, right, bottom = box
    canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=line + 2)
    canvas.rectangle(box, outline=colour, width=line)


def _pixels(box: Sequence[float], size: tuple[int, int]) -> Corners:
    """Return the first and the last pixel that a box touches, at least one."""
    (x1, y1, x2, y2), (width, height) = box, size
    left, top = min(math.floor(x1), width - 1), min(math.floor(y1), height - 1)
    return left, top, max(math.ceil(x2) - 1, left), max(math.ceil(y2) - 1, top)


def _lightness(colour: Colour) -> float:
    return float(np.dot(_WEIGHTS, colour)) / 255


def _plain(name: str) -> str:
    """Make a name one line of at most 20 letters."""
    one_line = "".join(c if c.isprintable() else " " for c in name)
    return one_line if len(one_line) <= _LONGEST else one_line[: _LONGEST - 1] + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib carries a font that knows many alphabets; what it lacks is drawn as a box.
    return ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size
    )


def _image(picture: Tensor) -> Image.Image:
    pixels: npt.NDArray[np.uint8] = picture.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels)


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
