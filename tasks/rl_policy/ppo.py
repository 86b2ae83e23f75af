"""Proximal policy optimisation (Schulman et al. 2017): its numbers, its loss, and the minibatches it is taken over."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from resdomains.training import Schedule

from .distributions import ActionDistribution

Normalized = Literal["minibatch", "rollout", "none"]


@dataclass
class Transitions:
    """Steps to learn from, N of them on this process.

    Args:
        observations: (N, ...) by name.
        actions: (N, ...).
        log_probs: (N,) of the actions under the policy that took them.
        advantages: (N,), normalised where that is asked for.
        returns: (N,) what the values shall become.
        values: (N,) of the observations when the actions were taken.
        masks: (N, P) allowed actions, or None.
        count: Steps of the minibatch over all processes.
        share: What a sum over the N steps is multiplied with, so that the mean of all processes' products is the mean
            over the `count` steps: processes / count.
    """

    observations: dict[str, Tensor]
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    values: Tensor
    masks: Tensor | None
    count: int
    share: float

    def __len__(self) -> int:
        return len(self.log_probs)

    def __getitem__(self, index: Tensor | slice) -> "Transitions":
        """Return some of the steps, as if this process were alone; a slice copies nothing.

        Args:
            index: (n,) integers, or a slice.
        """

        def take(tensor: Tensor) -> Tensor:
            # Half the time that tensor[index] takes.
            return tensor[index] if isinstance(index, slice) else tensor.index_select(0, index)

        log_probs = take(self.log_probs)
        return Transitions(
            {name: take(part) for name, part in self.observations.items()},
            take(self.actions),
            log_probs,
            take(self.advantages),
            take(self.returns),
            take(self.values),
            None if self.masks is None else take(self.masks),
            len(log_probs),
            1.0 / max(len(log_probs), 1),
        )

    def shared(self, count: int, processes: int) -> "Transitions":
        """Return them as this process's part of a minibatch of `count` steps over all processes."""
        return replace(self, count=count, share=processes / count)


class Terms(NamedTuple):
    """What an update minimises and what it tells; scalars that, averaged over processes, are means over a minibatch.

    Args:
        loss: policy + value_weight value - entropy_weight entropy, with its gradient; all others are detached.
        policy: The clipped surrogate objective, negated.
        value: Mean squared error of the values.
        entropy: Entropy of the policy in nats.
        kl: KL divergence of the policy from the one that acted, estimated as mean(ratio - 1 - log ratio), which is
            unbiased and never negative (Schulman 2020, "Approximating KL divergence").
        clip_fraction: Share of steps whose ratio lies outside 1 - clip and 1 + clip.
        parts: (5,) policy to clip_fraction: one tensor, which is quickly added up over updates.
    """

    loss: Tensor
    policy: Tensor
    value: Tensor
    entropy: Tensor
    kl: Tensor
    clip_fraction: Tensor
    parts: Tensor


