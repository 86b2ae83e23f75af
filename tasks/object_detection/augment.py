"""Random changes of a training picture together with its boxes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxes, Image

from resdomains.vision import resize

from .annotations import Rows

VISIBLE = 0.25
"""Of an object's box at least this share of the area must be left in the picture; else the object is left out."""

SHORTEST = 16
"""Pixels: pictures with a shorter side stay as they are, for torchvision's crops can divide by zero on them."""

_OF_BATCHES = (v2.CutMix, v2.MixUp)
_OF_SEVERAL = (v2.FiveCrop, v2.TenCrop)


class ScaleJitter(v2.Transform):
    """Scale a picture by a random factor and keep its size (large-scale jitter, Ghiasi et al. 2021).

    Enlarged, a random part of the picture is shown; reduced, the picture stands at a random place on grey ground.
    torchvision's transform of this name changes the size, and enlarges all of a picture before a crop keeps a part.

    Args:
        low: The smallest factor.
        high: The largest factor; all between are equally likely.
        fill: The grey, 0 to 255.

    Raises:
        ValueError: Unless 0 < low <= high and fill is a pixel's value.
    """

    def __init__(self, low: float = 0.5, high: float = 2.0, fill: int = 114) -> None:
        super().__init__()
        if not 0.0 < low <= high < float("inf"):
            raise ValueError(f"low and high must be rising factors above 0, got {low} and {high}")
        if not 0 <= fill <= 255:
            raise ValueError(f"fill must be a pixel's value from 0 to 255, got {fill}")
        self.low, self.high, self.fill = low, high, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the part that is shown, or the place on the ground."""
        height, width = next(x for x in flat_inputs if isinstance(x, Image)).shape[-2:]
        factor, down, across = torch.rand(3, dtype=torch.float64).tolist()
        factor = self.low + factor * (self.high - self.low)
        if factor >= 1.0:
            shown = _times(height, 1.0 / factor), _times(width, 1.0 / factor)
        else:
            shown = _times(height, factor), _times(width, factor)
        top, left = round(down * (height - shown[0])), round(across * (width - shown[1]))
        return {"enlarge": factor >= 1.0, "place": (top, left, *shown), "size": [height, width]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return a picture or boxes, changed."""
        top, left, height, width = params["place"]
        size = params["size"]
        if params["enlarge"]:
            part = F.crop(inpt, top, left, height, width)
            return _resized(part, size)
        padding = [left, top, size[1] - left - width, size[0] - top - height]
        return F.pad(_resized(inpt, [height, width]), padding, fill=self.fill)


def _resized(inpt: Any, size: list[int]) -> Any:
    if isinstance(inpt, Image):
        return Image(resize(inpt.as_subclass(Tensor), size[0], size[1], "bilinear"))
    return F.resize(inpt, size)


def check_augment(transforms: Sequence[Any]) -> None:
    """Refuse what cannot change a picture and its boxes by reproducible draws.

    torchvision's v2 transforms draw from torch's generator alone; those before v2 draw from Python's too, and do not
    know boxes.

    Raises:
        TypeError: If a transform, or one inside it, is not a torchvision.transforms.v2 transform.
        ValueError: If one needs a batch, gives several pictures, changes pictures in place or may never end.
    """
    for part in _within(transforms):
        name = type(part).__name__
        if not isinstance(part, v2.Transform):
            raise TypeError(
                f"augment takes torchvision.transforms.v2 transforms, which know boxes, got {name} of "
                f"{type(part).__module__}"
            )
        if isinstance(part, _OF_BATCHES):
            raise ValueError(
                f"augment cannot hold {name}, which needs a batch and knows no boxes; mosaic joins pictures"
            )
        if isinstance(part, _OF_SEVERAL):
            raise ValueError(
                f"augment cannot hold {name}, which gives several pictures; take RandomCrop"
            )
        if getattr(part, "inplace", False):
            raise ValueError(
                f"augment's {name} must not have inplace set: pictures are kept for the next epoch"
            )
        if isinstance(part, v2.RandomIoUCrop) and max(part.options) < 1.0:
            raise ValueError(
                f"augment's RandomIoUCrop needs 1.0 among its sampler_options, got {list(part.options)}: "
                "on a picture where no crop fits it would never end"
            )


