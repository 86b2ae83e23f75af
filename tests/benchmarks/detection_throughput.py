"""FCOS with ResNet-50 against torchvision's `fcos_resnet50_fpn`: a training step and inference.

Both train all their weights with SGD on the same pictures and boxes. Torchvision's is called as its documentation says:
a list of pictures in [0, 1] and one of targets, float32; on a GPU under autocast. Its transform is set not to resize.
Ours gets the batch that the task's data make of the same pictures, normalised. Inference is from pictures to boxes,
with the weights of before training, which leave all candidates to non-maximum suppression; ours folds batch norm.

python -m tests.benchmarks.detection_throughput [--threads 2] [--device cuda --batch 16 --size 800]
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn

from resdomains.core import fold, resnet50
from resdomains_tasks.object_detection.fcos import FCOSHead
from tests.benchmarks.measure import channels_last, in_turn, ratio, report

CLASSES = 91
OBJECTS = 7  # a picture; COCO's mean
THRESHOLD = 0.05
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pictures:
    """Random square pictures with boxes from a 20th to half of their side."""

    def __init__(self, batch: int, size: int, device: str) -> None:
        draw = torch.Generator().manual_seed(0)
        extent = size * (0.05 + 0.45 * torch.rand(batch, OBJECTS, 2, generator=draw))
        corner = (size - extent) * torch.rand(batch, OBJECTS, 2, generator=draw)
        self.images = torch.rand(batch, 3, size, size, generator=draw).to(device)
        self.boxes = torch.cat((corner, corner + extent), 2).to(device)
        self.labels = torch.randint(1, CLASSES, (batch, OBJECTS), generator=draw).to(device)
        self.owner = torch.arange(batch, device=device).repeat_interleave(OBJECTS)
        self.sizes = torch.full((batch, 2), size, device=device)

    def normalised(self) -> Tensor:
        """Return what our network reads."""
        mean, std = (torch.tensor(v, device=self.images.device).view(3, 1, 1) for v in (MEAN, STD))
        return ((self.images - mean) / std).contiguous(memory_format=torch.channels_last)


class Ours(nn.Module):
    """ResNet-50 with an FCOS head, as the task runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet50()
        self.head = FCOSHead(self.backbone.out_channels, self.backbone.stride, CLASSES)
        channels_last(self)

    def forward(self, images: Tensor) -> Any:
        """Return what is said of every position."""
        return self.head(self.backbone(images))


def synchronised(run: Callable[[], None], device: str) -> Callable[[], None]:
    """Return `run`, ending when the device has."""
    if device == "cpu":
        return run

    def whole() -> None:
        run()
        torch.cuda.synchronize()

    return whole


def optimizer_of(model: nn.Module, fused: bool | None = None) -> torch.optim.Optimizer:
    """Return SGD with momentum and weight decay."""
    return torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4, fused=fused)


def our_training(pictures: Pictures, device: str, bf16: bool) -> Callable[[], None]:
    """Return a training step of ours."""
    torch.manual_seed(0)
    model = Ours().to(device).train()
    optimizer = optimizer_of(model, fused=True)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            dense = model(pictures.normalised())
            losses = model.head.loss(
                dense, pictures.boxes.flatten(0, 1), pictures.labels.flatten(), pictures.owner
            )
            loss = losses.total()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return synchronised(step, device)


def reference(size: int, device: str) -> nn.Module:
    """Return torchvision's detector, all of whose weights train."""
    torch.manual_seed(0)
    model: nn.Module = fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=size,
        max_size=size,
        score_thresh=THRESHOLD,
    )
    return model.to(device)


def their_training(pictures: Pictures, size: int, device: str) -> Callable[[], None]:
    """Return a training step of torchvision's."""
    model = reference(size, device).train()
    optimizer = optimizer_of(model)
    images = list(pictures.images)

    def step() -> None:
        targets = [
            {"boxes": boxes, "labels": labels}
            for boxes, labels in zip(pictures.boxes, pictures.labels, strict=True)
        ]
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return synchronised(step, device)


def our_inference(pictures: Pictures, device: str, bf16: bool) -> Callable[[], None]:
    """Return our inference."""
    torch.manual_seed(0)
    model = fold(Ours().to(device))
    dtype = torch.bfloat16 if bf16 else torch.float32
    model = model.to(dtype)

    def run() -> None:
        with torch.inference_mode():
            dense = model(pictures.normalised().to(dtype))
            model.head.detect(dense, pictures.sizes, THRESHOLD)

    return synchronised(run, device)


def their_inference(pictures: Pictures, size: int, device: str) -> Callable[[], None]:
    """Return torchvision's inference."""
    model = reference(size, device).eval()
    images = list(pictures.images)

    def run() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(device, torch.bfloat16, enabled=device != "cpu"),
        ):
            model(images)

    return synchronised(run, device)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=512, help="pixels, a multiple of 32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size, device = arguments.size, arguments.device
    pictures = Pictures(arguments.batch, size, device)
    kinds = {
        "training step": {
            "resdomains bf16": our_training(pictures, device, True),
            "resdomains float32": our_training(pictures, device, False),
            "torchvision": their_training(pictures, size, device),
        },
        "inference": {
            "resdomains folded bf16": our_inference(pictures, device, True),
            "resdomains folded float32": our_inference(pictures, device, False),
            "torchvision": their_inference(pictures, size, device),
        },
    }
    rows: list[dict[str, Any]] = []
    for what, runs in kinds.items():
        seconds = in_turn(runs, rounds=arguments.rounds, warmup=2)
        rows += [
            {
                "what": f"{what}, {arguments.batch} x {size} px",
                "of": name,
                "seconds": statistics.median(values),
                "pictures/s": arguments.batch / statistics.median(values),
                "faster than torchvision by": ratio(seconds["torchvision"], values),
            }
            for name, values in seconds.items()
        ]
    report("detection_throughput", rows)


if __name__ == "__main__":
    main()
