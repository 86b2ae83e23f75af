"""What every data module of annotated pictures shares: fitting, augmentation, batches, and what is said of them."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import Transform

from resdomains.schema import Split
from resdomains.training import BadSample, DataModule
from resdomains.training.bad_samples import (
    ADVICE,
    BadSamples,
    check_bad_samples,
    left_out_notes,
)
from resdomains.training.batches import Batches, SimilarBatches, Stamped
from resdomains.training.file_checks import unreadable
from resdomains.training.randomness import keys
from resdomains.training.room import Room
from resdomains.vision import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalise,
    resize,
)

from .annotations import COLUMNS, Annotated, Corpus, Rows
from .augment import augmented, check_augment
from .files import PictureFile
from .mosaic import Mosaic
from .sizes import ShorterSide, Size
from .spec import DetectionSpec

_LABEL, _CROWD = COLUMNS.index("label"), COLUMNS.index("crowd")
_GROUPS = 3  # groups of aspect ratios to a doubling, as torchvision's reference has


class Pictures(Dataset[dict[str, Any]]):
    """A split's pictures at the network's size, given out a whole batch at a time.

    A training sample is asked for as `epoch * len + index` (`Stamped`).

    Args:
        pictures: What is seen, and where.
        size: To what size a picture is brought.
        channels: 1 (grey) or 3 (colour).
        room: Memory for pictures of that size.
        training: How training pictures are changed; None for evaluation.
    """

    def __init__(
        self,
        pictures: Sequence[Annotated],
        size: Size,
        channels: int,
        room: Room,
        training: "Training | None" = None,
    ) -> None:
        self.sources = [found.picture for found in pictures]
        self.names = [found.source for found in pictures]
        self.numbers = torch.tensor([found.number for found in pictures], dtype=torch.long)
        # One array of all objects: many small ones would take memory, in each loader process anew.
        counts = [len(found.objects) for found in pictures]
        self._ends = np.cumsum([0, *counts])
        self._objects = np.concatenate(
            [np.empty((0, len(COLUMNS))), *(found.objects for found in pictures)]
        )
        self.size, self.channels, self.training = size, channels, training
        self._room = room
        self._kept: dict[int, tuple[Tensor, Rows, tuple[int, int]]] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def objects(self, index: int) -> Rows:
        """Return a picture's objects, (n, 8) rows of `COLUMNS`, as they were annotated."""
        return self._objects[self._ends[index] : self._ends[index + 1]]

    def original(self, index: int) -> Tensor:
        """Return a picture as it was read, (C, H, W) uint8.

        Raises:
            BadSample: If it cannot be read.
        """
        return self.sources[index].read(self.channels)

    def annotated(self, index: int) -> tuple[Tensor, Rows]:
        """Return a picture as it was read, (C, H, W) uint8, and its objects on that.

        Raises:
            BadSample: If it cannot be read, or has another size than its boxes were drawn on.
        """
        picture = self.original(index)
        rows = self.objects(index).copy()
        rows[:, :4] = self.sources[index].upright(rows[:, :4], *picture.shape[-2:])
        return picture, rows

    def fitted(self, index: int) -> tuple[Tensor, Rows, tuple[int, int]]:
        """Return a picture at the network's size, its objects on the picture as it was read, and that one's size.

        Raises:
            BadSample: If it cannot be read.
        """
        found = self._kept.get(index)
        if found is not None:
            return found
        picture, rows = self.annotated(index)
        height, width = picture.shape[-2:]
        pixels = resize(picture, *self.size.scaled(height, width), "bilinear")
        if self._room.take(pixels.nbytes):
            self._kept[index] = pixels, rows, (height, width)
        return pixels, rows, (height, width)

    def scaled(self, index: int) -> tuple[Tensor, Rows]:
        """Return a picture at the network's size, and its objects on that.

        Raises:
            BadSample: If it cannot be read.
        """
        pixels, rows, original = self.fitted(index)
        return pixels, _scaled(rows, pixels, original)

    def __getitem__(self, stamped: int) -> dict[str, Any]:
        return self.__getitems__([stamped])

    def __getitems__(self, stamped: Sequence[int]) -> dict[str, Any]:
        """Return a batch, or `{"bad": [(source, reason), ...]}`.

        An exception from a loader process would arrive as a traceback in text; `DetectionData.transform` raises it.
        """
        numbers = torch.as_tensor(stamped)
        epoch, index = int(numbers[0]) // max(len(self), 1), numbers % max(len(self), 1)
        pictures, truths, originals, bad = [], [], [], []
        for place in index.tolist():
            try:
                if self.training is None:
                    pixels, truth, original = self.fitted(place)
                    truths.append(truth)
                    rows = _scaled(truth, pixels, original)
                else:
                    pixels, rows = self.training.sample(self, epoch, place)
                    height, width = pixels.shape[-2:]
                    original = (height, width)
            except BadSample as error:
                bad.append((error.source, error.reason))
            else:
                pictures.append((pixels, rows))
                originals.append(original)
        if bad:
            return {"bad": bad}
        batch = padded([pixels for pixels, _ in pictures], self.size)
        rows = np.concatenate([rows for _, rows in pictures])
        counts = torch.tensor([len(rows) for _, rows in pictures])
        batch |= {
            "original": torch.tensor(originals),
            "boxes": torch.from_numpy(rows[:, :4]).float(),
            "labels": torch.from_numpy(rows[:, _LABEL]).long(),
            "owner": torch.arange(len(pictures)).repeat_interleave(counts),
            "index": index,
        }
        if truths:
            batch["truth"] = torch.from_numpy(np.concatenate(truths))
        return batch