def _within(transforms: Sequence[Any]) -> Iterator[Any]:
    """Yield all transforms, those inside others too."""
    for part in transforms:
        yield part
        inner = getattr(part, "transforms", ())
        yield from _within(inner if isinstance(inner, Sequence | torch.nn.ModuleList) else [inner])  # type: ignore[arg-type]


def augmented(
    pixels: Tensor,
    rows: Rows,
    transforms: Sequence[v2.Transform],
    key: int,
    smallest: float = 1.0,
    visible: float = VISIBLE,
) -> tuple[Tensor, Rows]:
    """Pass a picture and its objects through transforms, by draws that the key fixes.

    Boxes are clipped to the picture; objects of which too little is left are left out. Pictures with a side shorter
    than `SHORTEST` are not changed.

    Args:
        pixels: (C, H, W) uint8.
        rows: (n, 8) rows of `COLUMNS`, in pixels.
        transforms: In order; they see `{"image": Image, "boxes": BoundingBoxes, "labels": places of the boxes}`.
        key: Fixes all draws: a number of `resdomains.training.randomness.keys`. Torch's generator stays as it was.
        smallest: Pixels that must be left of a box in height and in width.
        visible: Share of a box's area that must be left.

    Returns:
        (C, H', W') uint8, and (m, 8) rows.

    Raises:
        ValueError: If a transform fails on the picture or gives something else than a picture.
    """
    boxes = torch.tensor(rows[:, :4])
    height, width = pixels.shape[-2:]
    # Transforms clip `boxes` each time, so that nothing comes back that a crop has cut; `whole` they move alike but
    # never clip: what both are at the end tells which share is still seen.
    sample: dict[str, Any] = {
        "image": Image(pixels),
        "boxes": BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        "whole": BoundingBoxes(
            boxes.clone(), format="XYXY", canvas_size=(height, width), clamping_mode=None
        ),
        "labels": torch.arange(len(rows)),
    }
    if transforms and min(height, width) >= SHORTEST:
        # Other devices' generators are left alone: torch.manual_seed would seed them too.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key)
            for part in transforms:
                sample = _changed(sample, part, len(pixels))
    image, seen = sample["image"].as_subclass(Tensor), F.clamp_bounding_boxes(sample["boxes"])
    return image, remaining(
        rows[sample["labels"].numpy()],
        sample["whole"].as_subclass(Tensor).numpy(),
        seen.as_subclass(Tensor).numpy(),
        smallest,
        visible,
    )


def _changed(sample: dict[str, Any], part: v2.Transform, channels: int) -> dict[str, Any]:
    """Apply one transform.

    Raises:
        ValueError: If it fails, or gives something else than a picture.
    """
    name = type(part).__name__
    height, width = sample["image"].shape[-2:]
    try:
        changed = part(sample)
    except Exception as error:
        raise ValueError(
            f"augment's {name} failed on a picture of {width} x {height} pixels: {error}"
        ) from error
    image = changed["image"]
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or len(image) != channels:
        got = (
            f"{tuple(image.shape)} {str(image.dtype).removeprefix('torch.')}"
            if isinstance(image, Tensor)
            else type(image).__name__
        )
        raise ValueError(
            f"augment's {name} must give a picture of {channels} channels in uint8, got {got}; "
            "pictures are normalised afterwards"
        )
    return changed  # type: ignore[no-any-return]


def remaining(rows: Rows, whole: Rows, seen: Rows, smallest: float, visible: float) -> Rows:
    """Return the objects of which enough is left.

    Args:
        rows: (n, 8) objects before the change.
        whole: (n, 4) their boxes after it, as if the picture had no end.
        seen: (n, 4) their boxes after it, clipped to what is seen.
        smallest: Pixels that must be left in height and in width.
        visible: Share of `whole` that must be left.

    Returns:
        (m, 8) objects with the boxes `seen`; their areas shrink or grow as the boxes do.
    """
    sides = seen[:, 2:] - seen[:, :2]
    area = sides.clip(0.0).prod(1)
    kept = (sides >= smallest).all(1) & (area > 0) & (area >= visible * _area(whole))
    left: Rows = rows[kept]
    left[:, 7] *= area[kept] / _area(left[:, :4])
    left[:, :4] = seen[kept]
    return left


def _area(boxes: Rows) -> Rows:
    area: Rows = (boxes[:, 2:4] - boxes[:, :2]).prod(1)
    return area


def _times(pixels: int, factor: float) -> int:
    return min(max(1, round(pixels * factor)), pixels)
