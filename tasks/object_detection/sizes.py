"""The size at which a network sees a picture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

MULTIPLE = 32
"""Batches are padded to multiples of this, so that every level of a pyramid has whole positions."""


class Size(ABC):
    """How a picture of any size is brought to the network's: scaled as a whole, so that its shapes stay."""

    @abstractmethod
    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width in pixels, at least 1, to which a picture is resized."""

    @abstractmethod
    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a batch whose largest resized pictures have these: multiples of `MULTIPLE`."""

    @abstractmethod
    def plain(self) -> dict[str, int]:
        """Return what `size_of` builds the same from."""


class ShorterSide(Size):
    """The shorter side becomes `shorter`, unless the longer one would exceed `longer`, which it then becomes.

    Torchvision's and Detectron2's rule. A batch is as large as its pictures need.

    Args:
        shorter: Pixels.
        longer: Pixels.

    Raises:
        ValueError: Unless 1 <= shorter <= longer.
    """

    def __init__(self, shorter: int = 800, longer: int = 1333) -> None:
        if not 1 <= shorter <= longer:
            raise ValueError(
                f"shorter and longer must be rising pixels from 1, got {shorter} and {longer}"
            )
        self.shorter, self.longer = shorter, longer

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        factor = min(self.shorter / min(height, width), self.longer / max(height, width))
        return _times(height, factor), _times(width, factor)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        return _up(height), _up(width)

    def plain(self) -> dict[str, int]:
        return {"shorter": self.shorter, "longer": self.longer}


class Letterbox(Size):
    """The picture becomes as large as fits in `height` x `width`; all batches have that size, which compilers like.

    Args:
        height: Pixels, a multiple of 32.
        width: Pixels, a multiple of 32.

    Raises:
        ValueError: If one is no positive multiple of 32.
    """

    def __init__(self, height: int, width: int) -> None:
        if height < 1 or width < 1 or height % MULTIPLE or width % MULTIPLE:
            raise ValueError(
                f"height and width must be positive multiples of {MULTIPLE}, got {height} and {width}; "
                f"take {_up(max(height, 1))} and {_up(max(width, 1))}"
            )
        self.height, self.width = height, width

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        factor = min(self.height / height, self.width / width)
        return min(_times(height, factor), self.height), min(_times(width, factor), self.width)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        return max(_up(height), self.height), max(_up(width), self.width)

    def plain(self) -> dict[str, int]:
        return {"height": self.height, "width": self.width}


def size_of(plain: Mapping[str, int]) -> Size:
    """Build what `plain` describes.

    Raises:
        ValueError: If it describes no size.
    """
    match dict(plain):
        case {"shorter": shorter, "longer": longer, **others} if not others:
            return ShorterSide(shorter, longer)
        case {"height": height, "width": width, **others} if not others:
            return Letterbox(height, width)
    raise ValueError(
        f"size must have shorter and longer, or height and width, got {', '.join(plain) or 'nothing'}"
    )


def _times(pixels: int, factor: float) -> int:
    return max(1, round(pixels * factor))


def _up(pixels: int) -> int:
    return -(-pixels // MULTIPLE) * MULTIPLE
