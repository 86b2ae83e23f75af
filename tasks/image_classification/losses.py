"""What is minimised, and how logits become probabilities."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .spec import ImageSpec


class Loss(nn.Module, ABC):
    """A loss over logits, computed in float32, and the probabilities that belong to it."""

    @abstractmethod
    def check(self, spec: ImageSpec) -> None:
        """Refuse data that this loss cannot be used for.

        Raises:
            ValueError: With the loss to take instead.
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


def _smoothing(value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"label_smoothing must lie in [0, 1), got {value}")
    return value


class CrossEntropy(Loss):
    """Softmax cross-entropy, for exactly one class a picture.

    Args:
        label_smoothing: Share of each target that is spread over all classes (Szegedy et al. 2016).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = _smoothing(label_smoothing)

    def check(self, spec: ImageSpec) -> None:
        """Refuse multi-label data."""
        if spec.multilabel:
            raise ValueError(
                "CrossEntropy needs exactly one class a picture, but the data are multi-label; "
                "set --model.loss BinaryCrossEntropy"
            )

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return -sum_k t_k log softmax(z)_k, averaged over the samples."""
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax."""
        return torch.softmax(logits.float(), -1)


class BinaryCrossEntropy(Loss):
    """A sigmoid cross-entropy for each class, for multi-label data; for one class a picture see Wightman et al. 2021.

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

    def check(self, spec: ImageSpec) -> None:
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
