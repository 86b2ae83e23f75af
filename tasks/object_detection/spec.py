"""What a task must know of annotated pictures: plain values, so that a checkpoint can carry them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from resdomains.vision import PictureSpec

from .sizes import Size, size_of


@dataclass(frozen=True, kw_only=True)
class DetectionSpec(PictureSpec):
    """The plain description of pictures with boxes, and the size at which the network sees a picture.

    Args:
        channels: 1 (grey) or 3 (red, green, blue).
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        size: `{"shorter": S, "longer": L}` or `{"height": H, "width": W}`, in pixels, as `sizes` explains.
        classes: Class names; a label is a place in this list.
        category_ids: The number of each class in COCO's JSON; 1, 2, ... if not given.

    Raises:
        ValueError: If a value cannot be used.
    """

    about: ClassVar[str] = "pictures with boxes"

    size: dict[str, int]
    classes: list[str]
    category_ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.check_pixels()
        size_of(self.size)
        if not self.classes:
            raise ValueError("classes must name at least one class, got none")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(
                f"classes must differ, but these names occur twice: {', '.join(twice)}"
            )
        if not self.category_ids:
            object.__setattr__(self, "category_ids", list(range(1, len(self.classes) + 1)))
        if len(set(self.category_ids)) != len(self.classes):
            raise ValueError(
                f"category_ids needs {len(self.classes)} different numbers, one a class, got {self.category_ids}"
            )

    @property
    def fitting(self) -> Size:
        """How a picture is brought to size."""
        return size_of(self.size)

    @property
    def input_meaning(self) -> dict[str, Any]:
        """The channels; mean, std and size may differ between data."""
        return {"channels": self.channels}

    @property
    def output_names(self) -> list[str]:
        """The classes: of an earlier run's head, those that both know keep their weights."""
        return self.classes
