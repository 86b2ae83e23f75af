"""Make a picture of any size fit."""

from torch import Tensor

from resdomains.vision import resize

from .spec import ImageSpec


def fit(image: Tensor, spec: ImageSpec) -> Tensor:
    """Resize a picture until it covers height / crop_pct by width / crop_pct, and keep the middle.

    Args:
        image: (C, H, W) uint8.
        spec: The size wanted.

    Returns:
        (C, spec.height, spec.width) uint8.
    """
    height, width = image.shape[-2:]
    scale = max(spec.height / height, spec.width / width) / spec.crop_pct
    # Far more than the crop needs; without it a picture one pixel wide would be blown up to gigabytes.
    image = _middle(
        image,
        int(min(height, 4 * spec.height / scale + 1)),
        int(min(width, 4 * spec.width / scale + 1)),
    )
    height, width = image.shape[-2:]
    tall, wide = max(spec.height, round(height * scale)), max(spec.width, round(width * scale))
    return _middle(resize(image, tall, wide, spec.interpolation), spec.height, spec.width)


def _middle(image: Tensor, height: int, width: int) -> Tensor:
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]
