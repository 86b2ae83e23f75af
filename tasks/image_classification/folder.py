"""Picture files in folders by class, or listed with their labels in a CSV or JSON-lines file."""

import copy
import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import (
    ADVICE,
    BadSamples,
    check_bad_samples,
    leave_out,
    left_out_notes,
)
from resdomains.training.batches import Batches, Stamped
from resdomains.training.file_checks import unreadable
from resdomains.training.folders import existing_folder, leaves, outside_notes
from resdomains.training.holding_out import check_fractions, held_out
from resdomains.training.randomness import uniforms
from resdomains.vision import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    find_pictures,
    read_picture,
    resize,
)

from .augment import Augment
from .data import ImageData
from .fitting import fit
from .spec import ImageSpec

_SPLITS = ("train", "val", "test")
_SEPARATOR = "|"
_LONGEST = 200  # characters of a wrong value that a message shows
_HALF = re.compile("[\ud800-\udfff]")  # bytes that are no UTF-8, or half a character of JSON


class RandomResizedCrop:
    """Cut out a random part of a picture and resize it (Szegedy et al. 2015, as torchvision computes it).

    Args:
        scale: Smallest and largest share of the picture's area.
        ratio: Smallest and largest width divided by height.
    """

    _TRIES = 10
    draws = 2 * _TRIES + 2

    def __init__(
        self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        if len(scale) != 2 or not 0.0 < scale[0] <= scale[1] <= 1.0:
            raise ValueError(f"scale must be two rising shares in (0, 1], got {list(scale)}")
        if len(ratio) != 2 or not 0.0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio must be two rising positive numbers, got {list(ratio)}")
        self.scale, self.ratio = scale, ratio

    def box(self, height: int, width: int, u: Sequence[float]) -> tuple[int, int, int, int]:
        """Choose a part of a picture.

        Args:
            height: Of the picture.
            width: Of the picture.
            u: `draws` numbers in [0, 1).

        Returns:
            Top, left, height and width of the part, in pixels. If none of ten fits, the middle, at the nearest ratio.
        """
        low, high = (math.log(r) for r in self.ratio)
        for i in range(self._TRIES):
            area = height * width * (self.scale[0] + u[2 * i] * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + u[2 * i + 1] * (high - low))
            wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                return int(u[-2] * (height - tall + 1)), int(u[-1] * (width - wide + 1)), tall, wide
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        wide, tall = (
            max(1, min(width, round(height * ratio))),
            max(1, min(height, round(width / ratio))),
        )
        return (height - tall) // 2, (width - wide) // 2, tall, wide


@dataclass
class _Listed:
    """A file and its labels; `where` names the line or folder that says so."""

    file: str
    labels: list[str]
    split: str | None
    where: str


class _Files(Dataset[Any]):
    """A split's files, decoded and cut to size when asked for, a whole batch at a time.

    A training sample is asked for as `epoch * len + index`, because loader processes that live through several
    epochs learn the epoch in no other way.

    Args:
        files: Paths.
        targets: (N,) class numbers or (N, K) multi-hot.
        spec: The size wanted.
        crop: How training pictures are cut; None for evaluation.
        seed: Seed of the cut.
    """

    def __init__(
        self,
        files: Sequence[str],
        targets: Tensor,
        spec: ImageSpec,
        crop: RandomResizedCrop | None = None,
        seed: int = 0,
    ) -> None:
        # One array: a list's reference counts would make each loader process copy the memory it shares.
        self._files = np.array([os.fsencode(name) for name in files], dtype=np.bytes_)
        self.targets, self.spec, self.crop, self.seed = targets, spec, crop, seed

    def __len__(self) -> int:
        return len(self._files)

    def file(self, index: int) -> str:
        """Return a sample's path."""
        return os.fsdecode(self._files[index])

    def _picture(self, index: int, u: Sequence[float]) -> Tensor:
        image = read_picture(self.file(index), self.spec.channels)
        if self.crop is None:
            return fit(image, self.spec)
        top, left, tall, wide = self.crop.box(image.shape[1], image.shape[2], u)
        part = image[:, top : top + tall, left : left + wide]
        return resize(part, self.spec.height, self.spec.width, self.spec.interpolation)

    def __getitem__(self, stamped: int) -> dict[str, Any]:
        return self.__getitems__([stamped])

    def __getitems__(self, stamped: Sequence[int]) -> dict[str, Any]:
        """Return a batch, or `{"bad": [(file, reason), ...]}`.

        An exception from a loader process would arrive as a traceback in text; `ImageFolder.transform` raises instead.
        """
        numbers = torch.as_tensor(stamped)
        epoch, index = int(numbers[0]) // len(self), numbers % len(self)
        draws = 0 if self.crop is None else self.crop.draws
        u = uniforms(self.seed, epoch, index, draws).tolist()
        images, bad = [], []
        for place, numbers_drawn in zip(index.tolist(), u, strict=True):
            try:
                images.append(self._picture(place, numbers_drawn))
            except BadSample as error:
                bad.append((error.source, error.reason))
        if bad:
            return {"bad": bad}
        batch = torch.empty(len(images), *images[0].shape, dtype=torch.uint8)
        batch = batch.contiguous(memory_format=torch.channels_last)
        return {
            "image": torch.stack(images, out=batch),
            "target": self.targets[index],
            "index": index,
        }


class ImageFolder(ImageData):
    """Picture files on disk, decoded as they are needed.

    Three layouts are read:

    - `root/train/CLASS/*`, with `root/val/CLASS/*` and `root/test/CLASS/*` if there are any. Without `val`, a part of
      the training files validates.
    - `root/CLASS/*`: each class is split in training, validation and test files.
    - With `labels`, a CSV file with a header, or JSON lines, with the keys `file` (below root), `label` (one class) or
      `labels` (any number: a list, or in CSV names with `|` between) and, if wanted, `split` (train, val, test).

    Files are held out by a hash of their name, so a split does not change with the machine or the order of the files.

    Args:
        root: The folder.
        batch_size: Samples of a batch over all processes together.
        labels: The CSV or JSON-lines file, below root; None if folders are the classes.
        class_names: The classes, in order; if not given, those found, sorted.
        size: Height and width of the prepared picture, in pixels.
        channels: 3 for colour, 1 for grey.
        mean: Mean of each channel in [0, 1]; ImageNet's if not given.
        std: Standard deviation of each channel; ImageNet's if not given.
        crop: How training pictures are cut out.
        crop_pct: In evaluation, the share of the resized picture that is kept, its middle.
        interpolation: `bilinear` or `bicubic`.
        val_fraction: Share of the files that validates, where the data do not say which.
        test_fraction: Share of the files that tests, where the data do not say which.
        bad_samples: `refuse` stops at a file that cannot be read and names it. `skip` reads every file once before
            training (the result is kept until a file changes), names those that fail and leaves them out.
        augment: Random changes of training batches, in order.
        balance: How far classes are drawn equally often, from 0 to 1.
        num_workers: Loader processes; decoding is slow, so about one for each core.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        labels: str | None = None,
        class_names: list[str] | None = None,
        size: int = 224,
        channels: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        crop: RandomResizedCrop | None = None,
        crop_pct: float = 0.875,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        bad_samples: BadSamples = "refuse",
        augment: list[Augment] | None = None,
        balance: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            augment=augment,
            balance=balance,
            num_workers=num_workers,
            seed=seed,
        )
        check_fractions(val_fraction, test_fraction)
        check_bad_samples(bad_samples)
        self.root, self.labels, self.class_names = root, labels, class_names
        self.size, self.channels = size, channels
        self.mean = (
            list(mean) if mean is not None else list(IMAGENET_MEAN if channels == 3 else GREY_MEAN)
        )
        self.std = (
            list(std) if std is not None else list(IMAGENET_STD if channels == 3 else GREY_STD)
        )
        self.crop = crop if crop is not None else RandomResizedCrop()
        self.crop_pct, self.interpolation = crop_pct, interpolation
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.bad_samples = bad_samples
        self.left_out: list[BadSample] = []
        """The files and lines that `skip` left out, each with the reason."""
        self._outside: list[str] = []
        self._splits: dict[str, _Files] = {}
        self._spec: ImageSpec | None = None

    def prepare(self) -> None:
        """List the files and their labels; with `skip`, read every file once."""
        root = existing_folder(self.root)
        multilabel = False
        if self.labels is None:
            listed = _by_folder(root)
        else:
            listed, multilabel, bad = _by_list(root, self.labels)
            leave_out(bad, self.bad_samples, self.left_out)
            self._outside = [x.file for x in listed if leaves(root, x.file)]
        if self.bad_samples == "skip":
            listed = self._readable(listed)
        _hold_out(listed, root, self.val_fraction, self.test_fraction, multilabel)
        parts = {split: [x for x in listed if x.split == split] for split in _SPLITS}
        if not parts["train"]:
            why = "; ".join(left_out_notes(self.left_out, "pictures"))
            raise ValueError(f"root: {root} has no training pictures{'; ' * bool(why)}{why}")
        # A file list without splits was split here, so that its classes are those of all its files.
        source = listed if self.labels is not None and multilabel else parts["train"]
        classes = self.class_names or sorted({label for x in source for label in x.labels})
        number = {name: i for i, name in enumerate(classes)}
        targets = {split: _targets(part, number, multilabel) for split, part in parts.items()}
        if not multilabel and self.class_names is not None:
            counts = torch.bincount(targets["train"], minlength=len(classes))
            empty = [
                name for name, count in zip(classes, counts.tolist(), strict=True) if not count
            ]
            if empty:
                raise ValueError(
                    f"class_names: {', '.join(empty)} have no training picture in {root}"
                )
        self._spec = ImageSpec(
            channels=self.channels,
            height=self.size,
            width=self.size,
            mean=self.mean,
            std=self.std,
            classes=list(classes),
            multilabel=multilabel,
            crop_pct=self.crop_pct,
            interpolation=self.interpolation,
            prevalence=targets["train"].float().mean(0).tolist() if multilabel else None,
        )
        self._splits = {
            split: _Files(
                [x.file for x in part],
                targets[split],
                self._spec,
                self.crop if split == "train" else None,
                self.seed,
            )
            for split, part in parts.items()
            if part
        }

    @property
    def image_spec(self) -> ImageSpec:
        """The description of the pictures."""
        self.ready()
        assert self._spec is not None
        return self._spec

    def train_targets(self) -> Tensor:
        """Return (N,) class numbers or (N, K) multi-hot."""
        self.ready()
        return self._splits["train"].targets

    def dataset(self, split: Split) -> Dataset[Any] | None:
        """Return a split; there may be no `val` and no `test`."""
        return self._splits.get(split)

    def unchanged(self) -> Dataset[Any]:
        """Return the training pictures, cut as those of an evaluation are."""
        self.ready_dataset("train")
        pictures = copy.copy(self._splits["train"])
        pictures.crop = None
        return pictures

    def batch_sampler(self, split: Split, rank: int, world: int) -> Batches:
        """Return this process's batches; in training every number also holds the epoch."""
        batches = super().batch_sampler(split, rank, world)
        return Stamped(batches, len(self._splits["train"])) if split == "train" else batches

    def first_draws(self) -> int:
        """Return the random numbers that the cut took."""
        return self.crop.draws

    def transform(self, batch: dict[str, Any], split: Split) -> dict[str, Any]:
        """Augment and normalise, as `ImageData` does.

        Raises:
            BadSample: If the batch holds a file that could not be read.
        """
        if "bad" in batch:
            source, reason = batch["bad"][0]
            raise BadSample(source, f"{reason} {ADVICE}")
        return super().transform(batch, split)

    @property
    def notes(self) -> list[str]:
        """What was left out, and what lies elsewhere."""
        self.ready()
        return [*left_out_notes(self.left_out, "pictures"), *outside_notes(self._outside)]

    def _readable(self, listed: list[_Listed]) -> list[_Listed]:
        """Return the files that can be read, and leave out the others."""
        requests = [(x.file, self.channels) for x in listed]
        bad = unreadable(requests, read_picture, part="pictures", num_workers=self.num_workers)
        self.left_out += [BadSample(listed[i].file, reason) for i, reason in bad.items()]
        return [x for i, x in enumerate(listed) if i not in bad]


def _by_folder(root: Path) -> list[_Listed]:
    """List `root/train/CLASS` and its siblings, or `root/CLASS`."""
    # A class may be called train: then it holds pictures, not classes.
    if _subfolders(root / "train"):
        splits = [(name, root / name) for name in _SPLITS if (root / name).is_dir()]
    else:
        splits = [("", root)]
    listed: list[_Listed] = []
    for split, folder in splits:
        names = _subfolders(folder)
        if not names:
            raise ValueError(
                f"root: {folder} holds no class folders; put each class's pictures in a folder of its own, "
                "or name a CSV or JSON-lines file with --data.labels"
            )
        for name in names:
            files = list(find_pictures(folder / name))
            if not files:
                raise ValueError(
                    f"root: the class folder {folder / name} holds no pictures; remove it, or add pictures "
                    "(.jpg, .png, .webp, .bmp, .gif, .tif, .pgm, .ppm, .avif)"
                )
            listed += [_Listed(file, [name], split or None, str(folder / name)) for file in files]
    return listed


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(x.name for x in folder.iterdir() if x.is_dir() and not x.name.startswith("."))


def _by_list(root: Path, name: str) -> tuple[list[_Listed], bool, list[BadSample]]:
    """Read a file of labels; returns too whether it is multi-label, and the lines that cannot be used."""
    path = root / name
    if not path.is_file():
        raise ValueError(f"labels: {path} does not exist; give a CSV or JSON-lines file below root")
    lines = (
        _json_lines(path)
        if path.suffix.lower() in (".jsonl", ".json", ".ndjson")
        else _csv_rows(path)
    )
    rows: list[tuple[str, Mapping[str, Any]]] = []
    bad: list[BadSample] = []
    for line in lines:
        if isinstance(line, BadSample):
            bad.append(line)
        else:
            rows.append(line)
    if not rows:
        raise ValueError(f"labels: {path} lists no files{f'; {bad[0]}' if bad else ''}")
    keys = set().union(*(row for _, row in rows))
    if "file" not in keys or len(keys & {"label", "labels"}) != 1:
        raise ValueError(
            f"labels: {path} needs the keys 'file' and either 'label' (one class) or 'labels' (any number), "
            f"it has {', '.join(sorted(keys)) or 'none'}"
        )
    multilabel = "labels" in keys
    listed, places = [], dict[str, str]()
    for where, row in rows:
        try:
            found = _listed(root, where, row, multilabel, places)
        except BadSample as error:
            bad.append(error)
        else:
            listed.append(found)
    stated = sum(x.split is not None for x in listed)
    if 0 < stated < len(listed):
        missing = next(x for x in listed if x.split is None)
        raise ValueError(f"{missing.where}: 'split' is missing; state it on every line or on none")
    return listed, multilabel, bad


def _listed(
    root: Path, where: str, row: Mapping[str, Any], multilabel: bool, places: dict[str, str]
) -> _Listed:
    """Return what a line lists; `places` gets where, by the file.

    Raises:
        BadSample: If it cannot be used.
    """
    file, label = row.get("file"), row.get("labels" if multilabel else "label")
    split = row.get("split") or None
    if not isinstance(file, str) or not file or "\0" in file:
        raise BadSample(where, f"'file' must name a picture, got {_cut(file)}")
    if split not in (None, *_SPLITS):
        raise BadSample(where, f"'split' must be train, val or test, got {_cut(split)}")
    if file in places:
        raise BadSample(where, f"{file} was listed before, in {places[file]}")
    names = label if isinstance(label, list) else [label]
    if not multilabel and (len(names) != 1 or names[0] in ("", None)):
        raise BadSample(where, f"'label' must name one class, got {_cut(label)}")
    if not all(isinstance(x, str | int) for x in names) or any(
        _HALF.search(x) for x in names if isinstance(x, str)
    ):
        raise BadSample(where, f"labels must be names, in UTF-8, got {_cut(label)}")
    if not Path(file).is_absolute() and leaves(root, root / file):
        raise BadSample(
            where, f"{_cut(file)} is not below root; a relative path may not leave it by '..'"
        )
    try:
        there = (root / file).is_file()
    except OSError as error:  # such as a name that is too long
        raise BadSample(where, f"{_cut(file)} is no file ({error.strerror})") from error
    if not there:
        raise BadSample(where, f"{root / file} does not exist")
    places[file] = where
    return _Listed(str(root / file), [str(x) for x in names], split, where)


def _csv_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]] | BadSample]:
    # A file's name may hold any bytes.
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        try:
            names = next(reader, [])
        except csv.Error as error:
            raise ValueError(f"{path}:1: not a line of CSV ({error})") from error
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadSample(f"{path}:{reader.line_num}", f"not a line of CSV ({error})")
                continue
            if not row:
                continue
            where = f"{path}:{reader.line_num}"
            if len(row) != len(names):
                more = "more" if len(row) > len(names) else "fewer"
                yield BadSample(where, f"has {more} values than the header has names")
                continue
            values: dict[str, Any] = dict(zip(names, row, strict=True))
            if "labels" in values:
                values["labels"] = [
                    x.strip() for x in values["labels"].split(_SEPARATOR) if x.strip()
                ]
            yield where, values


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]] | BadSample]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            where = f"{path}:{line}"
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                yield BadSample(where, f"not a JSON object ({error})")
                continue
            if isinstance(row, dict):
                yield where, row
            else:
                yield BadSample(where, f"not a JSON object, but {text.strip()[:40]}")


