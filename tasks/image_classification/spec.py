"""What a task must know of pictures: size, normalisation and class names."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from resdomains.classification import Labels

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Labels):
    """The plain description of a data set of pictures, and how a picture is made to fit it.

    Args:
        channels: 1 (grey) or 3 (red, green, blue).
        height: Height of a prepared picture in pixels.
        width: Width of a prepared picture in pixels.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        classes: Class names; a target is a place in this list.
        multilabel: Whether a picture may have any number of the classes.
        crop_pct: Share of the height and width that is kept after resizing, in (0, 1].
        interpolation: `bilinear` or `bicubic`, both with antialiasing.
        prevalence: For multi-label data the share of training pictures that have each class, else empty.

    Raises:
        ValueError: If a value cannot be used.
    """

    about: ClassVar[str] = "pictures"

    channels: int
    height: int
    width: int
    mean: list[float]
    std: list[float]
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}")
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"height and width must be at least 1, got {self.height} and {self.width}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != self.channels or not all(math.isfinite(v) for v in values):
                raise ValueError(
                    f"{name} needs {self.channels} finite numbers, one a channel, got {values}"
                )
        if min(self.std) <= 0:
            raise ValueError(
                f"std must be positive in every channel, got {self.std}; are all pictures of one colour?"
            )
        self.check_labels()
        if not 0.0 < self.crop_pct <= 1.0:
            raise ValueError(f"crop_pct is a share and must lie in (0, 1], got {self.crop_pct}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}"
            )


def normalise(images: Tensor, spec: ImageSpec) -> Tensor:
    """Return (x / 255 - mean) / std in float32, channels_last.

    Args:
        images: (B, C, H, W) pixels in 0..255.
        spec: Mean and standard deviation.
    """
    scale, shift = _affine(spec, images.device)
    x = images.to(torch.float32, memory_format=torch.channels_last)
    return (x.clone() if x is images else x).mul_(scale).add_(shift)


def denormalise(images: Tensor, spec: ImageSpec) -> Tensor:
    """Return what `normalise` was given, in [0, 1]."""
    scale, shift = _affine(spec, images.device)
    return ((images.float() - shift) / (scale * 255.0)).clamp_(0.0, 1.0)


def _affine(spec: ImageSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift, each (C, 1, 1), such that x * scale + shift is normalised."""
    std = torch.tensor(spec.std, device=device).view(-1, 1, 1)
    mean = torch.tensor(spec.mean, device=device).view(-1, 1, 1)
    return 1.0 / (255.0 * std), -mean / std
