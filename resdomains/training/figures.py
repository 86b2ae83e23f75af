"""Figures that every run has, and how figures and tables reach the run folder and W&B."""

import csv
import math
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor

from resdomains import schema
from resdomains.training.weights_and_biases import WandbRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

Frame = npt.NDArray[np.uint8]
"""A picture of a film, (H, W, 3)."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A cell of a table that can be listened to.

    Args:
        samples: (L,) of -1 to 1; a sound that is louder anywhere is made softer as a whole, and what is no finite
            number is silence.
        rate: Samples a second, in Hz.

    Raises:
        ValueError: If the samples are no single channel or the rate is below 1.
    """

    samples: Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1:
            raise ValueError(
                f"samples must be one channel (L,), got {tuple(self.samples.shape)}; mix channels down first"
            )
        if self.rate < 1:
            raise ValueError(f"rate must be at least 1 Hz, got {self.rate}")

    def write(self, path: Path) -> None:
        """Write a WAV file of 16 bits a sample."""
        samples = self.samples.detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
        peak = max(float(samples.abs().max()), 1.0) if len(samples) else 1.0
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes((samples * (32767 / peak)).round().numpy().astype("<i2").tobytes())


class Box(NamedTuple):
    """A box on a picture.

    Args:
        corners: x1, y1, x2, y2 in pixels; (0, 0) is the upper left corner of the upper left pixel.
        label: The place of its class in the picture's `classes`.
        score: How sure a prediction is; None for what is known.
    """

    corners: Sequence[float]
    label: int
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Boxed:
    """A picture with boxes: a file in the run folder, and in W&B layers of boxes that are switched on and off.

    Args:
        drawn: (3, H, W) uint8, what is saved: the picture with the boxes drawn, or what there is beside what was found.
        pixels: (1, H, W) or (3, H, W) uint8, the picture without boxes.
        layers: For each layer's name, such as `truth`, its boxes in pixels of `pixels`.
        classes: Class names.

    Raises:
        ValueError: If a picture has another shape or type, or a box no four corners or a label that has no name.
    """

    drawn: Tensor
    pixels: Tensor
    layers: Mapping[str, Sequence[Box]]
    classes: Sequence[str]

    def __post_init__(self) -> None:
        for name, allowed in (("drawn", (3,)), ("pixels", (1, 3))):
            picture: Tensor = getattr(self, name)
            if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) not in allowed:
                raise ValueError(
                    f"{name} must be ({' or '.join(map(str, allowed))}, H, W) uint8, "
                    f"got {tuple(picture.shape)} {str(picture.dtype).removeprefix('torch.')}"
                )
        for name, boxes in self.layers.items():
            for box in boxes:
                if len(box.corners) != 4 or not 0 <= box.label < len(self.classes):
                    raise ValueError(
                        f"layers: a box of {name!r} needs x1, y1, x2, y2 and a label below "
                        f"{len(self.classes)}, got {box}"
                    )


class NoFilm(RuntimeError):
    """Why there is no film; a run goes on without one and says so."""


_MOST_FRAMES = 150
_FILM_SIDE = 320  # pixels
_SHORTEST = 2  # hundredths of a second: browsers show a GIF's frames that are shorter for a tenth
_HELD = 100  # hundredths of a second, of the last frame, before a film begins again
_COLOURED_BY = 16  # frames
_EXACT, _MIXED = 64, 191  # colours of 255, and one that GIF needs
_APART = 11  # of 255: PIL looks colours up in cells of 4 levels, and may take either of two that are nearer


