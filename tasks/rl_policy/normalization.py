"""Running statistics of observations and returns, kept in the checkpoint with the policy that was trained on them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_EPSILON = 1e-8


class RunningMoments(nn.Module):
    """Count, mean and variance of all that was merged (Chan et al. 1979), in float64.

    Args:
        shape: Shape of a sample.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(shape, dtype=torch.float64))

    @staticmethod
    def moments(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the count (), the mean and the sum of squared deviations from it, each of the shape of a sample.

        Args:
            samples: (N, ...).
        """
        if not len(samples):
            zero = torch.zeros(samples.shape[1:], dtype=torch.float64, device=samples.device)
            return zero.new_zeros(()), zero, zero
        variance, mean = torch.var_mean(samples.double(), 0, correction=0)
        count = mean.new_tensor(float(len(samples)))
        return count, mean, variance * count

    @torch.no_grad()
    def merge(self, count: Tensor, mean: Tensor, m2: Tensor) -> None:
        """Take in samples of which `moments` are given; no samples change nothing."""
        total = self.count + count
        weight = count / total.clamp(min=1.0)
        away = mean - self.mean
        # Before the first merge the variance is 1 of no samples.
        ours = self.variance * self.count
        merged = (ours + m2 + away.square() * (self.count * weight)) / total.clamp(min=1.0)
        self.variance.copy_(torch.where(total > 0, merged, self.variance))
        self.mean.add_(away * weight)
        self.count.copy_(total)


class ObservationNormalization(nn.Module):
    """clip((x - mean) / sqrt(variance + 1e-8), -clip, clip) with running moments; x as it is before the first merge.

    The moments change by `update` alone, so that a policy's input means the same during an iteration's rollout and its
    updates; a running update in the rollout makes the ratio of an unchanged policy differ from 1.

    Args:
        shape: Shape of an observation.
        clip: Bound of what is returned (10 as in OpenAI's baselines and Stable-Baselines3).

    Raises:
        ValueError: If the bound is not positive.
    """

    shift: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0) -> None:
        super().__init__()
        if not clip > 0.0:
            raise ValueError(f"clip must be above 0, got {clip}; 10 is usual")
        self.clip = clip
        self.moments = RunningMoments(shape)
        # What forward needs, in the observations' precision.
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("low", torch.tensor(-torch.inf))
        self.register_buffer("high", torch.tensor(torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        """Return the observations (N, *shape), normalised."""
        return ((x - self.shift) * self.scale).clamp(self.low, self.high)

    @torch.no_grad()
    def update(self, *moments: tuple[Tensor, Tensor, Tensor]) -> None:
        """Merge what `RunningMoments.moments` gave, of each process in the same order on all."""
        for part in moments:
            self.moments.merge(*part)
        if self.moments.count > 0:
            self.shift.copy_(self.moments.mean)
            self.scale.copy_((self.moments.variance + _EPSILON).rsqrt())
            self.low.fill_(-self.clip)
            self.high.fill_(self.clip)


class ReturnNormalization(nn.Module):
    """Rewards divided by the standard deviation of the running discounted return.

        R_t = discount R_{t-1} + r_t, from 0 at each episode's start
        clip(r_t / sqrt(variance of R + 1e-8), -clip, clip)

    The mean is not taken off, which would change what is worth doing. The variance is that of all steps so far, this
    rollout's among them: Stable-Baselines3's VecNormalize, a rollout at a time.

    Args:
        discount: Discount per step.
        clip: Bound of the rewards returned.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, discount: float, clip: float = 10.0) -> None:
        super().__init__()
        if not 0.0 <= discount <= 1.0:
            raise ValueError(f"discount must lie in [0, 1], got {discount}")
        if not clip > 0.0:
            raise ValueError(f"clip must be above 0, got {clip}; 10 is usual")
        self.discount = discount
        self.clip = clip
        self.moments = RunningMoments(())

    @property
    def factor(self) -> float:
        """What a reward is multiplied with: 1 / sqrt(variance + 1e-8)."""
        return float((self.moments.variance + _EPSILON).rsqrt())

    def scale(
        self,
        rewards: npt.NDArray[np.floating[Any]],
        ended: npt.NDArray[np.bool_],
        valid: npt.NDArray[np.bool_],
        carried: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Take in a rollout's rewards; return them scaled, (T, E) float32, and what the next rollout carries on.

        Args:
            rewards: (T, E) of the environments of all processes.
            ended: (T, E), True where the step ended an episode.
            valid: (T, E), False where a step only began an episode and does not count.
            carried: (E,) what the rollout before returned, zeros at first: discounted returns under way.
        """
        running = rewards.astype(np.float64)
        kept = np.where(ended, 0.0, self.discount)
        for t in range(len(running)):
            running[t] += carried
            carried = running[t] * kept[t]
        moments = RunningMoments.moments(torch.from_numpy(running[valid]))
        self.moments.merge(*(part.to(self.moments.mean.device) for part in moments))
        scaled: npt.NDArray[np.float32] = (rewards * self.factor).astype(np.float32)
        return scaled.clip(-self.clip, self.clip), carried
