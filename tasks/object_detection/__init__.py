"""Object detection: boxes around the objects of a picture, with their classes."""

from .annotations import Annotated, Corpus, Picture, objects
from .assignment import Assignment, CenterSampling
from .augment import ScaleJitter
from .data import DetectionData
from .fcos import DetectionHead, Exponential, FCOSHead, Rectified
from .mosaic import Mosaic
from .sizes import Letterbox, ShorterSide, Size
from .spec import DetectionSpec
from .task import ObjectDetection
from .voc import VocFiles

__all__ = [
    "Annotated",
    "Assignment",
    "CenterSampling",
    "Corpus",
    "DetectionData",
    "DetectionHead",
    "DetectionSpec",
    "Exponential",
    "FCOSHead",
    "Letterbox",
    "Mosaic",
    "ObjectDetection",
    "Picture",
    "Rectified",
    "ScaleJitter",
    "ShorterSide",
    "Size",
    "VocFiles",
    "objects",
]
