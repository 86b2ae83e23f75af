"""Small data and tasks that several tests use."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import Transform

from resdomains.core import ResNet2d
from resdomains.training import BadSample
from resdomains_tasks.object_detection.annotations import Annotated, Corpus, Picture, objects
from resdomains_tasks.object_detection.data import DetectionData
from resdomains_tasks.object_detection.mosaic import Mosaic
from resdomains_tasks.object_detection.sizes import Letterbox, Size
from resdomains_tasks.object_detection.spec import DetectionSpec

COLOURS = torch.tensor([[220, 30, 30], [30, 30, 220]], dtype=torch.uint8)


def small_spec(**changes: object) -> DetectionSpec:
    values: dict[str, object] = {
        "channels": 3,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.2, 0.2, 0.2],
        "size": {"height": 64, "width": 64},
        "classes": ["red", "blue"],
    }
    return DetectionSpec(**{**values, **changes})  # type: ignore[arg-type]


class Rectangles(Picture):
    """Red and blue rectangles on grey; `broken` ones cannot be read."""

    def __init__(self, seed: int, broken: bool = False) -> None:
        random = np.random.default_rng(seed)
        self.height, self.width = random.integers(40, 90, 2).tolist()
        count = seed % 4
        corners = random.integers(0, [self.width - 20, self.height - 20], (count, 2))
        sides = random.integers(8, 20, (count, 2))
        self.boxes = np.concatenate([corners, corners + sides], 1)
        self.labels = random.integers(0, 2, count)
        self.broken = broken

    def read(self, channels: int) -> Tensor:
        if self.broken:
            raise BadSample("a broken picture", "cannot be read")
        picture = torch.full((channels, self.height, self.width), 128, dtype=torch.uint8)
        for (x1, y1, x2, y2), label in zip(self.boxes.tolist(), self.labels, strict=True):
            picture[:, y1:y2, x1:x2] = COLOURS[label, :channels, None, None]
        return picture


def rectangles(first: int, count: int) -> list[Annotated]:
    found = []
    for seed in range(first, first + count):
        picture = Rectangles(seed)
        rows = objects(picture.boxes, picture.labels, crowd=np.arange(len(picture.boxes)) == 2)
        found.append(Annotated(picture, rows, f"picture {seed}", 100 + seed))
    return found


class RectangleData(DetectionData):
    """24 pictures to train on, 9 to validate, 5 to test; the third object of a picture is a crowd."""

    def __init__(
        self,
        *,
        batch_size: int = 4,
        size: Size | None = None,
        channels: int = 3,
        augment: list[Transform] | None = None,
        mosaic: Mosaic | None = None,
        kept_mib: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        broken: bool = False,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            size=size if size is not None else Letterbox(64, 64),
            channels=channels,
            augment=augment,
            mosaic=mosaic,
            kept_mib=kept_mib,
            num_workers=num_workers,
            seed=seed,
        )
        self.broken = broken

    def read(self) -> Corpus:
        splits = {"train": rectangles(0, 24), "val": rectangles(24, 9), "test": rectangles(33, 5)}
        if self.broken:
            splits["train"][5].picture.broken = True  # type: ignore[attr-defined]
        return Corpus(["red", "blue"], splits)  # type: ignore[arg-type]


def small_backbone(channels: int = 3) -> ResNet2d:
    torch.manual_seed(0)
    return ResNet2d(layers=[1, 1, 1], channels=[8, 16, 16], in_channels=channels, strides=[2, 2, 2])


def batch_of(data: DetectionData, split: Any, numbers: list[int]) -> dict[str, Any]:
    """The batch of the given samples, as the task gets it."""
    found = data.ready_dataset(split).__getitems__(numbers)  # type: ignore[attr-defined]
    return data.transform(data.collate(found), split)
