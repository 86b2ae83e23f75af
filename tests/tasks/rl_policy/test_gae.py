from dataclasses import dataclass

import numpy as np
import pytest

from resdomains_tasks.rl_policy.gae import generalized_advantages

DISCOUNT, LAMBDA = 0.9, 0.8
STEPS, ENVIRONMENTS = 40, 6


@dataclass
class Rollout:
    """What a rollout holds, and the advantages by their definition."""

    rewards: np.ndarray
    values: np.ndarray
    next_values: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    reset: np.ndarray
    final_values: np.ndarray | None
    expected: np.ndarray

    def advantages(self) -> np.ndarray:
        return generalized_advantages(
            self.rewards,
            self.values,
            self.next_values,
            self.terminated,
            self.truncated,
            self.reset,
            self.final_values,
            DISCOUNT,
            LAMBDA,
        )


def rolled(next_step: bool, seed: int) -> Rollout:
    """Random episodes; what must not be read is NaN."""
    random = np.random.default_rng(seed)
    shape = (STEPS, ENVIRONMENTS)
    made = Rollout(
        rewards=np.zeros(shape, np.float32),
        values=np.zeros(shape, np.float32),
        next_values=np.zeros(ENVIRONMENTS, np.float32),
        terminated=np.zeros(shape, bool),
        truncated=np.zeros(shape, bool),
        reset=np.zeros(shape, bool),
        final_values=None if next_step else np.full(shape, np.nan, np.float32),
        expected=np.zeros(shape),
    )
    for e in range(ENVIRONMENTS):
        value = random.normal()  # of the observation that the next action is chosen for
        resets = next_step and random.random() < 0.5  # the rollout before ended with an episode
        episode: list[tuple[int, float]] = []  # its steps, and each one's delta
        for t in range(STEPS):
            made.values[t, e] = value
            if resets:
                made.reset[t, e] = True
                value, resets = random.normal(), False
                continue
            reward, following = random.normal(), random.normal()
            terminated, truncated = random.random(2) < 0.2
            made.rewards[t, e], made.terminated[t, e] = reward, terminated
            made.truncated[t, e] = truncated
            bootstrap = 0.0 if terminated else following
            episode.append((t, reward + DISCOUNT * bootstrap - value))
            value = following
            if terminated or truncated or t == STEPS - 1:
                deltas = np.array([delta for _, delta in episode])
                for i, (step, _) in enumerate(episode):
                    weights = (DISCOUNT * LAMBDA) ** np.arange(len(deltas) - i)
                    made.expected[step, e] = weights @ deltas[i:]
            if terminated or truncated:
                episode = []
                resets = next_step
                if not next_step:
                    assert made.final_values is not None
                    made.final_values[t, e] = following if truncated else np.nan
                    value = random.normal()
        made.next_values[e] = value
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("next_step", [True, False])
def test_advantages_are_the_discounted_sums_of_an_episodes_deltas(
    next_step: bool, seed: int
) -> None:
    rollout = rolled(next_step, seed)
    assert (rollout.terminated & rollout.truncated).any()
    assert (rollout.terminated != rollout.truncated).any()
    assert rollout.reset[0].any() == next_step
    advantages = rollout.advantages()
    assert advantages.dtype == np.float32
    np.testing.assert_allclose(advantages, rollout.expected, atol=2e-6)
    assert not advantages[rollout.reset].any()


def test_a_rollout_is_left_as_it_was() -> None:
    rollout, twin = rolled(False, 0), rolled(False, 0)
    rollout.advantages()
    for name in ("rewards", "values", "next_values", "terminated", "truncated", "final_values"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(twin, name))


def test_a_step_and_its_bootstrap_at_the_end_of_the_rollout() -> None:
    one = np.ones((1, 3), np.float32)
    no = np.zeros((1, 3), bool)
    ended = np.array([[False, True, False]])
    cut = np.array([[False, False, True]])
    nexts = np.array([2.0, 2.0, 2.0], np.float32)
    # In the same step the next value is that of a new episode, in the next step it is that of the last observation.
    final = np.array([[np.nan, np.nan, 5.0]], np.float32)
    same = generalized_advantages(one, one, nexts, ended, cut, no, final, 0.5, 0.9)
    np.testing.assert_allclose(same, [[1.0, 0.0, 2.5]])
    later = generalized_advantages(one, one, nexts, ended, cut, no, None, 0.5, 0.9)
    np.testing.assert_allclose(later, [[1.0, 0.0, 1.0]])
