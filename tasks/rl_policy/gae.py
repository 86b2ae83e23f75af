"""Generalised advantage estimation (Schulman et al. 2016, "High-dimensional continuous control using GAE")."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


def generalized_advantages(
    rewards: Floats,
    values: Floats,
    next_values: Floats,
    terminated: Bools,
    truncated: Bools,
    reset: Bools,
    final_values: Floats | None,
    discount: float,
    gae_lambda: float,
) -> npt.NDArray[np.float32]:
    """Return the advantages of T steps in E environments; the returns to learn are advantages + values.

        delta_t = r_t + discount V(s_{t+1}) - V(s_t),  A_t = delta_t + discount lambda A_{t+1}

    The sum of A ends with the episode. V(s_{t+1}) is 0 where the episode terminated at t; where it was truncated it is
    the value of its last observation, as what would have followed has not been seen (Pardo et al. 2018, "Time limits in
    reinforcement learning"). A step that is both has terminated.

    A vector environment that resets at the next step gives the last observation of an episode as that of the step
    after it, which only begins a new episode: `values` has its value there, and its own advantage is 0. One that resets
    in the same step gives the next episode's first observation there, so that `final_values` are needed.

    Args:
        rewards: (T, E).
        values: (T, E) of the observations that the steps' actions were chosen for.
        next_values: (E,) of the observations after the last step.
        terminated: (T, E), True where the step ended an episode by the environment's rules.
        truncated: (T, E), True where a limit cut the episode off after the step.
        reset: (T, E), True where the step only began a new episode; such steps are not to be learned from.
        final_values: (T, E) values of the last observations of the episodes that were truncated by this step, whatever
            elsewhere; None for environments that reset at the next step.
        discount: Discount per step.
        gae_lambda: 0 trusts the values (one-step advantages), 1 the rewards (Monte Carlo).

    Returns:
        (T, E).
    """
    following = np.empty(rewards.shape, np.float32)
    following[:-1] = values[1:]
    following[-1] = next_values
    if final_values is not None:
        np.copyto(following, final_values, where=truncated, casting="same_kind")
    following[terminated] = 0.0
    advantages = (rewards - values + discount * following).astype(np.float32)
    advantages[reset] = 0.0
    decay = np.where(terminated | truncated | reset, 0.0, discount * gae_lambda).astype(np.float32)
    carried = np.empty(rewards.shape[1:], np.float32)
    for t in range(len(rewards) - 2, -1, -1):
        np.multiply(decay[t], advantages[t + 1], out=carried)
        advantages[t] += carried
    return advantages
