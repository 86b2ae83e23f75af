"""What the steps of a rollout turned out to be worth, of all processes' environments."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .ppo import normalise


@dataclass(frozen=True)
class Estimates:
    """The steps of T times all environments, in the order t * environments + e; equal in every process.

    Args:
        advantages: (T * total,) float32.
        returns: (T * total,) what the values shall become: advantages + values.
        values: (T * total,) under the critic that the rollout began with.
        valid: (T, total), False where a step only began an episode.
        measures: Numbers about the rollout; NaN where there is nothing to tell.
    """

    advantages: Tensor
    returns: Tensor
    values: Tensor
    valid: npt.NDArray[np.bool_]
    measures: dict[str, float]

    @classmethod
    def of(
        cls,
        advantages: npt.NDArray[np.float32],
        values: npt.NDArray[np.float32],
        valid: npt.NDArray[np.bool_],
        episode_returns: list[float],
        episode_lengths: list[int],
    ) -> "Estimates":
        """Build from arrays (T, total) and from the episodes that ended in the rollout.

        `explained_variance` is 1 - Var(returns - values) / Var(returns): 1 for a critic that knows the returns, 0 for
        one that knows their mean.
        """
        returns = advantages + values
        spread = float(returns[valid].var()) if valid.any() else 0.0
        explained = 1.0 - float(advantages[valid].var()) / spread if spread > 0 else np.nan
        measures = {
            "return": float(np.mean(episode_returns)) if episode_returns else np.nan,
            "length": float(np.mean(episode_lengths)) if episode_lengths else np.nan,
            "explained_variance": explained,
        }
        return cls(_flat(advantages), _flat(returns), _flat(values), valid, measures)

    def normalised(self) -> "Estimates":
        """Return the same with advantages of mean 0 and standard deviation 1 over all steps that are learned from."""
        known = torch.from_numpy(self.valid.reshape(-1))
        advantages = self.advantages.masked_scatter(known, normalise(self.advantages[known]))
        return replace(self, advantages=advantages)

    def own(self, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return advantages, returns and values (T * E,) of some of the environments, such as this process's."""
        total = self.valid.shape[1]
        advantages, returns, values = (
            x.view(-1, total)[:, part].flatten()
            for x in (self.advantages, self.returns, self.values)
        )
        return advantages, returns, values


def _flat(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array).reshape(-1))
