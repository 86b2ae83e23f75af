"""What every data module of pictures shares: batched augmentation, normalisation, balance; data sets in memory."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from resdomains.schema import Split
from resdomains.training import DataModule
from resdomains.training.holding_out import check_fraction
from resdomains.training.randomness import uniforms
from resdomains.vision import normalise

from .augment import Augment, check_augment
from .spec import ImageSpec


class ImageData(DataModule, ABC):
    """Pictures with class numbers or, for multi-label data, shares of the classes.

    A batch is `{"image": (B, C, H, W), "target": (B,) or (B, K), "index": (B,)}`; pictures leave the data set as uint8
    and `transform` augments and normalises them on the device, a whole batch at once.

    Args:
        batch_size: Samples of a batch over all processes together.
        augment: Random changes of training batches, in order.
        balance: Training samples are drawn in proportion to their class's size to the power of minus this: 0 takes
            each once an epoch, 1 shows all classes equally often, 0.5 lies between (Mahajan et al. 2018).
        num_workers: Loader processes; 0 reads in the training process.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        augment: list[Augment] | None = None,
        balance: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        if not 0.0 <= balance <= 1.0:
            raise ValueError(
                f"balance must lie in [0, 1], got {balance}; 0 takes each training sample once an epoch"
            )
        self.augment = list(augment or [])
        check_augment(self.augment)
        self.balance = balance

    @property
    @abstractmethod
    def image_spec(self) -> ImageSpec:
        """The description that `spec` gives in plain values."""

    @property
    def spec(self) -> dict[str, Any]:
        """What the task must know, in plain values."""
        self.ready()
        return self.image_spec.plain()

    @abstractmethod
    def train_targets(self) -> Tensor:
        """Return the training targets, (N,) class numbers or (N, K) multi-hot."""

    def sample_weights(self) -> Tensor | None:
        """Return (N,) weights that balance the classes, or None where `balance` is 0.

        A multi-label sample weighs as much as the rarest of its classes; one without any class, as one of a class
        that holds all such samples.
        """
        if self.balance == 0:
            return None
        targets = self.train_targets()
        if targets.ndim == 1:
            return torch.bincount(targets).double().clamp(min=1).pow(-self.balance)[targets]
        hot = targets > 0
        weights = hot.sum(0).double().clamp(min=1).pow(-self.balance)
        unlabelled = ~hot.any(1)
        rare = (hot * weights).amax(1)
        return torch.where(
            unlabelled, unlabelled.sum().double().clamp(min=1).pow(-self.balance), rare
        )

    def collate(self, items: Any) -> Any:
        """Return what the data set's `__getitems__` gave: a whole batch."""
        return items

    def first_draws(self) -> int:
        """Return how many uniform numbers a training sample used before its batch reaches `transform`."""
        return 0

    def transform(self, batch: dict[str, Any], split: Split) -> dict[str, Any]:
        """Augment (in training) and normalise a batch of pixels.

        Args:
            batch: `image` (B, C, H, W) uint8, `target`, `index`.
            split: What the batch is for.

        Returns:
            The same keys; `image` is float32 and channels_last, `target` (B, K) shares where a part mixes samples.
        """
        spec = self.image_spec
        images, targets = batch["image"], batch["target"]
        parts = self.augment if split == "train" else []
        position = self.first_draws()
        draws = position + sum(part.draws for part in parts)
        u = (
            uniforms(self.seed, self.epoch, batch["index"], draws)
            if parts
            else torch.empty(len(images), 0)
        )
        if targets.ndim == 1 and any(part.mixes for part in parts):
            targets = F.one_hot(targets, len(spec.classes)).float()
        normalised = False
        for part in parts:
            if part.stage == "normalised" and not normalised:
                images, normalised = normalise(images, spec), True
            images, targets = part(images, targets, u[:, position : position + part.draws])
            position += part.draws
        if not normalised:
            images = normalise(images, spec)
        images = images.contiguous(memory_format=torch.channels_last)
        return {**batch, "image": images, "target": targets}


