import math
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import Tensor

from resdomains_tasks.rl_policy.normalization import (
    ObservationNormalization,
    ReturnNormalization,
    RunningMoments,
)


def samples(*shape: int, seed: int = 0) -> Tensor:
    return 5.0 + 3.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_merged_moments_are_those_of_all_samples(shape: tuple[int, ...]) -> None:
    x = samples(57, *shape)
    merged = RunningMoments(shape)
    for part in (x[:1], x[1:20], x[20:20], x[20:]):
        merged.merge(*RunningMoments.moments(part))
    assert merged.count == 57
    torch.testing.assert_close(merged.mean, x.double().mean(0))
    torch.testing.assert_close(merged.variance, x.double().var(0, correction=0))


def test_moments_far_from_zero_keep_their_variance() -> None:
    x = 1e7 + torch.arange(8.0).repeat(
        1000
    )  # the sum of squares would lose it in float64's last digits
    merged = RunningMoments(())
    for part in x.split(100):  # type: ignore[no-untyped-call]
        merged.merge(*RunningMoments.moments(part))
    torch.testing.assert_close(merged.variance, torch.tensor(5.25, dtype=torch.float64))


def test_observations_are_as_they_are_before_the_first_merge() -> None:
    x = 1e6 * samples(4, 3)
    normalization = ObservationNormalization((3,))
    assert torch.equal(normalization(x), x)
    normalization.update(RunningMoments.moments(x[:0]))
    assert torch.equal(normalization(x), x)


def test_observations_get_mean_0_and_deviation_1() -> None:
    x = torch.cat((samples(200, 3), samples(200, 3, seed=1) * 100))
    normalization = ObservationNormalization((3,))
    normalization.update(RunningMoments.moments(x[:150]), RunningMoments.moments(x[150:]))
    found = normalization(x)
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(3))
    assert found.dtype == torch.float32


def test_observations_are_clipped_and_constant_ones_become_0() -> None:
    x = samples(100, 2)
    x[:, 1] = 0.1
    normalization = ObservationNormalization((2,), clip=2.0)
    normalization.update(RunningMoments.moments(x))
    assert not normalization(x)[:, 1].any()
    far = torch.tensor([[1e6, 1e6], [-1e6, -1e6]])
    assert normalization(far).tolist() == [[2.0, 2.0], [-2.0, -2.0]]


def test_statistics_change_by_update_alone() -> None:
    normalization = ObservationNormalization((3,))
    normalization.update(RunningMoments.moments(samples(10, 3)))
    before = {name: value.clone() for name, value in normalization.state_dict().items()}
    normalization.train()(samples(10, 3, seed=1))
    assert all(torch.equal(before[n], v) for n, v in normalization.state_dict().items())


