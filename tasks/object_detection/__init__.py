"""Object detection: boxes around the objects of a picture, with their classes."""

from .annotations import Annotated, Corpus, Picture, objects
from .assignment import Assignment, CenterSampling
from .augment import ScaleJitter
from .coco import CocoFiles
from .data import DetectionData
from .export import write_coco
from .fcos import (
    DetectionHead,
    Exponential,
    FCOSHead,
    Rectified,
    SpreadGrid,
    StrideGrid,
)
from .losses import ByCenterness, Equal
from .mosaic import Mosaic
from .scenes import Scenes
from .sizes import Letterbox, ShorterSide, Size
from .spec import DetectionSpec
from .task import ObjectDetection
from .voc import VocFiles
from .weights import TorchvisionDetector
from .yolo import YoloFiles

__all__ = [
    "Annotated",
    "Assignment",
    "ByCenterness",
    "CenterSampling",
    "CocoFiles",
    "Corpus",
    "DetectionData",
    "DetectionHead",
    "DetectionSpec",
    "Equal",
    "Exponential",
    "FCOSHead",
    "Letterbox",
    "Mosaic",
    "ObjectDetection",
    "Picture",
    "Rectified",
    "ScaleJitter",
    "Scenes",
    "ShorterSide",
    "Size",
    "SpreadGrid",
    "StrideGrid",
    "TorchvisionDetector",
    "VocFiles",
    "YoloFiles",
    "objects",
    "write_coco",
]