class MemoryImages(Dataset[dict[str, Tensor]]):
    """Pictures held in memory, given out a whole batch at a time.

    Args:
        images: (N, H, W, C) uint8; batches are channels_last without a copy.
        targets: (N,) class numbers.
    """

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8 or len(images) != len(targets):
            raise ValueError(
                f"images must be (N, H, W, C) uint8 and targets (N,), "
                f"got {tuple(images.shape)} {images.dtype} and {tuple(targets.shape)}"
            )
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {
            "image": self.images[index].permute(2, 0, 1),
            "target": self.targets[index],
            "index": torch.tensor(index),
        }

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return the batch of the given samples."""
        index = torch.as_tensor(indices)
        return {
            "image": self.images[index].permute(0, 3, 1, 2),
            "target": self.targets[index],
            "index": index,
        }


@dataclass(frozen=True)
class Pictures:
    """A training and a test part as they were read.

    Args:
        train: (N, H, W, C) uint8.
        train_targets: (N,) class numbers.
        test: (M, H, W, C) uint8.
        test_targets: (M,) class numbers.
        classes: Class names.
    """

    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor
    classes: list[str]


class InMemoryData(ImageData, ABC):
    """A small data set, read whole into memory; the last training samples are kept for validation.

    Args:
        batch_size: Samples of a batch over all processes together.
        val_fraction: Share of the training part, its end, that validates; 0 for none.
        augment: Random changes of training batches, in order.
        balance: How far classes are drawn equally often, from 0 to 1.
        num_workers: Loader processes; 0, reading in the training process, is the fastest for most.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        val_fraction: float = 0.1,
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
        check_fraction("val_fraction", val_fraction)
        self.val_fraction = val_fraction
        self._splits: dict[str, MemoryImages] = {}
        self._spec: ImageSpec | None = None

    @abstractmethod
    def read(self) -> Pictures:
        """Read both parts.

        Raises:
            ValueError: If data are missing or malformed, naming the argument and the path.
        """

    def prepare(self) -> None:
        """Read, split, and measure mean and standard deviation of the training split."""
        pictures = self.read()
        for name, targets in (
            ("training", pictures.train_targets),
            ("test", pictures.test_targets),
        ):
            check_labels(targets, pictures.classes, f"the {name} part of {type(self).__name__}")
        count = len(pictures.train)
        kept = count - round(count * self.val_fraction)
        if kept < 1:
            raise ValueError(
                f"val_fraction {self.val_fraction} leaves none of the {count} pictures to train on"
            )
        self._splits = {"train": MemoryImages(pictures.train[:kept], pictures.train_targets[:kept])}
        if kept < count:
            self._splits["val"] = MemoryImages(pictures.train[kept:], pictures.train_targets[kept:])
        if len(pictures.test):
            self._splits["test"] = MemoryImages(pictures.test, pictures.test_targets)
        mean, std = measure(self._splits["train"].images)
        height, width, channels = pictures.train.shape[1:]
        self._spec = ImageSpec(
            channels=channels,
            height=height,
            width=width,
            mean=mean,
            std=std,
            classes=pictures.classes,
        )

    @property
    def image_spec(self) -> ImageSpec:
        """The description of the pictures."""
        self.ready()
        assert self._spec is not None
        return self._spec

    def train_targets(self) -> Tensor:
        """Return (N,) class numbers."""
        self.ready()
        return self._splits["train"].targets

    def dataset(self, split: Split) -> MemoryImages | None:
        """Return a split; there may be no `val` and no `test`."""
        return self._splits.get(split)


def check_labels(targets: Tensor, classes: Sequence[str], where: str) -> None:
    """Refuse class numbers outside the list of classes.

    Raises:
        ValueError: With the number and its place.
    """
    wrong = ((targets < 0) | (targets >= len(classes))).nonzero()
    if len(wrong):
        place = int(wrong[0])
        raise ValueError(
            f"sample {place} of {where} has label {int(targets[place])}, but there are {len(classes)} classes "
            f"(labels 0 to {len(classes) - 1}); correct the label file or class_names"
        )


def measure(images: Tensor) -> tuple[list[float], list[float]]:
    """Return each channel's mean and standard deviation for pixels in [0, 1].

    Args:
        images: (N, H, W, C) uint8.
    """
    value = torch.arange(256, dtype=torch.float64) / 255.0
    means, stds = [], []
    for channel in images.unbind(-1):
        # A histogram is exact, and far faster than sums over float copies.
        share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
        mean = (share * value).sum()
        means.append(float(mean))
        stds.append(float((share * (value - mean) ** 2).sum().sqrt()))
    return means, stds
