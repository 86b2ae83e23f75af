"""Distributions over actions, from the numbers that a policy's head gives for each observation.

They hold no state and little arithmetic: a rollout asks for a sample of a handful of observations thousands of times a
second, where each torch operation counts.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
# The logit of an action that is not allowed: its probability is exactly 0. Minus infinity would make 0 times infinity.
_IMPOSSIBLE = -1e30


class Evaluated(NamedTuple):
    """What a distribution says of actions, with a gradient that is written out: autograd takes twice as long.

    Args:
        log_probs: (N,) as of `ActionDistribution.log_prob`, detached.
        entropies: (N,) as of `ActionDistribution.entropy`, detached.
        gradient: Makes the gradient of the parameters, (N, P), of those of the log probabilities, (N,), and of a
            number, that of each entropy.
    """

    log_probs: Tensor
    entropies: Tensor
    gradient: Callable[[Tensor, float], Tensor]


class ActionDistribution(ABC):
    """What a policy's parameters say about actions; N observations at a time.

    Parameters of half precision are computed with in float32. Masks are (N, P), for the discrete kinds, True where an
    action is allowed; each choice must allow one. None allows all.

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
    ) -> Evaluated:
        """Return log probabilities, entropies and their gradient, which share most of their work."""

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
        return _chosen(_log_softmax(_masked(parameters, masks)), actions)

    def entropy(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        log_probs = _log_softmax(_masked(parameters, masks))
        return -(log_probs.exp() * log_probs).sum(-1)

    @torch.no_grad()
    def evaluate(
        self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None
    ) -> Evaluated:
        choices = _Choices(_masked(parameters, masks), actions)
        return Evaluated(choices.chosen, choices.entropies, choices.gradient)

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

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return _gumbel(count, self.size, generator)

    def sample(self, parameters: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        return self._apart(_masked(parameters, masks) + noise).argmax(-1)

    def mode(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return self._apart(_masked(parameters, masks)).argmax(-1)

    def log_prob(self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None) -> Tensor:
        log_probs = _log_softmax(self._apart(_masked(parameters, masks)))
        return _chosen(log_probs, actions).sum(-1)

    def entropy(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        log_probs = _log_softmax(self._apart(_masked(parameters, masks)))
        return -(log_probs.exp() * log_probs).sum((-2, -1))

    @torch.no_grad()
    def evaluate(
        self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None
    ) -> Evaluated:
        choices = _Choices(self._apart(_masked(parameters, masks)), actions)

        def gradient(by_log_prob: Tensor, by_entropy: float) -> Tensor:
            return self._together(choices.gradient(by_log_prob.unsqueeze(-1), by_entropy))

        return Evaluated(choices.chosen.sum(-1), choices.entropies.sum(-1), gradient)

    def for_environment(self, actions: Tensor) -> npt.NDArray[Any]:
        return actions.numpy()

    def _apart(self, logits: Tensor) -> Tensor:
        """Return the logits as (N, D, widest choice), filled up with impossible actions."""
        widest = max(self.sizes)
        if self.size == len(self.sizes) * widest:
            return logits.view(-1, len(self.sizes), widest)
        parts = torch.split(logits, self.sizes, -1)
        padded = [F.pad(part, (0, widest - part.shape[-1]), value=_IMPOSSIBLE) for part in parts]
        return torch.stack(padded, -2)

    def _together(self, choices: Tensor) -> Tensor:
        """Return (N, P) of what `_apart` parted, without what it filled up."""
        if self.size == choices.shape[1] * choices.shape[2]:
            return choices.view(-1, self.size)
        return torch.cat([choices[:, i, :size] for i, size in enumerate(self.sizes)], -1)


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
        self._dimensions = len(low)
        self.size = 2 * len(low)
        self.action_shape = (len(low),)

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(count, *self.action_shape, generator=generator)

    def sample(self, parameters: Tensor, noise: Tensor, masks: Tensor | None = None) -> Tensor:
        mean, log_std = parameters.detach().float().chunk(2, -1)
        return torch.addcmul(mean, log_std.exp(), noise)

    def mode(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        return parameters.detach().float()[:, : self._dimensions]

    def log_prob(self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None) -> Tensor:
        mean, log_std = parameters.float().chunk(2, -1)
        standard = (actions - mean) * (-log_std).exp()
        return -(0.5 * standard.square() + log_std).sum(-1) - self._dimensions * _HALF_LOG_2PI

    def entropy(self, parameters: Tensor, masks: Tensor | None = None) -> Tensor:
        log_std = parameters.float()[:, self._dimensions :]
        return log_std.sum(-1) + self._dimensions * (0.5 + _HALF_LOG_2PI)

    @torch.no_grad()
    def evaluate(
        self, parameters: Tensor, actions: Tensor, masks: Tensor | None = None
    ) -> Evaluated:
        mean, log_std = parameters.float().chunk(2, -1)
        inverse = (-log_std).exp()
        standard = (actions - mean) * inverse
        squares = standard.square()
        logs = log_std.sum(-1)
        log_probs = squares.sum(-1).mul_(-0.5).sub_(logs).sub_(self._dimensions * _HALF_LOG_2PI)

        def gradient(by_log_prob: Tensor, by_entropy: float) -> Tensor:
            each = by_log_prob.unsqueeze(-1)
            by_log_std = (squares - 1.0).mul_(each).add_(by_entropy)
            return torch.cat(((standard * inverse).mul_(each), by_log_std), -1)

        return Evaluated(log_probs, logs + self._dimensions * (0.5 + _HALF_LOG_2PI), gradient)

    def for_environment(self, actions: Tensor) -> npt.NDArray[Any]:
        clipped: npt.NDArray[Any] = np.clip(actions.numpy(), self.low, self.high)
        return clipped


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
    logits = logits.float()
    return logits if masks is None else logits.where(masks, _IMPOSSIBLE)


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, -1)


def _chosen(log_probs: Tensor, actions: Tensor) -> Tensor:
    return log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


class _Choices:
    """Log probabilities (...) of what was chosen among actions of logits (..., n), entropies (...) and their gradient.

    d log p_a / d z_j = [j = a] - p_j,  d H / d z_j = -p_j (log p_j + H)
    """

    def __init__(self, logits: Tensor, actions: Tensor) -> None:
        self.actions = actions.unsqueeze(-1)
        self.log_probs = _log_softmax(logits)
        self.probs = self.log_probs.exp()
        self.chosen = self.log_probs.gather(-1, self.actions).squeeze(-1)
        self.entropies = (self.probs * self.log_probs).sum(-1).neg_()

    def gradient(self, by_chosen: Tensor, by_entropy: float) -> Tensor:
        """Return the gradient of the logits, given those of `chosen`, which may need broadcasting, and `entropies`."""
        each = by_chosen.unsqueeze(-1)
        slope = each
        if by_entropy:
            slope = (self.log_probs + self.entropies.unsqueeze(-1)).mul_(by_entropy).add_(each)
        gradient = (self.probs * slope).neg_()
        return gradient.scatter_add_(-1, self.actions, each.expand(self.actions.shape))
