"""Image classification, with one label a picture or several."""

from .augment import (
    Augment,
    CutMix,
    Mixup,
    OneOf,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    TrivialAugment,
)
from .cifar import Cifar
from .data import ImageData, MemoryImages
from .digits import Digits
from .folder import ImageFolder, RandomResizedCrop
from .mnist import MnistFiles
from .spec import ImageSpec
from .task import ImageClassification

__all__ = [
    "Augment",
    "Cifar",
    "CutMix",
    "Digits",
    "ImageClassification",
    "ImageData",
    "ImageFolder",
    "ImageSpec",
    "MemoryImages",
    "Mixup",
    "MnistFiles",
    "OneOf",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomResizedCrop",
    "TrivialAugment",
]
