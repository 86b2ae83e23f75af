"""Weights from earlier runs, and from and to other libraries, which are imported when needed."""

from resdomains.interop.checkpoint import Checkpoint
from resdomains.interop.export import export_encoder
from resdomains.interop.loading import Loaded, load_state
from resdomains.interop.naming import NAMINGS, Naming
from resdomains.interop.onnx import joined, onnx_graph, onnx_text, save_onnx
from resdomains.interop.sources import HuggingFace, Timm, Torchvision, Weights

__all__ = [
    "NAMINGS",
    "Checkpoint",
    "HuggingFace",
    "Loaded",
    "Naming",
    "Timm",
    "Torchvision",
    "Weights",
    "export_encoder",
    "joined",
    "load_state",
    "onnx_graph",
    "onnx_text",
    "save_onnx",
]
