"""Weights from and to other libraries, which are imported only when they are needed."""

from resdomains.interop.export import export_encoder
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
    "export_encoder",
    "load_state",
]
