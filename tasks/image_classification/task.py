"""Image classification: a residual network, a linear head, and what is measured and shown."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from resdomains.classification import (
    AveragePrecision,
    BinaryCrossEntropy,
    CalibrationError,
    Confusion,
    CrossEntropy,
    Loss,
    MacroF1,
    MeanAveragePrecision,
    Reliability,
    TopK,
    ranking,
)
from resdomains.core import Features, Head, PooledHead
from resdomains.interop import Weights
from resdomains.schema import Split
from resdomains.training import BadSample, Optimization, StepResult, Task
from resdomains.vision import denormalise, normalise, read_pictures

from .fitting import fit
from .metrics import Mistakes
from .spec import ImageSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOP = 5


class ImageClassification(Task):
    """Name the class of a picture, or each of its labels.

    The score is top-1 accuracy, of which guessing gets 1 / classes; for multi-label data it is the mean average
    precision, of which guessing gets the mean share of pictures that have a class.

    Args:
        backbone: A network over (B, C, H, W) that returns `Features`.
        spec: What an image data module says of its pictures.
        loss: What is minimised; cross-entropy, or binary cross-entropy for multi-label data, if not given.
        head: What maps the deepest features to logits; called with their channels and the number of classes.
        weights: Weights to begin with, of another library or an earlier run; where classes differ the head is new.
        optimization: Optimizer, rate and schedule.

    Raises:
        ValueError: If spec, backbone and loss do not fit each other.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        spec: dict[str, Any],
        loss: Loss | None = None,
        head: Callable[[int, int], Head] = PooledHead,
        weights: Weights | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.image_spec = ImageSpec.of(spec)
        channels = getattr(backbone, "in_channels", None)
        if channels is not None and channels != self.image_spec.channels:
            raise ValueError(
                f"backbone takes pictures of {channels} channels, the data have {self.image_spec.channels}; "
                f"set --model.backbone.in_channels {self.image_spec.channels}"
            )
        self.check_reads(
            torch.zeros(1, self.image_spec.channels, self.image_spec.height, self.image_spec.width),
            "the data's pictures",
            "give it what it expects, or take a network over pictures of any size, such as ResNet2d or resnet50",
        )
        out_channels = getattr(backbone, "out_channels", None)
        if not out_channels:
            raise TypeError(
                f"backbone {type(backbone).__name__} states no out_channels; take a network of resdomains.core"
            )
        if loss is None:
            loss = BinaryCrossEntropy() if self.image_spec.multilabel else CrossEntropy()
        loss.bind(self.image_spec)
        self.loss = loss
        self.head = head(out_channels[-1], len(self.image_spec.classes))
        self.begin_with(weights, self.head, self.image_spec)
        self.to(memory_format=torch.channels_last)
        self.build_all_metrics()

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, K) logits of (B, C, H, W) normalised pictures."""
        return cast(Tensor, self.head(self.backbone(images)))

    def embed(self, batch: Mapping[str, Any]) -> Tensor:
        """Return (B, D), what the head's linear map reads: by default the last features, averaged over the picture."""
        features: Features = self.backbone(batch["image"])
        return self.head.embed(features)

    def build_metrics(self) -> dict[str, Metric]:
        """Return top-1, top-5, calibration error and confusion, or average precision and F1 for multi-label data."""
        spec = self.image_spec
        count = len(spec.classes)
        if spec.multilabel:
            return {
                "map": MeanAveragePrecision(count),
                "f1": MacroF1(count),
                "average_precision": AveragePrecision(count),
            }
        return {
            "top1": TopK(1),
            **({"top5": TopK(_TOP)} if count > _TOP else {}),
            "calibration_error": CalibrationError(),
            "reliability": Reliability(),
            "confusion": Confusion(count),
            "mistakes": Mistakes(spec.channels, spec.height, spec.width),
        }

    def step(self, batch: Any, split: Split) -> StepResult:
        """Compute the loss of a batch and measure it."""
        images, targets = batch["image"], batch["target"]
        logits = self(images)
        loss = self.loss(logits, targets)
        if split != "train":
            probabilities = self.loss.probabilities(logits.detach())
            for metric in self.metrics_of(split).values():
                if isinstance(metric, Mistakes):
                    metric.update(
                        probabilities, targets, denormalise(images, self.image_spec), batch["index"]
                    )
                else:
                    metric.update(probabilities, targets)
        return StepResult(loss, len(images))

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        """Return top-1 accuracy, or mean average precision for multi-label data."""
        return results["map" if self.image_spec.multilabel else "top1"]

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        """Return 1 / classes; for multi-label data the mean prevalence, which a random order reaches."""
        image_spec = ImageSpec.of(spec)
        if image_spec.multilabel:
            shares = image_spec.prevalence or []
            return sum(shares) / len(shares)
        return 1.0 / len(image_spec.classes)

    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Any] | BadSample]:
        """Yield the pictures in files and folders, made to fit as in evaluation; a `BadSample` where one is broken.

        An item is `{"image": (C, H, W) uint8, "source": path}`.
        """
        for found in read_pictures(inputs, self.image_spec.channels):
            if isinstance(found, BadSample):
                yield found
            else:
                file, picture = found
                yield {"image": fit(picture, self.image_spec), "source": file}

    def collate(self, items: Sequence[Any]) -> dict[str, Any]:
        """Make a normalised batch of what `read` yields."""
        images = normalise(torch.stack([item["image"] for item in items]), self.image_spec)
        return {"image": images, "source": [item["source"] for item in items]}

    exports: ClassVar[Sequence[str]] = ("onnx",)

    def export(self, folder: Path, format: str) -> str:
        """Write the network for another library into an empty folder, and return in words what was written.

        Args:
            folder: Where to.
            format: `onnx`: pixels in, probabilities out.
        """
        # Imported here: few runs export.
        from .exporting import write_onnx

        return write_onnx(self.backbone, self.head, self.loss, self.image_spec, folder)

    @torch.no_grad()
    def predict(self, batch: Any) -> list[dict[str, Any]]:
        """Return a record for each picture.

        `source`, `label`, `probability`, and `top`, up to five (label, probability) pairs. For multi-label data
        `labels` holds all pairs of probability 0.5 or more in place of `label` and `probability`.
        """
        probabilities = self.loss.probabilities(self(batch["image"]))
        classes = self.image_spec.classes
        sources = (
            batch["source"]
            if "source" in batch
            else [f"sample {i}" for i in batch["index"].tolist()]
        )
        records = []
        for source, row in zip(sources, probabilities.tolist(), strict=True):
            ranked = ranking(row, classes, len(classes))
            if self.image_spec.multilabel:
                answer: dict[str, Any] = {"labels": [pair for pair in ranked if pair[1] >= 0.5]}
            else:
                answer = {"label": ranked[0][0], "probability": ranked[0][1]}
            records.append({"source": str(source), **answer, "top": ranked[:_TOP]})
        return records

    def figures(self, split: Split, results: Mapping[str, Tensor]) -> "dict[str, Figure]":
        """Return the confusion matrix, the most confident mistakes and the reliability diagram, or the label scores."""
        # Imported here: matplotlib takes half a second, for which only a figure should wait.
        from resdomains.classification import figures

        from .figures import mistakes

        spec = self.image_spec
        title = f"{_NAMES.get(split, split)}: {_measured(results, spec)}"
        if spec.multilabel:
            scores = results["average_precision"].cpu()
            return {"average_precision": figures.average_precision(scores, spec, title)}
        pictures = {
            "confusion": figures.confusion(results["confusion"].cpu(), spec.classes, title),
            "reliability": figures.reliability(
                results["reliability"].cpu(), float(results["calibration_error"]), title
            ),
        }
        rows = results["mistakes"].cpu()
        if len(rows):
            shape = cast(Mistakes, self.metrics_of(split)["mistakes"]).shape
            pictures["mistakes"] = mistakes(rows, shape, spec.classes, title)
        return pictures


_NAMES = {"val": "validation", "test": "test"}


def _measured(results: Mapping[str, Tensor], spec: ImageSpec) -> str:
    if spec.multilabel:
        return f"mean average precision {float(results['map']):.3f}"
    wrong = results["confusion"].sum() - results["confusion"].diagonal().sum()
    return f"{float(results['top1']):.2%} right, {int(wrong):,} of {int(results['confusion'].sum()):,} wrong"
