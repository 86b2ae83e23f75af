"""What all tasks that see pictures share: reading files, resizing, normalisation."""

from resdomains.vision.pictures import (
    MAX_PIXELS,
    SUFFIXES,
    Header,
    find_pictures,
    read_header,
    read_picture,
    read_pictures,
    resize,
)
from resdomains.vision.spec import (
    GREY_MEAN,
    GREY_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PictureSpec,
    denormalise,
    normalise,
)

__all__ = [
    "GREY_MEAN",
    "GREY_STD",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_PIXELS",
    "SUFFIXES",
    "Header",
    "PictureSpec",
    "denormalise",
    "find_pictures",
    "normalise",
    "read_header",
    "read_picture",
    "read_pictures",
    "resize",
]