def _cut(value: object) -> str:
    return repr(value)[:_LONGEST]


def _hold_out(listed: list[_Listed], root: Path, val: float, test: float, multilabel: bool) -> None:
    """Set the split where it is None; and where nothing validates, take that from the training files."""
    free = [x for x in listed if x.split is None]
    if not free and not any(x.split == "val" for x in listed):
        free, test = [x for x in listed if x.split == "train"], 0.0
    chosen = held_out(
        [x.file.removeprefix(f"{root}{os.sep}").replace(os.sep, "/") for x in free],
        val,
        test,
        groups=None if multilabel else [x.labels[0] for x in free],
    )
    for x, split in zip(free, chosen, strict=True):
        x.split = split


def _targets(part: list[_Listed], number: Mapping[str, int], multilabel: bool) -> Tensor:
    """Return (N,) class numbers, or (N, K) multi-hot float32."""
    for x in part:
        for label in x.labels:
            if label not in number:
                raise ValueError(
                    f"{x.where}: {label!r} is not one of the {len(number)} classes "
                    f"({', '.join(list(number)[:10])}{', ...' if len(number) > 10 else ''}) that class_names or "
                    "the training pictures give"
                )
    if not multilabel:
        return torch.tensor([number[x.labels[0]] for x in part], dtype=torch.long)
    targets = torch.zeros(len(part), len(number))
    for i, x in enumerate(part):
        targets[i, [number[label] for label in x.labels]] = 1.0
    return targets
