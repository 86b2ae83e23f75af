"""Small data and pictures that several tests use."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from resdomains.core import ResNet2d
from resdomains.schema import Split
from resdomains.training import DataModule
from resdomains_tasks.image_classification import ImageClassification, ImageSpec, MemoryImages
from resdomains_tasks.image_classification.augment import Augment
from resdomains_tasks.image_classification.data import InMemoryData, Pictures


class Squares(InMemoryData):
    """60 training and 12 test pictures, 8 x 8, three channels; the class says which channel is bright."""

    def __init__(
        self,
        *,
        batch_size: int = 10,
        val_fraction: float = 0.2,
        augment: list[Augment] | None = None,
        balance: float = 0.0,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            val_fraction=val_fraction,
            augment=augment,
            balance=balance,
            num_workers=num_workers,
            seed=seed,
        )

    def read(self) -> Pictures:
        images, targets = squares(72)
        return Pictures(
            images[:60], targets[:60], images[60:], targets[60:], ["red", "green", "blue"]
        )


def squares(count: int) -> tuple[Tensor, Tensor]:
    """(count, 8, 8, 3) noise with one brighter channel, and which."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (count, 8, 8, 3), generator=generator, dtype=torch.uint8)
    targets = torch.arange(count) % 3
    images[torch.arange(count), ..., targets] += 120
    return images, targets


def small_spec(**changes: object) -> ImageSpec:
    values: dict[str, object] = {
        "channels": 3,
        "height": 8,
        "width": 8,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.2, 0.2, 0.2],
        "classes": ["red", "green", "blue"],
    }
    return ImageSpec(**{**values, **changes})  # type: ignore[arg-type]


def small_task(spec: ImageSpec | None = None, **options: object) -> ImageClassification:
    spec = spec or small_spec()
    torch.manual_seed(0)
    backbone = ResNet2d(layers=[1], channels=[8], in_channels=spec.channels)
    return ImageClassification(backbone=backbone, spec=spec.plain(), **options)  # type: ignore[arg-type]


D = TypeVar("D", bound=DataModule)


def ready(data: D) -> D:
    """Prepare the data and return them as what they are."""
    data.ready()
    return data


def fetch(data: DataModule, split: Split, numbers: list[int]) -> dict[str, Any]:
    """The batch of the given samples, as it reaches `transform`."""
    return data.ready_dataset(split).__getitems__(numbers)  # type: ignore[attr-defined, no-any-return]


def memory(count: int = 24) -> MemoryImages:
    return MemoryImages(*squares(count))
