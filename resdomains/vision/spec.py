"""What is known of the pixels of a data set's pictures, and how a network sees them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from resdomains.training.spec import Spec

# Of ImageNet's training pictures, as torchvision and timm use them.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)


@dataclass(frozen=True, kw_only=True)
class PictureSpec(Spec):
    """The channels of pictures and their normalisation. Descriptions of data of pictures derive from it.

    Args:
        channels: 1 (grey) or 3 (red, green, blue).
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
    """

    about: ClassVar[str] = "pictures"

    channels: int
    mean: list[float]
    std: list[float]

    def check_pixels(self) -> None:
        """Refuse channels and normalisation that cannot be.

        Raises:
            ValueError: If a value cannot be used.
        """
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}")
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


def normalise(images: Tensor, spec: PictureSpec) -> Tensor:
    """Return (x / 255 - mean) / std in float32, channels_last.

    Args:
        images: (B, C, H, W) pixels in 0..255.
        spec: Mean and standard deviation.
    """
    scale, shift = _affine(spec, images.device)
    x = images.to(torch.float32, memory_format=torch.channels_last)
    return (x.clone() if x is images else x).mul_(scale).add_(shift)


def denormalise(images: Tensor, spec: PictureSpec) -> Tensor:
    """Return what `normalise` was given, in [0, 1]."""
    scale, shift = _affine(spec, images.device)
    return ((images.float() - shift) / (scale * 255.0)).clamp_(0.0, 1.0)


def _affine(spec: PictureSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and shift, each (C, 1, 1), such that x * scale + shift is normalised."""
    std = torch.tensor(spec.std, device=device).view(-1, 1, 1)
    mean = torch.tensor(spec.mean, device=device).view(-1, 1, 1)
    return 1.0 / (255.0 * std), -mean / std
