"""Weights from other libraries, which are imported only when a source is read."""

from resdomains.interop.loading import Loaded, load_state
from resdomains.interop.naming import NAMINGS, Naming
from resdomains.interop.sources import HuggingFace, Timm, Torchvision, Weights

__all__ = [
    "NAMINGS",
    "HuggingFace",
    "Loaded",
    "Naming",
    "Timm",
    "Torchvision",
    "Weights",
    "load_state",
]
