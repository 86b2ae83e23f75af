"""A task that trains in milliseconds: two clouds of points, a linear network."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from resdomains.schema import Split
from resdomains.training import DataModule, Optimization, StepResult, Task


class Clouds(DataModule):
    """Points of two classes; `poison` makes the first training point not a number."""

    def __init__(
        self,
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        poison: bool = False,
        val: int = 13,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.poison, self.val = poison, val

    def prepare(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.targets = torch.arange(64) % 2
        self.points = torch.randn(64, 4, generator=generator) + 3 * self.targets[:, None]
        if self.poison:
            self.points[0] = torch.nan

    @property
    def spec(self) -> dict[str, Any]:
        self.ready()
        return {"features": 4, "classes": ["left", "right"]}

    def dataset(self, split: Split) -> Dataset[Any] | None:
        part = {"train": slice(0, 40), "val": slice(40, 40 + self.val), "test": slice(53, 64)}[
            split
        ]
        if split == "val" and not self.val:
            return None
        return TensorDataset(self.points[part], self.targets[part], torch.arange(64)[part])


class Linear(nn.Module):
    """A linear layer where a backbone is expected."""

    def __init__(self, features: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x)
        return logits


class Side(Task):
    """Tell the side of a point."""

    def __init__(
        self, *, backbone: nn.Module, spec: dict[str, Any], optimization: Optimization | None = None
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.build_all_metrics()

    def build_metrics(self) -> dict[str, Metric]:
        return {"top1": MulticlassAccuracy(2, average="micro")}

    def step(self, batch: Any, split: Split) -> StepResult:
        points, targets, _ = batch
        logits = self.backbone(points)
        if split != "train":
            self.metrics_of(split)["top1"].update(logits, targets)
        return StepResult(nn.functional.cross_entropy(logits.float(), targets), len(targets))

    def predict(self, batch: Any) -> list[dict[str, Any]]:
        return [{"label": self.spec["classes"][i]} for i in self.backbone(batch).argmax(1).tolist()]

    def read(self, inputs: Sequence[str]) -> Iterable[Any]:
        for path in map(Path, inputs):
            yield torch.tensor([float(x) for x in path.read_text().split()])

    def collate(self, items: Sequence[Any]) -> Any:
        return torch.stack(list(items))

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        return results["top1"]

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        return 1 / len(spec["classes"])
