"""What is minimised where the target of a text is a number; for classes see `resdomains.classification`."""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F


class NumberLoss(nn.Module, ABC):
    """A loss over one output a sample, computed in float32, and the number that the output stands for."""

    @abstractmethod
    def bind(self, mean: float, std: float) -> None:
        """Take the mean and the standard deviation of the training targets; a task calls this once, when built."""

    @abstractmethod
    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the samples, without dimensions.

        Args:
            outputs: (B, 1).
            targets: (B,) numbers in their own unit.
        """

    @abstractmethod
    def numbers(self, outputs: Tensor) -> Tensor:
        """Return (B,) float32 predictions in the unit of the targets."""


class SquaredError(NumberLoss):
    """The squared error over the variance of the training targets: 1 for a network that always says their mean.

    An output z stands for mean + std z, so that rates and initial weights suit targets of any unit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.std = 0.0, 1.0

    def bind(self, mean: float, std: float) -> None:
        """Take the unit of the outputs."""
        self.mean, self.std = mean, std

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of (z - (y - mean) / std)^2."""
        return F.mse_loss(outputs[:, 0].float(), (targets.float() - self.mean) / self.std)

    def numbers(self, outputs: Tensor) -> Tensor:
        """Return mean + std z."""
        return outputs[:, 0].float() * self.std + self.mean
