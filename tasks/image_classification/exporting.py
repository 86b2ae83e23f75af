"""A classifier of pictures as ONNX computes it: pixels in, probabilities out."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from resdomains.classification import Loss
from resdomains.interop import onnx_graph, save_onnx
from resdomains.vision import normalise

from .spec import ImageSpec


class _FromPixels(nn.Module):
    """Maps (B, C, H, W) uint8 to (B, K) probabilities."""

    def __init__(self, backbone: nn.Module, head: nn.Module, loss: Loss, spec: ImageSpec) -> None:
        super().__init__()
        self.backbone, self.head, self.loss, self.spec = backbone, head, loss, spec

    def forward(self, images: Tensor) -> Tensor:
        return self.loss.probabilities(self.head(self.backbone(normalise(images, self.spec))))


def write_onnx(
    backbone: nn.Module, head: nn.Module, loss: Loss, spec: ImageSpec, folder: Path
) -> str:
    """Write the network as ONNX in a folder, and return in words what was written."""
    size = (spec.channels, spec.height, spec.width)
    model = onnx_graph(
        _FromPixels(backbone, head, loss, spec),
        {"images": torch.zeros(2, *size, dtype=torch.uint8)},
        ["probabilities"],
        {"images": {0: Dim("batch")}},
    )
    colours = "grey" if spec.channels == 1 else "red, green, blue"
    shape = f"(batch, {', '.join(map(str, size))})"
    about = {
        "task": "image_classification",
        "input": f"images: uint8 {shape}, {colours}, not normalised",
        "output": f"probabilities: float32 (batch, {len(spec.classes)}), in the order of the classes",
        "classes": spec.classes,
        "spec": spec.plain(),
    }
    save_onnx(model, folder, about)
    return f"model.onnx: uint8 pixels {shape} to probabilities of {len(spec.classes)} classes"
