"""What a detector minimises, and how much each position counts."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Weighting(ABC):
    """How much the box of each position counts."""

    @abstractmethod
    def __call__(self, centerness: Tensor) -> Tensor:
        """Return weights (P,), at least 0, of the positions' true centre-ness (P,); their sum divides the loss."""


class Equal(Weighting):
    """All boxes count alike, as torchvision has it."""

    def __call__(self, centerness: Tensor) -> Tensor:
        return torch.ones_like(centerness)


class ByCenterness(Weighting):
    """Boxes count by their position's centre-ness, as in the authors' code: what is detected comes from the centre."""

    def __call__(self, centerness: Tensor) -> Tensor:
        return centerness


class FocalLoss:
    """The sum over all positions and classes of -a (1 - p)^g log p, p the probability of what is true.

    a is `alpha` for the class of an object and 1 - `alpha` elsewhere (Lin et al. 2017).

    Args:
        alpha: In (0, 1).
        gamma: At least 0.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, logits: Tensor, position: Tensor, label: Tensor) -> Tensor:
        """Return the sum in float32.

        Args:
            logits: (M, K).
            position: (P,) rows that stand for an object.
            label: (P,) class of each.
        """
        background: Tensor = _Background.apply(logits, self.gamma)  # type: ignore[no-untyped-call]
        of_object = logits[position, label].float()
        false = (1 - self.alpha) * of_object.sigmoid().pow(self.gamma) * F.softplus(of_object)
        true = self.alpha * (-of_object).sigmoid().pow(self.gamma) * F.softplus(-of_object)
        return (1 - self.alpha) * background + (true - false).sum()


def centerness(sides: Tensor) -> Tensor:
    """Return sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of distances (P, 4) above 0: 1 in the middle."""
    across, down = sides[:, 0::2], sides[:, 1::2]
    ratio = (across.amin(1) / across.amax(1)) * (down.amin(1) / down.amax(1))
    return ratio.sqrt()


def relative_entropy(logits: Tensor, shares: Tensor) -> Tensor:
    """Return the sum of q log(q / p) + (1 - q) log((1 - q) / (1 - p)), p = sigmoid(logit) and q the true share.

    That is the binary cross-entropy less the least that it can be.

    Args:
        logits: (P,).
        shares: (P,) in [0, 1].
    """
    cross = F.binary_cross_entropy_with_logits(logits, shares, reduction="sum")
    return cross - F.binary_cross_entropy(shares, shares, reduction="sum")


class _Background(torch.autograd.Function):
    """The sum of p^g log(1 / (1 - p)), p = sigmoid(logit), as if there were no object.

    Keeps nothing but its gradient, in the precision of the logits: a detector has millions of these.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, gamma: float) -> Tensor:
        x = logits.float()
        p, surprise = x.sigmoid(), F.softplus(x)
        factor = p.pow(gamma)
        if ctx.needs_input_grad[0]:
            slope = torch.addcmul(p, 1 - p, surprise, value=gamma).mul_(factor)
            ctx.save_for_backward(slope.to(logits.dtype))
        return (factor * surprise).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None
