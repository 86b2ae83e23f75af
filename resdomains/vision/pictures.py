"""Read picture files that nobody has checked, and resize them."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from resdomains.training import BadSample
from resdomains.training.folders import check_regular, files_below

SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".pgm",
        ".ppm",
        ".pnm",
        ".avif",
    )
)
# Formats that PIL decodes itself: it hands others (EPS) to outside programs.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 2**26
"""Larger pictures are refused: a small file can claim any size and fill the memory."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats to try; asked for one that this PIL was built without, it raises KeyError."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def find_pictures(folder: str | Path) -> Iterator[str]:
    """Return the paths of the pictures in a folder and its subfolders, in a fixed order, hidden ones left out."""
    return files_below(folder, lambda name: Path(name).suffix.lower() in SUFFIXES)


def read_pictures(inputs: Iterable[str], channels: int) -> Iterator[tuple[str, Tensor] | BadSample]:
    """Yield each picture of files and folders, its path and (C, H, W) uint8, or a `BadSample` where one is broken.

    Args:
        inputs: Files, and folders whose pictures are read; one without any is a `BadSample`.
        channels: 1 for grey, 3 for red, green, blue.
    """
    for path in map(Path, inputs):
        files = list(find_pictures(path)) if path.is_dir() else [str(path)]
        if not files:
            yield BadSample(str(path), "a folder without pictures")
        for file in files:
            try:
                picture = read_picture(file, channels)
            except BadSample as error:
                yield error
            else:
                yield file, picture


def read_picture(path: str | Path, channels: int) -> Tensor:
    """Decode a picture file to 8 bits a channel.

    The orientation in its EXIF data is applied. What is transparent is laid on white. 16-bit grey is divided by 257.
    CMYK is converted by PIL's formula, without its colour profile. Of an animation the first frame is taken.

    Args:
        path: The file.
        channels: 1 for grey (ITU-R 601 luma), 3 for red, green, blue.

    Returns:
        (C, H, W) uint8.

    Raises:
        BadSample: If the file is missing, is no picture, is damaged, is larger than `MAX_PIXELS`, or holds pixels
            whose scale is not known (32-bit integers, floats).
    """
    with _opened(path) as opened:
        pixels = _pixels(opened, channels)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


class Header(NamedTuple):
    """What a picture file's header states.

    Args:
        height: Pixels of the stored picture.
        width: Pixels of the stored picture.
        orientation: EXIF's number of how the stored picture is turned to stand upright: 1 (as it is) to 8. From 5 on,
            its sides are swapped.
    """

    height: int
    width: int
    orientation: int


def read_header(path: str | Path) -> Header:
    """Read a picture file's header; its pixels are not decoded.

    Raises:
        BadSample: If the file is missing, is no picture, or is larger than `MAX_PIXELS`.
    """
    with _opened(path) as opened:
        # PNG's own getexif decodes the whole picture, in search of EXIF data behind the pixels.
        orientation = Image.Image.getexif(opened).get(ExifTags.Base.Orientation, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        # PIL turns a TIFF itself, and states the size that it will then have.
        if opened.format == "TIFF" and orientation >= 5:
            return Header(opened.width, opened.height, orientation)
        return Header(opened.height, opened.width, orientation)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture file; whatever is wrong with it is a BadSample."""
    check_regular(path)
    try:
        with warnings.catch_warnings():
            # PIL warns of odd metadata, which nobody can act on here; of bombs it warns before it raises.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_formats()) as opened:
                width, height = opened.size
                if width * height > MAX_PIXELS:
                    raise BadSample(
                        str(path),
                        f"{width} x {height} pixels, more than the {MAX_PIXELS:,} that are accepted",
                    )
                if opened.format == "TIFF":
                    # Of a file with a name PIL maps plain pixels into memory, with the sides of what it will turn
                    # swapped (seen in 13.0): that scrambles them.
                    opened.filename = ""
                yield opened
    except BadSample:
        raise
    except FileNotFoundError as error:
        raise BadSample(str(path), "no such file or folder") from error
    except IsADirectoryError as error:
        raise BadSample(str(path), "a folder, not a picture") from error
    except UnidentifiedImageError as error:
        raise BadSample(str(path), "not a picture in a format that is read") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadSample(
            str(path), f"more than the {MAX_PIXELS:,} pixels that are accepted"
        ) from error
    except (
        Exception
    ) as error:  # PIL's decoders raise many types on damaged files, among them SyntaxError
        raise BadSample(str(path), f"damaged picture ({type(error).__name__}: {error})") from error


def _pixels(image: Image.Image, channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a picture's pixels as a writable (H, W) or (H, W, 3) uint8 array."""
    form = image.format
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and form in ("PNG", "PPM")):
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((wide + 128) // 257).clip(0, 255).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating point"
        raise ValueError(
            f"{kind} pixels, whose scale is not known; save it with 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    # A grey picture must not pass through RGB: the luma of equal channels can round away from them.
    return np.array(image.convert("L" if channels == 1 else "RGB"))


def resize(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """Return a (C, H, W) uint8 picture resized to (C, height, width), antialiased."""
    if image.shape[-2:] == (height, width):
        return image
    # The copy in channels_last takes torch's vectorised uint8 path.
    batch = image[None].contiguous(memory_format=torch.channels_last)
    return F.interpolate(batch, (height, width), mode=interpolation, antialias=True)[0]