class PPO:
    """The numbers of proximal policy optimisation; defaults are those of Stable-Baselines3, which are the paper's
    for continuous control but for what is said.

    Args:
        discount: Discount of rewards per step, gamma.
        gae_lambda: lambda of the advantages: 0 trusts the values, 1 the rewards (Schulman et al. 2016).
        clip: Ratios of probabilities are clipped to 1 +- clip (the paper's epsilon).
        clip_schedule: Factor of `clip` over training; the paper's Atari runs let it fall linearly to 0. None: constant.
        value_clip: The values move at most this far from those of the rollout before the error is taken, as
            Stable-Baselines3's clip_range_vf does. It depends on the scale of returns. Not in the paper; Andrychowicz
            et al. 2021 ("What matters for on-policy deep actor-critic methods?") find it to hurt. None: no limit.
        entropy: Weight of the entropy, which rewards exploration (the paper's c2; 0.01 there for Atari).
        value_weight: Weight of the values' mean squared error (the paper's c1). CleanRL and OpenAI's baselines halve
            the error first: their 0.5 is 0.25 here.
        epochs: How often each step of a rollout is learned from.
        minibatch_size: Steps of an update, over all processes.
        normalize_advantages: "minibatch" gives the advantages of each minibatch mean 0 and standard deviation 1 (as
            Stable-Baselines3 and CleanRL do), "rollout" those of a whole rollout, "none" leaves them.
        target_kl: An iteration makes no more updates once the KL divergence of a minibatch exceeds 1.5 times this (as
            Stable-Baselines3 and OpenAI's Spinning Up do). None: never.
        max_gradient_norm: Norm that gradients are clipped to (0.5 in OpenAI's baselines); None: not clipped.

    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        discount: float = 0.99,
        gae_lambda: float = 0.95,
        clip: float = 0.2,
        clip_schedule: Schedule | None = None,
        value_clip: float | None = None,
        entropy: float = 0.0,
        value_weight: float = 0.5,
        epochs: int = 10,
        minibatch_size: int = 64,
        normalize_advantages: Normalized = "minibatch",
        target_kl: float | None = None,
        max_gradient_norm: float | None = 0.5,
    ) -> None:
        for name, fraction in (("discount", discount), ("gae_lambda", gae_lambda)):
            if not 0.0 <= fraction <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {fraction}")
        if not 0.0 < clip < 1.0:
            raise ValueError(
                f"clip must lie in (0, 1), got {clip}; the paper uses 0.2, 0.1 for Atari"
            )
        for name, positive in (
            ("value_clip", value_clip),
            ("target_kl", target_kl),
            ("max_gradient_norm", max_gradient_norm),
        ):
            if positive is not None and not positive > 0.0:
                raise ValueError(f"{name} must be above 0, got {positive}; null leaves it out")
        for name, weight in (("entropy", entropy), ("value_weight", value_weight)):
            if not weight >= 0.0:
                raise ValueError(f"{name} must be at least 0, got {weight}")
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        if minibatch_size < 2:
            raise ValueError(f"minibatch_size must be at least 2 steps, got {minibatch_size}")
        if normalize_advantages not in ("minibatch", "rollout", "none"):
            raise ValueError(
                f"normalize_advantages must be minibatch, rollout or none, got {normalize_advantages!r}"
            )
        self.discount = discount
        self.gae_lambda = gae_lambda
        self.clip = clip
        self.clip_schedule = clip_schedule
        self.value_clip = value_clip
        self.entropy = entropy
        self.value_weight = value_weight
        self.epochs = epochs
        self.minibatch_size = minibatch_size
        self.normalize_advantages = normalize_advantages
        self.target_kl = target_kl
        self.max_gradient_norm = max_gradient_norm

    def clip_at(self, progress: float) -> float:
        """Return `clip` after a fraction of training."""
        return self.clip * (self.clip_schedule.factor(progress) if self.clip_schedule else 1.0)

    def stops(self, kl: float) -> bool:
        """Whether an iteration must make no more updates, given the KL divergence of a minibatch over all processes."""
        return self.target_kl is not None and kl > 1.5 * self.target_kl

    def terms(
        self,
        distribution: ActionDistribution,
        parameters: Tensor,
        values: Tensor,
        transitions: Transitions,
        clip: float,
    ) -> Terms:
        """Return the loss and its parts.

            policy = -mean(min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)),  ratio = pi(a | s) / pi_old(a | s)
            value  = mean((V - returns)^2)

        Args:
            distribution: What the parameters mean.
            parameters: (N, P) of the policy that learns.
            values: (N,) of the policy that learns.
            transitions: The N steps.
            clip: What `clip_at` says.
        """
        with torch.no_grad():
            share = transitions.share
            advantages = transitions.advantages
            evaluated = distribution.evaluate(parameters, transitions.actions, transitions.masks)
            log_ratio = evaluated.log_probs - transitions.log_probs
            ratio = log_ratio.exp()
            clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
            gain = ratio * advantages
            clipped_gain = clipped * advantages
            predicted = values.float()
            if self.value_clip is not None:
                moved = predicted - transitions.values
                held = moved.clamp(-self.value_clip, self.value_clip)
                predicted = transitions.values + held
            error = predicted - transitions.returns
            each = (
                torch.minimum(gain, clipped_gain).neg_(),
                error.square(),
                evaluated.entropies,
                (ratio - 1.0).sub_(log_ratio),
                (ratio != clipped).to(ratio.dtype),
            )
            parts = torch.stack(each).sum(1).mul_(share)
            policy, value, entropy, kl, clip_fraction = parts.unbind()
            loss = torch.add(policy, value, alpha=self.value_weight)
            loss.sub_(entropy, alpha=self.entropy)
            # d ratio / d log pi = ratio, so that a step's gradient is its gain, and 0 where the clipped one is less. A
            # comparison with NaN is False: it stays in the gradient.
            by_log_prob = gain.masked_fill_(gain > clipped_gain, 0.0).mul_(-share)
            by_parameters = evaluated.gradient(by_log_prob, -share * self.entropy)
            by_values = error.mul_(2.0 * share * self.value_weight)
            if self.value_clip is not None:
                by_values.masked_fill_(moved != held, 0.0)
        loss = _Loss.apply(parameters, values, loss, by_parameters, by_values)  # type: ignore[no-untyped-call]
        return Terms(loss, policy, value, entropy, kl, clip_fraction, parts)


class _Loss(torch.autograd.Function):
    """A loss whose gradient is known: one node for autograd instead of thirty, each of which costs microseconds."""

    @staticmethod
    def forward(
        ctx: Any,
        parameters: Tensor,
        values: Tensor,
        loss: Tensor,
        by_parameters: Tensor,
        by_values: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(by_parameters, by_values)
        return loss.view_as(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        by_parameters, by_values = ctx.saved_tensors
        # Autograd makes them of the outputs' precision.
        return by_parameters * scale, by_values * scale, None, None, None


def normalise(advantages: Tensor) -> Tensor:
    """Return (A - mean) / (std + 1e-8), std with n - 1; a single advantage as it is.

    Args:
        advantages: (n,) of a minibatch over all processes, or of a rollout.
    """
    if len(advantages) < 2:
        return advantages
    std, mean = torch.std_mean(advantages)
    return (advantages - mean) / (std + 1e-8)


def minibatches(
    valid: npt.NDArray[np.bool_], minibatch_size: int, generator: torch.Generator | None = None
) -> list[Tensor]:
    """Part the steps of a rollout at random: each in one minibatch, all of one size but the last, which may be smaller.

    Args:
        valid: (T * E,) of all processes' environments, in the order t * E + e; False where a step only began an
            episode.
        minibatch_size: Steps of a minibatch.
        generator: Source of randomness, equal on all processes.

    Returns:
        Indices into the rollout, (minibatch_size,) int64 each.
    """
    steps = torch.from_numpy(np.flatnonzero(valid))
    order = torch.randperm(len(steps), generator=generator)
    return list(torch.split(steps[order], minibatch_size))