class Film:
    """Moving pictures, such as an episode that a policy plays: a GIF in the run folder, and a player in W&B.

    It keeps at most 150 frames, evenly spaced, and the last; it runs as fast as what was filmed. Frames of more than
    320 pixels a side are made smaller by a whole factor, those of less than 160 larger.

    Args:
        rate: How often a second `take` is told of a frame, in Hz.
        expected: About how many frames will come, if that is known: then hardly any are drawn in vain.

    Raises:
        ValueError: If the rate is not above 0.
    """

    def __init__(self, rate: float, expected: int = 0) -> None:
        if not 0 < rate < math.inf:
            raise ValueError(f"rate must be above 0 Hz, got {rate}")
        self.rate = rate
        self._every = max(math.ceil(rate * _SHORTEST / 100), -(-expected // _MOST_FRAMES))
        self._told = 0
        self._kept: dict[int, Image] = {}
        self._shape: tuple[int, ...] | None = None

    def take(self, draw: Callable[[], Frame], last: bool = False) -> None:
        """Take the next frame; which of them are kept shows as they come, so that the others need not be drawn.

        Args:
            draw: Returns (H, W, 3) uint8.
            last: Whether it must be kept, as the last.

        Raises:
            ValueError: If the frame has another shape or type, or another size than the first.
        """
        number = self._told
        self._told += 1
        wanted = last or number % self._every == 0
        if wanted and len(self._kept) == _MOST_FRAMES:
            self._every *= 2
            self._kept = {n: image for n, image in self._kept.items() if n % self._every == 0}
        if last or number % self._every == 0:
            self._kept[number] = self._sized(draw())

    def _sized(self, frame: Frame) -> "Image":
        from PIL import Image

        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"a frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        if self._shape not in (None, frame.shape):
            raise ValueError(
                f"all frames must have the first one's shape {self._shape}, got {frame.shape}"
            )
        self._shape = frame.shape
        image = Image.fromarray(frame)
        side = max(image.size)
        if side > _FILM_SIDE:
            return image.reduce(-(-side // _FILM_SIDE))
        larger = _FILM_SIDE // side
        return image.resize((image.width * larger, image.height * larger), Image.Resampling.NEAREST)

    @property
    def times(self) -> list[float]:
        """When each frame that is kept was taken, in seconds since the first."""
        return [number / self.rate for number in self._kept]

    def write(self, path: Path) -> None:
        """Write a GIF, in a folder that is made if need be.

        Raises:
            NoFilm: If no frame was taken.
        """
        from PIL import Image

        if not self._kept:
            raise NoFilm("no frame was taken")
        frames = list(self._kept.values())
        palette = _palette(frames[:: -(-len(frames) // _COLOURED_BY)])
        first, *others = (
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
        )
        ends = [round(100 * time) for time in self.times]
        lengths = [max(b - a, _SHORTEST) for a, b in pairwise(ends)]
        path.parent.mkdir(parents=True, exist_ok=True)
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=[10 * length for length in (*lengths, _HELD)],
            loop=0,
            optimize=False,
        )


def _palette(frames: "Sequence[Image]") -> "Image":
    """One palette for a whole film: with one a frame, still ground flickers.

    The most frequent colours are as they are, lest white ground be tinged; the others are means (median cut).
    """
    from PIL import Image

    width, height = frames[0].size
    pattern = Image.new("RGB", (width, height * len(frames)))
    for place, frame in enumerate(frames):
        pattern.paste(frame, (0, place * height))
    counted = pattern.getcolors(pattern.width * pattern.height) or []
    exact = [colour for _, colour in sorted(counted, reverse=True)[:_EXACT]]
    mixed = pattern.quantize(_MIXED, method=Image.Quantize.MEDIANCUT).getpalette() or []
    wanted = np.concatenate([np.array(exact), np.array(mixed[: 3 * _MIXED]).reshape(-1, 3)])
    kept = wanted[:1]
    for colour in wanted[1:]:
        if np.abs(kept - colour).max(1).min() >= _APART:
            kept = np.vstack([kept, colour])
    palette = Image.new("P", (1, 1))
    palette.putpalette(kept.flatten().tolist())
    return palette


def log_film(loggers: Iterable[Logger], film: Film, path: Path) -> None:
    """Save a film as GIF and send it to W&B as `media/<name>`.

    Raises:
        NoFilm: If no frame was taken.
    """
    film.write(path)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_video(f"media/{path.stem}", [str(path)], format=["gif"])


def read_curve(path: Path, x: str, y: str) -> tuple[list[float], list[float]]:
    """Read the points of a run's `metrics.csv` at which both columns have a value."""
    xs, ys = [], []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get(x) and row.get(y):
                xs.append(float(row[x]))
                ys.append(float(row[y]))
    return xs, ys


def learning_curves(metrics: Path, monitor: str = schema.VAL_SCORE) -> "Figure | None":
    """Draw loss and the monitored result over samples seen; None where nothing was logged."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    curves = {
        name: read_curve(metrics, schema.SAMPLES, name)
        for name in (schema.TRAIN_LOSS, schema.VAL_LOSS, monitor)
    }
    if not any(xs for xs, _ in curves.values()):
        return None
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in ((schema.TRAIN_LOSS, "0.55"), (schema.VAL_LOSS, "tab:blue")):
        if curves[name][0]:
            left.plot(
                *curves[name],
                color=colour,
                label=name,
                marker="." if len(curves[name][0]) < 30 else "",
            )
    left.set(xlabel="training samples seen", ylabel="loss", title="Loss")
    if left.lines:
        left.legend(frameon=False)
    xs, ys = curves[monitor]
    if xs:
        right.plot(xs, ys, color="tab:blue", marker="." if len(xs) < 30 else "")
        # The later of equals, as in best.ckpt.
        best = max(reversed(range(len(ys))), key=ys.__getitem__)
        right.plot(xs[best], ys[best], "o", color="tab:orange")
        early = xs[best] < (xs[0] + xs[-1]) / 2
        right.annotate(
            f"best {ys[best]:.4f}",
            (xs[best], ys[best]),
            textcoords="offset points",
            xytext=(6 if early else -6, -14),
            ha="left" if early else "right",
        )
    title = f"Validation {monitor.partition('/')[2]}"
    right.set(xlabel="training samples seen", ylabel=monitor, title=title)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_over_samples(loggers: Iterable[Logger], names: Iterable[str]) -> None:
    """Let W&B draw values over the training samples seen; may be said again, and before a name's first value."""
    for logger in loggers:
        if isinstance(logger, WandbRecord):
            logger.plot_over_samples(names)


def log_figure(loggers: Iterable[Logger], figure: "Figure", path: Path) -> None:
    """Save a figure as PNG and send it to W&B as `media/<name>`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=f"media/{path.stem}", images=[str(path)])


_GAP = 8  # pixels between pictures


def write_png(picture: Tensor, path: Path) -> None:
    """Write a (3, H, W) uint8 picture as PNG, in a folder that is made if need be."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(path)


def sheet(pictures: Sequence[Tensor]) -> Tensor:
    """Lay (3, H, W) uint8 pictures of any sizes out on white, in rows that make the sheet about as high as wide."""
    height = max(picture.shape[1] for picture in pictures) + _GAP
    width = max(picture.shape[2] for picture in pictures) + _GAP
    columns = min(
        range(1, len(pictures) + 1),
        key=lambda n: max(n * width, -(-len(pictures) // n) * height),
    )
    rows = -(-len(pictures) // columns)
    whole = torch.full((3, rows * height - _GAP, columns * width - _GAP), 255, dtype=torch.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // columns * height, place % columns * width
        whole[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return whole


def log_boxed(loggers: Iterable[Logger], pictures: Sequence[Boxed], path: Path, name: str) -> None:
    """Save the drawn pictures on one sheet as PNG, and send them to W&B as `media/<name>` with boxes to switch.

    No pictures, no file. W&B shows the pictures of a name at one size, so smaller ones are padded with black.
    """
    if not pictures:
        return
    write_png(sheet([picture.drawn for picture in pictures]), path)
    height, width = (max(picture.pixels.shape[axis] for picture in pictures) for axis in (1, 2))
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            shown = []
            for picture in pictures:
                canvas = torch.zeros(3, height, width, dtype=torch.uint8)
                canvas[:, : picture.pixels.shape[1], : picture.pixels.shape[2]] = picture.pixels
                shown.append(canvas.permute(1, 2, 0).numpy())
            logger.log_image(
                f"media/{name}", shown, boxes=[_layers(picture) for picture in pictures]
            )


def _layers(picture: Boxed) -> dict[str, Any]:
    """The layers as W&B takes them."""
    names = dict(enumerate(picture.classes))
    return {
        layer: {"box_data": [_box(box, names) for box in boxes], "class_labels": names}
        for layer, boxes in picture.layers.items()
    }


def _box(box: Box, names: Mapping[int, str]) -> dict[str, Any]:
    sides = ("minX", "minY", "maxX", "maxY")
    name, scores = names[box.label], {}
    if box.score is not None:
        name, scores = f"{name} {box.score:.2f}", {"score": float(box.score)}
    return {
        "position": dict(zip(sides, (round(corner) for corner in box.corners), strict=True)),
        "domain": "pixel",
        "class_id": box.label,
        "box_caption": name,
        **({"scores": scores} if scores else {}),
    }


def log_table(loggers: Iterable[Logger], rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Save rows of the same keys as CSV and send them to W&B as `tables/<name>`; no rows, no table.

    A `Sound` becomes a file in a folder beside the CSV, of the CSV's name without suffix, whose path from the CSV the
    cell holds; in W&B it is a player.
    """
    if not rows:
        return
    found = dict.fromkeys(c for row in rows for c in row.values() if isinstance(c, Sound))
    files = {sound: f"{path.stem}/{number:02d}.wav" for number, sound in enumerate(found)}
    for sound, file_name in files.items():
        sound.write(path.parent / file_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(_shown(row, lambda sound: files[sound]) for row in rows)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            from wandb import Audio

            played = [_shown(row, lambda s: Audio(path.parent / files[s])) for row in rows]
            logger.log_table(
                key=f"tables/{path.stem}",
                columns=list(rows[0]),
                data=[list(row.values()) for row in played],
            )


def _shown(row: Mapping[str, Any], sound: Callable[[Sound], Any]) -> dict[str, Any]:
    return {name: sound(cell) if isinstance(cell, Sound) else cell for name, cell in row.items()}