class Training:
    """How training pictures are changed, by draws that (seed, epoch, picture) fix.

    Args:
        transforms: torchvision's transforms, in order.
        mosaic: How several pictures become one, before the transforms; None for never.
        smallest: Pixels; objects of which less is left in height or width are left out.
        seed: Seed of the draws.
    """

    def __init__(
        self, transforms: Sequence[Transform], mosaic: Mosaic | None, smallest: float, seed: int
    ) -> None:
        self.transforms = list(transforms)
        self.mosaic, self.smallest, self.seed = mosaic, smallest, seed

    def sample(self, pictures: Pictures, epoch: int, index: int) -> tuple[Tensor, Rows]:
        """Return a picture, (C, H, W) uint8, and its objects; crowds, which no box can stand for, are left out.

        Raises:
            BadSample: If a picture cannot be read.
        """
        key = int(keys(self.seed, epoch, torch.tensor([index])))
        pixels, rows = pictures.scaled(index)
        if self.mosaic is not None and self.mosaic.drawn(key, epoch):
            others = [pictures.scaled(i) for i in self.mosaic.others(key, len(pictures))]
            pixels, rows = self.mosaic([(pixels, rows), *others], key)
        rows = rows[rows[:, _CROWD] == 0]
        return augmented(pixels, rows, self.transforms, key, self.smallest)


