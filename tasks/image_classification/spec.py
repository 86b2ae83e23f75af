"""What a task must know of pictures: size, normalisation and class names."""

from dataclasses import dataclass
from typing import ClassVar

from resdomains.classification import Labels
from resdomains.vision import PictureSpec

INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Labels, PictureSpec):
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

    height: int
    width: int
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        self.check_pixels()
        if self.height < 1 or self.width < 1:
            raise ValueError(
                f"height and width must be at least 1, got {self.height} and {self.width}"
            )
        self.check_labels()
        if not 0.0 < self.crop_pct <= 1.0:
            raise ValueError(f"crop_pct is a share and must lie in (0, 1], got {self.crop_pct}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}"
            )