class Script(gymnasium.Env[Any, Any]):
    """An environment that gives the rewards and ends it is told."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        self.steps = iter(zip(rewards.tolist(), ended.tolist(), strict=True))

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=options.get("seed"))
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), *next(self.steps), False, {}


def test_returns_are_discounted_within_episodes() -> None:
    random = np.random.default_rng(0)
    rewards = random.normal(1.0, 2.0, (50, 4)).astype(np.float32)
    ended = random.random((50, 4)) < 0.1
    returns = []
    for e in range(4):
        current = 0.0
        for t in range(50):
            current = 0.9 * current + rewards[t, e]
            returns.append(current)
            if ended[t, e]:
                current = 0.0
    deviation = math.sqrt(np.var(returns) + 1e-8)

    normalization = ReturnNormalization(0.9)
    valid = np.ones((30, 4), bool)
    first, carried = normalization.scale(rewards[:20], ended[:20], valid[:20], np.zeros(4))
    second, _ = normalization.scale(rewards[20:], ended[20:], valid, carried)
    np.testing.assert_allclose(second, rewards[20:] / deviation, rtol=1e-6)
    assert first.dtype == second.dtype == np.float32
    assert normalization.moments.count == 200
    assert normalization.factor == pytest.approx(1 / deviation)


def test_rewards_are_scaled_as_stable_baselines3_does() -> None:
    random = np.random.default_rng(0)
    rewards = random.normal(1.0, 2.0, (500, 3)).astype(np.float32)
    ended = random.random((500, 3)) < 0.05
    scripts: list[Any] = [partial(Script, rewards[:, e], ended[:, e]) for e in range(3)]
    theirs = VecNormalize(DummyVecEnv(scripts), norm_obs=False, gamma=0.9)
    theirs.reset()
    expected = [theirs.step(np.zeros(3, int))[1] for _ in range(500)]

    normalization = ReturnNormalization(0.9)
    valid = np.ones((500, 3), bool)
    _, carried = normalization.scale(rewards[:-1], ended[:-1], valid[1:], np.zeros(3))
    last, _ = normalization.scale(rewards[-1:], ended[-1:], valid[:1], carried)
    # Their moments begin with 1e-4 of a sample of variance 1.
    np.testing.assert_allclose(last[0], expected[-1], rtol=1e-5)


def test_steps_that_only_begin_an_episode_do_not_count() -> None:
    random = np.random.default_rng(1)
    rewards = random.normal(size=(6, 1)).astype(np.float32)
    ended = np.array([[False], [True], [False], [False], [True], [False]])
    every = np.ones((6, 1), bool)
    expected, carried = ReturnNormalization(0.9).scale(rewards, ended, every, np.zeros(1))

    resets = [2, 6]  # after each end, where an environment resets at the next step
    places = [t for t in range(8) if t not in resets]
    longer = np.zeros((8, 1), np.float32)
    ends = np.zeros((8, 1), bool)
    valid = np.ones((8, 1), bool)
    longer[places], ends[places], valid[resets] = rewards, ended, False
    found, with_resets = ReturnNormalization(0.9).scale(longer, ends, valid, np.zeros(1))
    np.testing.assert_array_equal(found[places], expected)
    assert with_resets == carried


def test_rewards_are_clipped() -> None:
    rewards = np.zeros((1000, 1), np.float32)
    no, yes = rewards > 0, rewards == 0
    assert not ReturnNormalization(0.9).scale(rewards, no, yes, np.zeros(1))[0].any()
    rewards[-1], rewards[-2] = 1.0, -1.0
    scaled, _ = ReturnNormalization(0.0, clip=5.0).scale(rewards, no, yes, np.zeros(1))
    assert scaled[-2:].ravel().tolist() == [-5.0, 5.0]


def test_statistics_resume_exactly() -> None:
    random = np.random.default_rng(2)
    rewards = random.normal(size=(30, 3)).astype(np.float32)
    ended = random.random((30, 3)) < 0.2
    valid = np.ones((20, 3), bool)
    whole = ReturnNormalization(0.99)
    _, carried = whole.scale(rewards[:10], ended[:10], valid[:10], np.zeros(3))
    resumed = ReturnNormalization(0.99)
    resumed.load_state_dict(whole.state_dict())
    rest = (rewards[10:], ended[10:], valid, carried)
    np.testing.assert_array_equal(resumed.scale(*rest)[0], whole.scale(*rest)[0])

    x = samples(20, 4)
    observed = ObservationNormalization((4,))
    observed.update(RunningMoments.moments(x[:10]))
    again = ObservationNormalization((4,))
    again.load_state_dict(observed.state_dict())
    assert torch.equal(again(x), observed(x))
    for normalization in (observed, again):
        normalization.update(RunningMoments.moments(x[10:]))
    assert torch.equal(again(x), observed(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ObservationNormalization((2,), clip=0.0), "clip must be above 0, got 0.0"),
        (lambda: ReturnNormalization(1.5), r"discount must lie in \[0, 1\], got 1.5"),
        (lambda: ReturnNormalization(0.9, clip=-1.0), "clip must be above 0, got -1.0"),
    ],
)
def test_bad_arguments_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
