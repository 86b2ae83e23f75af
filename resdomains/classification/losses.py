"""What is minimised, and how logits become probabilities."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resdomains.classification.labels import Labels


class Loss(nn.Module, ABC):
    """A loss over logits, computed in float32, and the probabilities that belong to it."""

    @abstractmethod
    def bind(self, labels: Labels) -> None:
        """Take what the loss must know of the data; a task calls this once, when it is built.

        Raises:
            ValueError: If this loss cannot be used for them, with the loss to take instead.
        """

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the samples, without dimensions.

        Args:
            logits: (B, K).
            targets: (B,) class numbers, or (B, K) shares of the classes.
        """

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (B, K) float32 probabilities."""


def _class_weights(
    said: dict[str, float] | Literal["balanced"] | None, labels: Labels
) -> list[float] | None:
    if said is None:
        return None
    if said == "balanced":
        if labels.prevalence is None:
            raise ValueError(
                "class_weights='balanced' needs the share of each class, which these data do not state; "
                "give a weight for each class by name"
            )
        absent = [n for n, p in zip(labels.classes, labels.prevalence, strict=True) if not p]
        if absent:
            raise ValueError(
                f"class_weights='balanced' divides by the share of each class, but no training sample has "
                f"{', '.join(absent)}; give a weight for each class by name"
            )
        return [1.0 / (len(labels.classes) * p) for p in labels.prevalence]
    if set(said) != set(labels.classes):
        raise ValueError(
            f"class_weights must name each class once: {', '.join(labels.classes)}; "
            f"got {', '.join(map(str, said))}"
        )
    return [float(said[name]) for name in labels.classes]


def _smoothing(value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {value}")
    return value


class CrossEntropy(Loss):
    """Softmax cross-entropy, for exactly one class a sample.

    With class weights w, the loss of a sample is -sum_k w_k t_k log softmax(z)_k, and a batch's is the mean of its
    samples' (torch divides by the batch's weights instead, so that a sample counts more among light ones).

    Args:
        label_smoothing: Share of each target that is spread over all classes (Szegedy et al. 2016).
        class_weights: A weight for each class by name, or `balanced`: 1 / (classes x prevalence), with which all
            classes together count alike; None for equal weights.
    """

    weight: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: dict[str, float] | Literal["balanced"] | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = _smoothing(label_smoothing)
        if isinstance(class_weights, dict) and not all(w > 0 for w in class_weights.values()):
            raise ValueError(f"class_weights must be positive, got {class_weights}")
        self.class_weights = class_weights
        # Not kept in checkpoints: they follow from the arguments and the data's description.
        self.register_buffer("weight", None, persistent=False)

    def bind(self, labels: Labels) -> None:
        """Refuse multi-label data, and find the weight of each class."""
        if labels.multilabel:
            raise ValueError(
                "CrossEntropy needs exactly one class a sample, but the data are multi-label; "
                "set --model.loss BinaryCrossEntropy"
            )
        weights = _class_weights(self.class_weights, labels)
        self.weight = None if weights is None else torch.tensor(weights)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return -sum_k w_k t_k log softmax(z)_k, averaged over the samples."""
        losses = F.cross_entropy(
            logits.float(),
            targets,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return losses.mean()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax."""
        return torch.softmax(logits.float(), -1)


class BinaryCrossEntropy(Loss):
    """A sigmoid cross-entropy for each class, for multi-label data; for one class a sample see Wightman et al. 2021.

    Args:
        label_smoothing: Targets become t (1 - s) + s / 2.
        positive_weight: Weight of the positive terms; above 1 favours recall.
    """

    def __init__(self, label_smoothing: float = 0.0, positive_weight: float = 1.0) -> None:
        super().__init__()
        self.label_smoothing = _smoothing(label_smoothing)
        if not positive_weight > 0:
            raise ValueError(f"positive_weight must be positive, got {positive_weight}")
        self.positive_weight = positive_weight

    def bind(self, labels: Labels) -> None:
        """Accept any data."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over samples and classes."""
        if targets.ndim == 1:
            targets = F.one_hot(targets, logits.shape[-1])
        targets = targets.float() * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        weight = torch.full((), self.positive_weight, device=logits.device)
        return F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return each class's sigmoid."""
        return torch.sigmoid(logits.float())
