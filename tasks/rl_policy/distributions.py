"""Distributions over actions, from the numbers that a policy's head gives for each observation.

They hold no state and little arithmetic: a rollout asks for a sample of a handful of observations thousands of times a
second, where each torch operation counts.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class ActionDistribution(ABC):
    """What a policy's parameters say about actions; N observations at a time.

    Masks are (N, P) of the discrete kinds, True where an action is allowed; each row of an action's choices allows at
    least one. None allows all.

    Attributes:
        size: P, how many parameters an observation has.
        action_shape: Shape of an action as it is sampled and stored.
        action_dtype: Its dtype.
    """

    size: int
    action_shape: tuple[int, ...]
    action_dtype: torch.dtype

    @abstractmethod
    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw what makes `count` samples random: (count, ...) float32 on the CPU."""

    @abstractmethod
    def sample(self, parameters: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the actions (N, *action_shape) that the noise picks, without a gradient through them.

        Args:
            parameters: (N, P).
            noise: (N, ...) as `noise` draws it.
            masks: Allowed actions.
        """

    @abstractmethod
    def mode(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the likeliest actions, (N, *action_shape)."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the logarithm of the actions' probability or density, (N,)."""

    @abstractmethod
    def entropy(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the entropy in nats, (N,)."""

    @abstractmethod
    def evaluate(
        self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `log_prob` and `entropy`, which share most of their work."""

    @abstractmethod
    def for_environment(self, actions: Tensor) -> npt.NDArray[Any]:
        """Return the actions (N, *action_shape), on the CPU, as an environment may take them: within its bounds."""


class Categorical(ActionDistribution):
    """One choice among `choices` actions; the parameters are its logits, actions are (N,) int64.

    Args:
        choices: Number of actions.

    Raises:
        ValueError: If there is none.
    """

    action_shape = ()
    action_dtype = torch.int64

    def __init__(self, choices: int) -> None:
        if choices < 1:
            raise ValueError(f"choices must be at least 1, got {choices}")
        self.size = choices

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return _gumbel(count, self.size, generator)

    def sample(self, parameters: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        # argmax(logits + Gumbel noise) is a sample of softmax(logits) (Maddison et al. 2014).
        return (_masked(parameters, masks) + noise).argmax(-1)

    def mode(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return _masked(parameters, masks).argmax(-1)

    def log_prob(self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None) -> Tensor:
        log_probs = F.log_softmax(_masked(parameters, masks), -1)
        return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return _entropy(F.log_softmax(_masked(parameters, masks), -1))

    def evaluate(
        self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        log_probs = F.log_softmax(_masked(parameters, masks), -1)
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        return chosen, _entropy(log_probs)

    def for_environment(self, actions: Tensor) -> npt.NDArray[Any]:
        return actions.numpy()


class MultiCategorical(ActionDistribution):
    """Several independent choices; the parameters are their logits side by side, actions are (N, D) int64.

    Masks stand side by side as the logits do.

    Args:
        sizes: How many actions each of the D choices is among.

    Raises:
        ValueError: If there is no choice, or one among none.
    """

    action_dtype = torch.int64

    def __init__(self, sizes: Sequence[int]) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(
                f"sizes must name for each choice at least 1 action, got {list(sizes)}"
            )
        self.sizes = list(sizes)
        self.size = sum(sizes)
        self.action_shape = (len(sizes),)
        self._widest = max(sizes)

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return _gumbel(count, self.size, generator)

    def sample(self, parameters: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        return self._choices(_masked(parameters, masks) + noise).argmax(-1)

    def mode(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return self._choices(_masked(parameters, masks)).argmax(-1)

    def log_prob(self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None) -> Tensor:
        log_probs = F.log_softmax(self._choices(_masked(parameters, masks)), -1)
        return log_probs.gather(-1, actions.unsqueeze(-1)).sum((-2, -1))

    def entropy(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return _entropy(F.log_softmax(self._choices(_masked(parameters, masks)), -1), (-2, -1))

    def evaluate(
        self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        log_probs = F.log_softmax(self._choices(_masked(parameters, masks)), -1)
        chosen = log_probs.gather(-1, actions.unsqueeze(-1)).sum((-2, -1))
        return chosen, _entropy(log_probs, (-2, -1))

    def for_environment(self, actions: Tensor) -> npt.NDArray[Any]:
        return actions.numpy()

    def _choices(self, logits: Tensor) -> Tensor:
        """Return the logits as (N, D, widest choice); what a narrower choice lacks is as good as impossible."""
        if self.size == len(self.sizes) * self._widest:
            return logits.view(-1, len(self.sizes), self._widest)
        impossible = torch.finfo(logits.dtype).min
        parts = logits.split(self.sizes, -1)
        return torch.stack(
            [F.pad(part, (0, self._widest - part.shape[-1]), value=impossible) for part in parts],
            -2,
        )


class DiagonalGaussian(ActionDistribution):
    """Independent normal distributions; the parameters are D means, then D logarithms of standard deviations.

    Actions are (N, D) float32 and unbounded. An environment gets them clipped to its bounds, and probabilities are
    those before the clip (as in Stable-Baselines3 and CleanRL).

    Args:
        low: The lower bounds of an action's D numbers; None where there is none.
        high: The upper bounds.

    Raises:
        ValueError: If the bounds do not fit one another.
    """

    action_dtype = torch.float32

    def __init__(self, low: Sequence[float | None], high: Sequence[float | None]) -> None:
        if not low or len(low) != len(high):
            raise ValueError(
                "low and high must have one bound for each number of an action, "
                f"got {len(low)} and {len(high)}"
            )
        self.low = np.array([-math.inf if bound is None else bound for bound in low], np.float32)
        self.high = np.array([math.inf if bound is None else bound for bound in high], np.float32)
        if not (self.low <= self.high).all():
            raise ValueError(
                f"low must not lie above high, got low {list(low)} and high {list(high)}"
            )
        self.size = 2 * len(low)
        self.action_shape = (len(low),)

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(count, *self.action_shape, generator=generator)

    def sample(self, parameters: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        mean, log_std = parameters.detach().chunk(2, -1)
        return torch.addcmul(mean, log_std.exp(), noise)

    def mode(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return parameters.detach()[:, : self.size // 2]

    def log_prob(self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None) -> Tensor:
        mean, log_std = parameters.chunk(2, -1)
        return self._log_prob(mean, log_std, actions)

    def entropy(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return self._entropy(parameters.chunk(2, -1)[1])

    def evaluate(
        self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mean, log_std = parameters.chunk(2, -1)
        return self._log_prob(mean, log_std, actions), self._entropy(log_std)

    def for_environment(self, actions: Tensor) -> npt.NDArray[Any]:
        return np.clip(actions.numpy(), self.low, self.high)

    def _log_prob(self, mean: Tensor, log_std: Tensor, actions: Tensor) -> Tensor:
        standard = (actions - mean) * (-log_std).exp()
        return -(0.5 * standard.square() + log_std).sum(-1) - mean.shape[-1] * _HALF_LOG_2PI

    def _entropy(self, log_std: Tensor) -> Tensor:
        return log_std.sum(-1) + log_std.shape[-1] * (0.5 + _HALF_LOG_2PI)


def distribution_of(action: Mapping[str, Any]) -> ActionDistribution:
    """Return the distribution over an environment's actions.

    Args:
        action: As `PolicySpec.action` describes them.

    Raises:
        ValueError: If there is none for their kind.
    """
    match action["kind"]:
        case "discrete":
            return Categorical(action["sizes"][0])
        case "multi_discrete":
            return MultiCategorical(action["sizes"])
        case "continuous":
            return DiagonalGaussian(action["low"], action["high"])
        case kind:
            raise ValueError(f"action must be discrete, multi_discrete or continuous, got {kind!r}")


def _gumbel(count: int, size: int, generator: torch.Generator | None) -> Tensor:
    """Draw -log(E), E exponential: standard Gumbel noise; finite, so that it lifts no masked action."""
    drawn = torch.empty(count, size).exponential_(generator=generator)
    return drawn.clamp_(min=torch.finfo(drawn.dtype).tiny).log_().neg_()


def _masked(logits: Tensor, masks: Tensor | None) -> Tensor:
    """Return the logits with the least finite number where an action is not allowed: minus infinity makes 0 x inf."""
    return logits if masks is None else logits.where(masks, torch.finfo(logits.dtype).min)


def _entropy(log_probs: Tensor, choices: tuple[int, ...] = (-1,)) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(choices)
