"""Tell how high a tone is."""

import wave
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from resdomains.core import PooledHead, ResNet1d
from resdomains.schema import Split
from resdomains.training import BadSample, Optimization, StepResult, Task

from .data import pad


class ToneTagging(Task):
    """A residual network over the wave and a linear head; the score is the share of right answers.

    Args:
        backbone: A network over (B, 1, L) waves and their lengths.
        spec: What the data module says of its data.
        optimization: Optimizer, rate and schedule.
    """

    def __init__(
        self, *, backbone: ResNet1d, spec: dict[str, Any], optimization: Optimization | None = None
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.head = PooledHead(backbone.out_channels[-1], len(spec["classes"]))
        self.build_all_metrics()

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return (B, K) logits."""
        # The lengths keep a tone's result apart from how far its batch is padded.
        logits: Tensor = self.head(self.backbone(batch["wave"], batch["lengths"]))
        return logits.float()

    def build_metrics(self) -> dict[str, Metric]:
        return {"top1": MulticlassAccuracy(len(self.spec["classes"]), average="micro")}

    def step(self, batch: Any, split: Split) -> StepResult:
        logits = self(batch)
        if split != "train":
            self.metrics_of(split)["top1"].update(logits, batch["target"])
        # The base logs: the loss must be the mean over the batch's samples, whose number comes with it.
        return StepResult(torch.nn.functional.cross_entropy(logits, batch["target"]), len(logits))

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        return results["top1"]

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        return 1 / len(spec["classes"])

    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Any] | BadSample]:
        # What cannot be read is yielded in its place: `predict` then refuses it by name, or skips it.
        for path in inputs:
            try:
                with wave.open(path, "rb") as file:
                    if (file.getframerate(), file.getsampwidth()) != (self.spec["rate"], 2):
                        raise ValueError(f"expected 16 bits at {self.spec['rate']} Hz")
                    samples = torch.frombuffer(bytearray(file.readframes(2**24)), dtype=torch.int16)
                yield {"wave": samples / 2**15, "source": path}
            except (wave.Error, EOFError, OSError, ValueError) as error:
                yield BadSample(path, f"not a WAV file that is read ({error})")

    def collate(self, items: Sequence[Any]) -> dict[str, Any]:
        return {**pad([i["wave"] for i in items]), "source": [i["source"] for i in items]}

    def predict(self, batch: Any) -> list[dict[str, Any]]:
        records = []
        for source, p in zip(batch["source"], self(batch).softmax(1), strict=True):
            label = self.spec["classes"][int(p.argmax())]
            records.append({"source": source, "label": label, "probability": float(p.max())})
        return records