def padded(pictures: Sequence[Tensor], size: Size) -> dict[str, Tensor]:
    """Return `image` (B, C, H, W) uint8 with zeros behind each picture, and `sizes` (B, 2), their heights and widths.

    Args:
        pictures: (C, h, w) uint8 each.
        size: Gives H and W.
    """
    sizes = torch.tensor([picture.shape[-2:] for picture in pictures])
    height, width = size.canvas(*sizes.amax(0).tolist())
    images = torch.zeros(len(pictures), pictures[0].shape[0], height, width, dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    for image, picture in zip(images, pictures, strict=True):
        image[:, : picture.shape[1], : picture.shape[2]] = picture
    return {"image": images, "sizes": sizes}


def prepared(images: Tensor, sizes: Tensor, spec: DetectionSpec) -> Tensor:
    """Return normalised pictures, zero behind what counts.

    Args:
        images: (B, C, H, W) uint8.
        sizes: (B, 2) heights and widths that count.
        spec: Mean and standard deviation.
    """
    x = normalise(images, spec)
    for picture, (height, width) in zip(x, sizes.tolist(), strict=True):
        picture[:, height:] = 0.0
        picture[:, :, width:] = 0.0
    return x


def _scaled(rows: Rows, pixels: Tensor, original: tuple[int, int]) -> Rows:
    """Objects on a picture of the size `original`, as objects on `pixels`, (C, H, W)."""
    height, width = original
    across, down = pixels.shape[2] / width, pixels.shape[1] / height
    scaled = rows.copy()
    scaled[:, :4] *= np.array([across, down, across, down])
    return scaled


class DetectionData(DataModule, ABC):
    """Pictures with boxes.

    A batch is `{"image": (B, C, H, W) float32, "sizes": (B, 2), "original": (B, 2), "boxes": (N, 4), "labels": (N,),
    "owner": (N,), "index": (B,)}`. Pictures are normalised, with zeros behind the `sizes` (heights and widths) that
    count; `original` are those of the pictures as they were read. `boxes` are corners x1, y1, x2, y2 in pixels of
    `image`, of all pictures one after another; `owner` is the place in the batch. In evaluation `truth` (N, 8) float64
    has the same objects as rows of `COLUMNS`, in pixels of the pictures as they were read. In training crowds are
    left out.

    Args:
        batch_size: Pictures of a batch over all processes together; pictures of a batch have similar shapes.
        size: To what size pictures are brought, before augmentation; the shorter side 800 pixels if not given.
        channels: 1 reads pictures as grey, 3 as colour.
        augment: torchvision.transforms.v2 transforms of training pictures and their boxes, in order.
        mosaic: How several training pictures become one, before `augment`; never if not given.
        bad_samples: `refuse` stops at a picture that cannot be read, or that has another size than its boxes were
            drawn on, and names it; `skip` reads every picture once before training, names those that fail and leaves
            them out.
        smallest: Pixels; objects of which augmentation leaves less in height or width are left out.
        kept_mib: MiB of pictures, at the network's size, that each loader process keeps in memory.
        num_workers: Loader processes; 0 reads in the training process.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        size: Size | None = None,
        channels: int = 3,
        augment: list[Transform] | None = None,
        mosaic: Mosaic | None = None,
        bad_samples: BadSamples = "refuse",
        smallest: float = 1.0,
        kept_mib: int = 512,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
        check_bad_samples(bad_samples)
        if not smallest > 0:
            raise ValueError(f"smallest must be above 0 pixels, got {smallest}")
        if kept_mib < 0:
            raise ValueError(f"kept_mib must be at least 0, got {kept_mib}")
        self.size = size if size is not None else ShorterSide()
        self.channels = channels
        self.augment = list(augment or [])
        check_augment(self.augment)
        self.mosaic = mosaic
        self.bad_samples = bad_samples
        self.smallest = smallest
        self.kept_mib = kept_mib
        self.left_out: list[BadSample] = []
        """What `skip` left out, each with the reason."""
        self._splits: dict[Split, Pictures] = {}
        self._spec: DetectionSpec | None = None
        self._trained: DetectionSpec | None = None
        self._notes: list[str] = []

    def adopt(self, spec: Mapping[str, Any]) -> None:
        """Take the classes, the channels and the size of a trained task in place of one's own."""
        self._trained = DetectionSpec.of(spec)

    @abstractmethod
    def read(self) -> Corpus:
        """List all splits; pictures are not read yet.

        Raises:
            ValueError: If data are missing or malformed, naming the argument and the path.
        """

    def prepare(self) -> None:
        """List the pictures and describe the data."""
        corpus = self.read()
        if self.bad_samples == "skip":
            corpus = self._readable(corpus)
        if self._trained is not None:
            corpus = _in_classes_of(self._trained, corpus)
            self.size, self.channels = self._trained.fitting, self._trained.channels
        if not any(len(found.objects) for found in corpus.splits["train"]):
            raise ValueError(
                f"{type(self).__name__} has no training picture with an object: of {len(corpus.splits['train']):,} "
                "pictures none has a box"
                + "".join(f"; {note}" for note in left_out_notes(self.left_out, "pictures"))
            )
        training = Training(self.augment, self.mosaic, self.smallest, self.seed)
        room = Room(self.kept_mib * 2**20)
        self._splits = {
            split: Pictures(
                found, self.size, self.channels, room, training if split == "train" else None
            )
            for split, found in corpus.splits.items()
            if found
        }
        grey = self.channels == 1
        self._spec = DetectionSpec(
            channels=self.channels,
            mean=list(GREY_MEAN if grey else IMAGENET_MEAN),
            std=list(GREY_STD if grey else IMAGENET_STD),
            size=self.size.plain(),
            classes=list(corpus.classes),
            category_ids=list(corpus.category_ids or []),
        )
        self._notes = [*self._amounts(), *corpus.notes, *left_out_notes(self.left_out, "pictures")]

    def _readable(self, corpus: Corpus) -> Corpus:
        """Leave out the pictures that cannot be read."""
        splits: dict[Split, list[Annotated]] = {}
        for split, found in corpus.splits.items():
            files = [(place, x.picture) for place, x in enumerate(found)]
            requests = [
                (str(file.path), file.height, file.width, self.channels)
                for _, file in files
                if isinstance(file, PictureFile)
            ]
            places = [place for place, file in files if isinstance(file, PictureFile)]
            bad = unreadable(requests, _whole, part="annotated", num_workers=self.num_workers)
            left = {places[at]: reason for at, reason in bad.items()}
            self.left_out += [BadSample(found[at].source, reason) for at, reason in left.items()]
            splits[split] = [x for place, x in enumerate(found) if place not in left]
        return Corpus(corpus.classes, splits, corpus.category_ids, corpus.notes)

    def _amounts(self) -> Iterator[str]:
        """Say how much there is to see."""
        said = ", ".join(
            f"{split} {len(found):,} with {found._ends[-1]:,} objects"
            for split, found in self._splits.items()
        )
        yield f"pictures: {said}"

    @property
    def notes(self) -> list[str]:
        """How much there is to see; what was corrected or left out."""
        self.ready()
        return list(self._notes)

    @property
    def detection_spec(self) -> DetectionSpec:
        """The description that `spec` gives in plain values."""
        self.ready()
        assert self._spec is not None
        return self._spec

    @property
    def spec(self) -> dict[str, Any]:
        """What the task must know, in plain values."""
        return self.detection_spec.plain()

    def dataset(self, split: Split) -> Pictures | None:
        """Return a split; there may be no `val` and no `test`."""
        return self._splits.get(split)

    def describe(self, split: Split, index: int) -> dict[str, Any]:
        """Return where a picture stands, and its number in the annotations."""
        found = self._splits[split]
        return {"source": found.names[index], "image_id": int(found.numbers[index])}

    def collate(self, items: Any) -> Any:
        """Return what the data set's `__getitems__` gave: a whole batch."""
        return items

    def transform(self, batch: dict[str, Any], split: Split) -> dict[str, Any]:
        """Refuse unreadable pictures; normalise.

        Raises:
            BadSample: If a picture could not be read.
        """
        if "bad" in batch:
            source, reason = batch["bad"][0]
            raise BadSample(source, f"{reason} {ADVICE}")
        return {**batch, "image": prepared(batch["image"], batch["sizes"], self.detection_spec)}

    def unchanged(self) -> Dataset[Any]:
        """Return the training pictures as they are."""
        self.ready_dataset("train")
        pictures = copy.copy(self._splits["train"])
        pictures.training = None
        return pictures

    def batch_sampler(self, split: Split, rank: int, world: int) -> Batches:
        """Return this process's batches of a split: pictures of similar shapes."""
        self.ready_dataset(split)
        found, train = self._splits[split], split == "train"
        shapes = torch.tensor(
            [
                self.size.canvas(*self.size.scaled(picture.height, picture.width))
                for picture in found.sources
            ],
            dtype=torch.float64,
        )
        similar = SimilarBatches(
            (shapes[:, 0] / shapes[:, 1]).log2().mul(_GROUPS).round().long(),
            self.batch_size,
            rank,
            world,
            shuffle=train,
            seed=self.seed,
            multiple=self.accumulated(split),
        )
        return Stamped(similar, len(found)) if train else similar


def _whole(path: str, height: int, width: int, channels: int) -> None:
    """Read a picture for its faults."""
    picture = PictureFile(path, height, width)
    picture.upright(np.empty((0, 4)), *picture.read(channels).shape[-2:])


def _in_classes_of(trained: DetectionSpec, corpus: Corpus) -> Corpus:
    """Number classes as a trained task does.

    Raises:
        ValueError: If the data have a class that the task does not know.
    """
    unknown = [name for name in corpus.classes if name not in trained.classes]
    if unknown:
        raise ValueError(
            f"the data have the classes {', '.join(unknown)}, which the checkpoint does not know; it knows "
            f"{', '.join(trained.classes)}"
        )
    to = np.array([trained.classes.index(name) for name in corpus.classes])
    for found in (x for split in corpus.splits.values() for x in split):
        found.objects[:, _LABEL] = to[found.objects[:, _LABEL].astype(int)]
    return Corpus(trained.classes, corpus.splits, trained.category_ids, corpus.notes)
