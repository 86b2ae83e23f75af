"""Say of each pixel what it shows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, relu
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from resdomains.core import FeaturePyramid, ResNet2d
from resdomains.schema import Split
from resdomains.training import BadSample, Optimization, StepResult, Task
from resdomains.vision import read_pictures, resize


class ImageSegmentation(Task):
    """A pyramid over all stages, added up at the finest and enlarged to the picture (Kirillov et al. 2019).

    The score is the classes' mean intersection over union. The best answer without a look at the picture is the most
    frequent class everywhere: that class then gets its share of the pixels, and every other one gets 0.
    """

    def __init__(
        self, *, backbone: ResNet2d, spec: dict[str, Any], optimization: Optimization | None = None
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.pyramid = FeaturePyramid(backbone.out_channels, channels=32)
        self.head = nn.Conv2d(32, len(spec["classes"]), 1)
        # Digits are few of the pixels: each counts by the inverse root of its class's share, their mean is 1.
        shares = torch.tensor(spec["shares"]).clamp(min=1e-3)
        self.register_buffer("weights", shares.rsqrt() / (shares * shares.rsqrt()).sum())
        self.build_all_metrics()

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, K, S, S) logits."""
        finest, *others = self.pyramid(self.backbone(images - 0.5).maps)
        total = sum((interpolate(x, finest.shape[-2:], mode="bilinear") for x in others), finest)
        return interpolate(self.head(relu(total)).float(), images.shape[-2:], mode="bilinear")

    def build_metrics(self) -> dict[str, Metric]:
        return {"mean_iou": MulticlassJaccardIndex(len(self.spec["classes"]))}

    def step(self, batch: Any, split: Split) -> StepResult:
        logits, target = self(batch["image"]), batch["target"]
        if split != "train":
            self.metrics_of(split)["mean_iou"].update(logits, target)
        loss = cross_entropy(logits, target, reduction="none") * self.get_buffer("weights")[target]
        return StepResult(loss.mean(), len(logits))

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        return results["mean_iou"]

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        return float(max(spec["shares"]) / len(spec["classes"]))

    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Any] | BadSample]:
        for found in read_pictures(inputs, channels=1):
            if isinstance(found, BadSample):
                yield found
            else:
                image = resize(found[1], self.spec["size"], self.spec["size"], "bilinear")
                yield {"image": image / 255, "source": found[0]}

    def collate(self, items: Sequence[Any]) -> dict[str, Any]:
        images = torch.stack([item["image"] for item in items])
        return {"image": images, "source": [item["source"] for item in items]}

    def predict(self, batch: Any) -> list[dict[str, Any]]:
        records, classes = [], self.spec["classes"]
        for source, mask in zip(batch["source"], self(batch["image"]).argmax(1), strict=True):
            shares = {name: float((mask == k).float().mean()) for k, name in enumerate(classes)}
            records.append({"source": source, "shares": shares, "mask": mask.tolist()})
        return records

    def row(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"source": record["source"], **record["shares"]}

    def draw(self, record: Mapping[str, Any]) -> Tensor:
        """Return (3, S, S) uint8: a colour for each class, black for the ground."""
        steps = torch.arange(len(self.spec["classes"]))[:, None] * torch.tensor([97, 57, 151])
        return (steps % 256).to(torch.uint8)[torch.tensor(record["mask"])].permute(2, 0, 1)
