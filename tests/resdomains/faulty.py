"""Tasks and data that each break one rule of the contract, and a sound one beside them."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import MeanMetric, Metric

from resdomains.core import ResNet1d, Reversible, Store
from resdomains.scaffold.tone_tagging.src.tone_tagging.data import Tones
from resdomains.scaffold.tone_tagging.src.tone_tagging.task import ToneTagging
from resdomains.schema import Split
from resdomains.training import BadSample, Optimization, StepResult
from resdomains.training.batches import Batches, ShardedBatches


class Sound(ToneTagging):
    """Breaks nothing."""


class AddsToScore(ToneTagging):
    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        return results["top1"] + 1


class CertainChance(ToneTagging):
    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        return 1.0


class NanMetric(ToneTagging):
    class Nan(MeanMetric):
        def compute(self) -> Tensor:
            return super().compute() * torch.nan

    def build_metrics(self) -> dict[str, Metric]:
        return {**super().build_metrics(), "f1": self.Nan()}

    def step(self, batch: Any, split: Split) -> StepResult:
        if split != "train":
            self.metrics_of(split)["f1"].update(1.0)
        return super().step(batch, split)


class ForgottenMetric(ToneTagging):
    def build_metrics(self) -> dict[str, Metric]:
        late = {"f1": MeanMetric()} if hasattr(self, "metrics") else {}
        return {**super().build_metrics(), **late}


class LogsByHand(ToneTagging):
    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.write({"val/extra": 1.0})


class BatchStatisticsInEval(ToneTagging):
    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        self.backbone.train()
        return super().forward(batch)


class HearsPadding(ToneTagging):
    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        longest = torch.full_like(batch["lengths"], batch["wave"].shape[-1])
        return super().forward({**batch, "lengths": longest})


class Undecided(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        result = super().step(batch, split)
        clock = torch.Generator().manual_seed(time.time_ns())
        result.loss = result.loss * (1 + 1e-3 * torch.rand((), generator=clock))
        return result


class ForgetsOnResume(ToneTagging):
    seen = 0

    def step(self, batch: Any, split: Split) -> StepResult:
        result = super().step(batch, split)
        if split == "train":
            self.seen += 1
            result.loss = result.loss * (1 + 0.01 * self.seen)
        return result


class ScoresItself(ToneTagging):
    evaluated = 0

    def step(self, batch: Any, split: Split) -> StepResult:
        self.evaluated += split != "train"
        return super().step(batch, split)

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        return super().score(results) / self.evaluated


class CountsBatches(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        return StepResult(super().step(batch, split).loss, 1)


class IdleParameter(ToneTagging):
    def __init__(
        self, *, backbone: ResNet1d, spec: dict[str, Any], optimization: Optimization | None = None
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.idle = torch.nn.Linear(2, 2)


class IgnoresTargets(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        logits = self(batch)
        if split != "train":
            self.metrics_of(split)["top1"].update(logits, batch["target"])
        return StepResult(logits.square().mean() + 1, len(logits))


class NeedsTraining(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        self.loudness = float(batch["wave"].abs().max())
        return super().step(batch, split)

    def predict(self, batch: Any) -> list[dict[str, Any]]:
        return [{**record, "loudness": self.loudness} for record in super().predict(batch)]


class Squeezes(ToneTagging):
    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return super().forward(batch).squeeze()


class HidesNan(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        result = super().step(batch, split)
        return StepResult(torch.nan_to_num(result.loss), result.items)


class RoughInHalf(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        result = super().step(batch, split)
        rough = 1.2 if torch.is_autocast_enabled("cpu") else 1.0
        return StepResult(result.loss * rough, result.items)


class OwnBackbone(ToneTagging):
    def __init__(
        self, *, backbone: ResNet1d, spec: dict[str, Any], optimization: Optimization | None = None
    ) -> None:
        own = ResNet1d(layers=[1], channels=[8], in_channels=1)
        super().__init__(backbone=own, spec=spec, optimization=optimization)


class CountsOperations(ToneTagging):
    """What is first called under a dispatch mode, torch never compiles."""

    def step(self, batch: Any, split: Split) -> StepResult:
        with FlopCounterMode(display=False):
            return super().step(batch, split)


class CountsPasses(ToneTagging):
    def __init__(
        self, *, backbone: ResNet1d, spec: dict[str, Any], optimization: Optimization | None = None
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.register_buffer("passes", torch.zeros(()))
        _, block = next(iter(backbone.blocks()))
        block.register_forward_pre_hook(self.count)

    def count(self, *_: Any) -> None:
        self.get_buffer("passes").add_(1)


class NeedsValidation(ToneTagging):
    def on_fit_end(self) -> None:
        super().on_fit_end()
        self.last_score = float(self.results["val"]["score"])


class RefusesLate(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        if any(isinstance(getattr(m, "coupling", None), Reversible) for m in self.modules()):
            raise ValueError("two streams are one too many")
        return super().step(batch, split)


class AsksForMemory(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        result = super().step(batch, split)
        kept = any(isinstance(getattr(m, "memory", None), Store) for m in self.modules())
        return StepResult(result.loss * (1 if kept else 1.1), result.items)


class Exports(ToneTagging):
    """Writes its weights, as a library's own format would hold them."""

    exports: ClassVar[Sequence[str]] = ("weights",)

    def export(self, folder: Path, format: str) -> str:
        save_file(self.exported(), folder / "model.safetensors")
        return "weights"

    def exported(self) -> dict[str, Tensor]:
        return {name: value.contiguous() for name, value in self.state_dict().items()}


class ExportsRoughly(Exports):
    def exported(self) -> dict[str, Tensor]:
        return {n: v.bfloat16().to(v.dtype) for n, v in super().exported().items()}


class SkipsBadFiles(ToneTagging):
    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Any] | BadSample]:
        return (item for item in super().read(inputs) if not isinstance(item, BadSample))


class SumsLosses(ToneTagging):
    def step(self, batch: Any, split: Split) -> StepResult:
        logits = self(batch)
        if split != "train":
            self.metrics_of(split)["top1"].update(logits, batch["target"])
        loss = F.cross_entropy(logits, batch["target"], reduction="sum")
        return StepResult(loss / 8, len(logits))


class PadsEvaluation(Tones):
    """Deals every process equally many samples, some of them twice."""

    class Padded(ShardedBatches):
        def batches(self, epoch: int) -> Iterator[list[int]]:
            yield from super().batches(epoch)
            if not self.shuffle and self.world > 1:
                yield [0]

    def batch_sampler(self, split: Any, rank: int, world: int) -> Batches:
        usual = super().batch_sampler(split, rank, world)
        assert isinstance(usual, ShardedBatches)
        return self.Padded(
            usual.length, usual.batch_size, rank, world, shuffle=usual.shuffle, seed=self.seed
        )


class TupleSpec(Tones):
    @property
    def spec(self) -> dict[str, Any]:
        return {**super().spec, "shape": (1, 300)}


class TensorSpec(Tones):
    @property
    def spec(self) -> dict[str, Any]:
        return {**super().spec, "mean": [torch.zeros(())]}


class NumberedSpec(Tones):
    count = itertools.count()

    @property
    def spec(self) -> dict[str, Any]:
        return {**super().spec, "made": next(self.count)}


class AcceptsAnything(Tones):
    def __init__(self, *, batch_size: int = 8, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(batch_size=max(batch_size, 1), num_workers=num_workers, seed=seed)
