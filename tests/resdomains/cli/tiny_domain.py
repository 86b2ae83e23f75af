"""A domain small enough for tests of the launcher: points of two classes, a network of one layer."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy

from resdomains.schema import Split
from resdomains.training import BadSample, DataModule, Optimization, StepResult, Task


class Net(nn.Module):
    """A linear layer of `width` outputs."""

    def __init__(self, width: int = 4, act: nn.Module | None = None) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.layer = nn.Linear(2, width)
        self.act = act or nn.ReLU()
        self.depth = 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.layer(x))
        return out


def net(width: int = 4) -> Net:
    """A network made by a function."""
    return Net(width)


class Fault:
    """Something that goes wrong at a step."""

    def __init__(self, at: int = 2) -> None:
        self.at = at

    def strike(self, step: int, loss: Tensor) -> Tensor:
        return loss


class NoSpace(Fault):
    """The disk is full."""

    def strike(self, step: int, loss: Tensor) -> Tensor:
        if step >= self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.ckpt")
        return loss


class NotANumber(Fault):
    """The loss becomes NaN."""

    def strike(self, step: int, loss: Tensor) -> Tensor:
        return loss * float("nan") if step >= self.at else loss


class FirstRankFails(Fault):
    """The first process raises."""

    def strike(self, step: int, loss: Tensor) -> Tensor:
        if step >= self.at and os.environ.get("LOCAL_RANK", "0") == "0":
            raise RuntimeError("the first process met its fault")
        return loss


class Bug(Fault):
    """A mistake in the code."""

    def strike(self, step: int, loss: Tensor) -> Tensor:
        raise KeyError("a mistake in the code")


class Tiny(Task):
    """Two classes from two numbers."""

    def __init__(
        self,
        *,
        backbone: nn.Module,
        spec: dict[str, Any],
        scale: float = 1.0,
        fault: Fault | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.fault = fault or Fault()
        width = backbone(torch.zeros(1, 2)).shape[1]
        self.head = nn.Linear(width, 1)
        self.build_all_metrics()

    def build_metrics(self) -> dict[str, Metric]:
        return {"accuracy": BinaryAccuracy()}

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone(x))[:, 0]
        return out

    def embed(self, batch: Any) -> Tensor:
        out: Tensor = self.backbone(batch["x"])
        return out

    def step(self, batch: Any, split: Split) -> StepResult:
        x, y = batch
        logits = self(x)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
        if split == "train":
            loss = self.fault.strike(self.trainer.global_step, loss)
        else:
            self.metrics_of(split)["accuracy"].update(logits.sigmoid(), y.int())
        return StepResult(loss, len(x))

    def predict(self, batch: Any) -> list[dict[str, Any]]:
        probabilities = self(batch["x"]).sigmoid().tolist()
        return [
            {"source": source, "probability": p, "top": [["one", p], ["zero", 1 - p]]}
            for source, p in zip(batch["source"], probabilities, strict=True)
        ]

    _cut = 0.5
    predict_options: ClassVar = {"cut": float, "least": int}

    @property
    def least(self) -> int:
        """The smallest whole number."""
        return 0

    @least.setter
    def least(self, value: int) -> None:
        assert isinstance(value, int)

    @property
    def cut(self) -> float:
        """The probability from which it is one.

        Not shown in the help.
        """
        return self._cut

    @cut.setter
    def cut(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"cut must lie in [0, 1], got {value}")
        self._cut = value

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {**record, "class": "one" if record["probability"] >= self.cut else "zero"}

    def formats(self) -> dict[str, Any]:
        return {"count": lambda records: f"{len(records)} points"}

    def draw(self, record: Mapping[str, Any]) -> Tensor:
        if not Path(record["source"]).is_file():
            raise BadSample(record["source"], "gone")
        grey = torch.tensor(round(255 * record["probability"]), dtype=torch.uint8)
        return grey.expand(3, 2, 5)

    def read(self, inputs: Sequence[str]) -> Iterator[Any]:
        for path in map(Path, inputs):
            for file in sorted(path.glob("*.txt")) if path.is_dir() else [path]:
                try:
                    yield {"source": str(file), "x": [float(v) for v in file.read_text().split()]}
                except ValueError as error:
                    yield BadSample(str(file), str(error))

    def collate(self, items: Sequence[Any]) -> Any:
        return {"source": [i["source"] for i in items], "x": torch.tensor([i["x"] for i in items])}

    exports: ClassVar = ("huggingface", "plain")
    export_options: ClassVar = {"cut": float}

    def export(self, folder: Path, format: str) -> str:
        (folder / "config.json").write_text(f"{format} {self.cut}")
        (folder / "weights.txt").write_text(str(self.head.weight.tolist()))
        if self.head.in_features == 7:
            raise ValueError("seven is no width of theirs")
        return "a tiny network"

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        return results["accuracy"]

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        return 0.5


class Points(DataModule):
    """Random points; class one lies above the diagonal."""

    def __init__(
        self,
        *,
        batch_size: int = 16,
        root: str | None = None,
        num_workers: int = 0,
        tested: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.root = root
        self.tested = tested

    def prepare(self) -> None:
        if self.root is not None and not Path(self.root).is_dir():
            raise ValueError(f"root: no folder {self.root}")

    @property
    def spec(self) -> dict[str, Any]:
        return {"classes": ["zero", "one"]}

    def dataset(self, split: Split) -> Dataset[Any] | None:
        if split == "test" and not self.tested:
            return None
        generator = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
        x = torch.randn(64 if split == "train" else 33, 2, generator=generator)
        return TensorDataset(x, (x[:, 0] < x[:, 1]).float())
