"""Pictures on disk with boxes: what every reader of annotations does with what it found."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import BadSamples, leave_out
from resdomains.training.folders import leaves, outside_notes
from resdomains.training.holding_out import held_out
from resdomains.vision import read_header, read_picture

from .annotations import Annotated, Corpus, Picture, Rows, objects

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_NAMED = 5
_ROUNDING = 0.05  # pixels; what numbers written with few decimals are off by

# What each EXIF orientation does to a point at x of width and y of height: swap the two first, then count x, or y, or
# both from the other end.
_TURNS: Mapping[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(slots=True)
class PictureFile(Picture):
    """A picture file.

    Args:
        path: The file.
        height: Pixels, as the annotations state it.
        width: Pixels, as the annotations state it.
    """

    path: str
    height: int
    width: int

    def __reduce__(self) -> tuple[Any, ...]:
        return PictureFile, (self.path, self.height, self.width)

    def read(self, channels: int) -> Tensor:
        return read_picture(self.path, channels)

    def upright(self, boxes: Rows, height: int, width: int) -> Rows:
        """Return (n, 4) boxes on the upright picture, which has the given size.

        Boxes that were drawn on a picture of that size stay. If instead they were drawn on the stored picture, whose
        sides EXIF's orientation swaps, they are turned with it. (An orientation that keeps the size, or a square
        picture, leaves no trace of which was meant: boxes are then taken to be of the upright picture, which is what
        viewers show.)

        Raises:
            BadSample: If the picture has another size than its boxes were drawn on.
        """
        if (height, width) == (self.height, self.width):
            return boxes
        if (width, height) == (self.height, self.width):
            orientation = read_header(self.path).orientation
            if orientation >= 5:
                return turned(boxes, self.height, self.width, orientation)
        raise BadSample(
            self.path,
            f"its boxes were drawn on {self.width} x {self.height} pixels (width x height), but the picture has "
            f"{width} x {height}",
        )


def turned(boxes: Rows, height: int, width: int, orientation: int) -> Rows:
    """Turn boxes with their picture.

    Args:
        boxes: (n, 4) corners x1, y1, x2, y2 in pixels.
        height: Of the picture as it is stored.
        width: Of the picture as it is stored.
        orientation: EXIF's, 1 to 8.
    """
    swap, across, down = _TURNS[orientation]
    x1, y1, x2, y2 = boxes.T
    if swap:
        x1, y1, x2, y2, height, width = y1, x1, y2, x2, width, height
    if across:
        x1, x2 = width - x2, width - x1
    if down:
        y1, y2 = height - y2, height - y1
    return np.stack((x1, y1, x2, y2), 1)


FLAWS = (
    "",
    "boxes reach out of their pictures and are clipped",
    "boxes have no height or no width and are left out",
    "boxes end before they begin and are left out",
    "boxes are not numbers and are left out",
    "boxes lie outside of their pictures and are left out",
)
"""What a box may be found to be, sound first. Of those from `DROPPED` on nothing is left."""
DROPPED = 2


def clipped(
    boxes: Rows, height: npt.ArrayLike, width: npt.ArrayLike
) -> tuple[Rows, npt.NDArray[np.intp]]:
    """Clip boxes to their pictures: x to [0, width], y to [0, height].

    A box is kept if it has an area above 0 after that, however small.

    Args:
        boxes: (n, 4) corners x1, y1, x2, y2 in pixels.
        height: (n,) of each box's picture, or one for all.
        width: (n,), or one for all.

    Returns:
        (n, 4) clipped boxes, and (n,) what each was: a place in `FLAWS`. Reaching out by up to 0.05 pixels, as rounded
        numbers do, is no flaw.
    """
    limit = np.stack(np.broadcast_arrays(width, height, len(boxes) * [0.0])[:2], -1)
    with np.errstate(invalid="ignore"):
        inside = boxes.clip(0.0, np.concatenate((limit, limit), -1))
        flaw = np.where(np.abs(inside - boxes).max(1, initial=0.0) > _ROUNDING, 1, 0)
        size, left = boxes[:, 2:] - boxes[:, :2], inside[:, 2:] - inside[:, :2]
    flaw[(left <= 0.0).any(1)] = 5
    flaw[(size == 0.0).any(1)] = 2
    flaw[(size < 0.0).any(1)] = 3
    flaw[~np.isfinite(boxes).all(1)] = 4
    return inside, flaw


class Stated(NamedTuple):
    """An object as a file states it.

    Args:
        mark: Where: a line, or an id.
        name: Its class.
        box: Corners x1, y1, x2, y2 in pixels.
        crowd: Whether it stands for many.
        difficult: Whether evaluation shall not count it.
        area: In pixels²; NaN for that of the box.
    """

    mark: int
    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    difficult: bool = False
    area: float = float("nan")


class Found(NamedTuple):
    """A picture with what a file states of it.

    Args:
        picture: The file and its size.
        stated: Its objects.
        where: What states them, below root.
        number: Its id.
    """

    picture: PictureFile
    stated: list[Stated]
    where: str
    number: int


class Listing:
    """The annotated pictures found below a folder, and what cannot be one.

    Args:
        root: The folder; messages name what is below it relative to it.
        naming: Names an object by what states it and its mark.
    """

    def __init__(self, root: Path, naming: str = "{where}:{mark}") -> None:
        self.root, self.naming = root, naming
        self.bad: list[BadSample] = []
        self.notes: list[str] = []
        self.found: dict[Split, list[Found]] = {}
        self._outside = dict[str, None]()

    def name(self, path: str | Path) -> str:
        """Return a path as notes show it: below `root`, if it is."""
        return str(path).removeprefix(f"{self.root}{os.sep}").replace(os.sep, "/")

    def add(
        self,
        split: Split,
        path: str | Path,
        size: tuple[int, int] | None,
        stated: list[Stated],
        *,
        where: str | Path,
        number: int | None = None,
    ) -> None:
        """Take up a picture.

        Args:
            split: What it is for.
            path: The file.
            size: Height and width that the annotations state; None to read those of the upright picture.
            stated: Its objects.
            where: The file that states them.
            number: Its id; its place in the split if not given.
        """
        found = self.found.setdefault(split, [])
        try:
            height, width = size if size is not None else upright_size(path)
        except BadSample as error:
            self.bad.append(error)
            return
        if Path(path).is_absolute() and leaves(self.root, path):
            self._outside[str(path)] = None
        place = len(found) + 1 if number is None else number
        picture = PictureFile(str(path), height, width)
        found.append(Found(picture, stated, self.name(where), place))

    def corpus(
        self,
        *,
        class_names: Sequence[str] | None,
        selected: bool,
        val_fraction: float,
        bad_samples: BadSamples,
        left_out: list[BadSample],
        category_ids: Mapping[str, int] | None = None,
    ) -> Corpus:
        """Return what was found.

        Args:
            class_names: The classes, in order; those of the training pictures, sorted, if not given.
            selected: Whether objects of other classes are left out; they are bad samples otherwise.
            val_fraction: Share of the training pictures that validates where none do.
            bad_samples: What to do with what cannot be used.
            left_out: Gets it, where it is skipped.
            category_ids: The number of each class in COCO's JSON.

        Raises:
            BadSample: If something cannot be used and must not be skipped.
            ValueError: If nothing is left to train on, or a class is in no training picture.
        """
        trained = {x.name for found in self.found.get("train", []) for x in found.stated}
        classes = list(class_names) if class_names is not None else sorted(trained)
        labels = {name: label for label, name in enumerate(classes)}
        if selected:
            missing = [name for name in classes if name not in trained]
            if missing:
                raise ValueError(
                    f"class_names: no training picture in {self.root} has {', '.join(missing)}; it has "
                    f"{', '.join(sorted(trained)) or 'no object'}"
                )
        self._select(labels, selected)
        leave_out(self.bad, bad_samples, left_out)
        if not self.found.get("train"):
            why = f"; {len(self.bad):,} cannot be used, such as {self.bad[0]}" if self.bad else ""
            raise ValueError(f"root: {self.root} has no pictures to train on{why}")
        self.notes += outside_notes(self._outside)
        if not classes:
            raise ValueError(
                f"root: none of the {len(self.found['train']):,} training pictures in {self.root} has an object"
            )
        if not self.found.get("val"):
            self._hold_out(val_fraction)
            if not self.found.get("train"):
                raise ValueError(
                    f"val_fraction: {val_fraction} of {len(self.found['val']):,} pictures leaves none to train on"
                )
        self._say_shared()
        splits = {split: self._checked(split, labels) for split in SPLITS if self.found.get(split)}
        ids = [category_ids[name] for name in classes] if category_ids is not None else None
        return Corpus(classes, splits, ids, self.notes)

    def _select(self, labels: Mapping[str, int], selected: bool) -> None:
        """Leave out the objects of other classes, or the pictures that have one."""
        others = Counter[str]()
        for split, pictures in self.found.items():
            kept = []
            for found in pictures:
                strange = [x for x in found.stated if x.name not in labels]
                if not strange:
                    kept.append(found)
                elif selected:
                    others.update(x.name for x in strange)
                    known = [x for x in found.stated if x.name in labels]
                    kept.append(found._replace(stated=known))
                else:
                    self.bad.append(
                        BadSample(
                            self._object(found, strange[0]),
                            f"unknown class {strange[0].name!r}; the training pictures have {shortly(list(labels))}",
                        )
                    )
            self.found[split] = kept
        if others:
            said = ", ".join(f"{name} ({count:,})" for name, count in others.most_common(_NAMED))
            self.notes.append(
                f"{others.total():,} objects of classes that class_names does not list are left out: {said}"
                f"{', ...' if len(others) > _NAMED else ''}"
            )

    def _hold_out(self, share: float) -> None:
        """Let a share of the training pictures validate, by a hash of the files' names without suffixes."""
        train = self.found.pop("train")
        names = [_without_suffix(self.name(found.picture.path)) for found in train]
        for chosen, found in zip(held_out(names, share), train, strict=True):
            self.found.setdefault(chosen, []).append(found)
        if self.found.get("val"):
            self.notes.append(
                f"of {len(train):,} pictures {len(self.found['val']):,} validate, chosen by a hash of the file's name"
            )

    def _say_shared(self) -> None:
        """Say which pictures train and are evaluated too."""
        train = {found.picture.path for found in self.found["train"]}
        for split in SPLITS[1:]:
            found = self.found.get(split, [])
            both = sum(x.picture.path in train for x in found)
            if both:
                self.notes.append(
                    f"{both:,} of {len(found):,} pictures in {split} are also in train"
                )

    def _checked(self, split: Split, labels: Mapping[str, int]) -> list[Annotated]:
        """Return a split's pictures with those of their boxes that can be used, and say which cannot."""
        pictures = self.found[split]
        stated = [x for found in pictures for x in found.stated]
        owner = np.repeat(np.arange(len(pictures)), [len(found.stated) for found in pictures])
        sizes = np.array([(x.picture.height, x.picture.width) for x in pictures], np.float64)
        boxes = np.array([x.box for x in stated], np.float64).reshape(-1, 4)
        boxes, flaw = clipped(boxes, *sizes[owner].T)
        for kind in range(1, len(FLAWS)):
            places = np.flatnonzero(flaw == kind)
            if len(places):
                first = [self._object(pictures[owner[i]], stated[i]) for i in places[:_NAMED]]
                self.notes.append(
                    f"{split}: {len(places):,} of {len(stated):,} {FLAWS[kind]}: {', '.join(first)}"
                    f"{', ...' if len(places) > _NAMED else ''}"
                )
        keep = flaw < DROPPED
        rows = objects(
            boxes,
            [labels[x.name] for x in stated],
            [x.crowd for x in stated],
            [x.difficult for x in stated],
        )
        area = np.array([x.area for x in stated])
        rows[:, 7] = np.where(area > 0.0, area, rows[:, 7])
        ends = np.cumsum(np.bincount(owner[keep], minlength=len(pictures)))
        parts = np.split(rows[keep], ends[:-1])
        return [
            Annotated(found.picture, part, found.picture.path, found.number)
            for found, part in zip(pictures, parts, strict=True)
        ]

    def _object(self, found: Found, stated: Stated) -> str:
        return self.naming.format(where=found.where, mark=stated.mark)


def upright_size(path: str | Path) -> tuple[int, int]:
    """Return a picture's height and width in pixels as it stands upright, from the file's header.

    Raises:
        BadSample: If it cannot be read.
    """
    height, width, orientation = read_header(path)
    return (width, height) if orientation >= 5 else (height, width)


class Folders:
    """The files of folders, each listed once: asking the disk for every file takes long over a network."""

    def __init__(self) -> None:
        self._listed: dict[str, frozenset[str]] = {}

    def files(self, folder: str | Path) -> frozenset[str]:
        """Return the names of a folder's files; there are none in one that does not exist."""
        key = str(folder)
        if key not in self._listed:
            try:
                with os.scandir(key) as entries:
                    found = frozenset(entry.name for entry in entries if entry.is_file())
            except (OSError, ValueError):  # ValueError: a name with a NUL
                found = frozenset()
            self._listed[key] = found
        return self._listed[key]


def _without_suffix(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return stem if stem and "/" not in suffix else name


def shortly(names: Sequence[str]) -> str:
    """Return the first of some names."""
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
