from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from resdomains_tasks.rl_policy.environments import Autoreset, describe, make_environments
from resdomains_tasks.rl_policy.estimates import Estimates
from resdomains_tasks.rl_policy.rollout import Acted, Rollout, Runner

from . import worlds  # noqa: F401 it registers them

LENGTHS = [3, 5, 1]


def runner(autoreset: Autoreset, truncates: bool = True, count: int = 2) -> Runner:
    spec = describe("Worlds/Counting-v0", {"lengths": LENGTHS, "truncates": truncates})
    environments = make_environments(
        spec, count, vectorization="sync", autoreset=autoreset, training=True
    )
    environments.reset([0, 1][:count])
    return Runner(environments, 0, count)


def act(step: int, observations: dict[str, Tensor], masks: Tensor | None) -> Acted:
    seen = observations["observation"]
    return Acted(
        parameters=seen.repeat(1, 2)[:, :3],
        actions=torch.full((len(seen),), step % 3),
        taken=np.full(len(seen), step % 3),
        values=seen[:, 1] * 10,
    )


def valid_rewards(rollout: Rollout) -> list[float]:
    found: list[float] = rollout.rewards[:, 0][~rollout.reset[:, 0]].tolist()
    return found


def test_next_step_rollouts_mark_the_steps_that_only_reset() -> None:
    rollout = runner("next_step").collect(12, act)
    seen = rollout.observations["observation"][:, 0].tolist()
    # (episode, step): 3 steps, whose last observation is followed by a reset; then 5, 1, and 3 again.
    assert seen[:5] == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]]
    assert rollout.reset[:, 0].tolist() == [step in (3, 9, 11) for step in range(12)]
    assert rollout.truncated[:, 0].tolist() == [step in (2, 8, 10) for step in range(12)]
    assert not rollout.terminated.any()
    assert valid_rewards(rollout) == [1, 2, 3, 1, 2, 3, 4, 5, 1]
    assert rollout.final is None
    assert len(seen) == 13
    assert rollout.values is not None
    assert torch.equal(rollout.values, rollout.observations["observation"][:12, :, 1] * 10)


def test_same_step_rollouts_keep_the_last_observations() -> None:
    rollout = runner("same_step").collect(9, act)
    assert not rollout.reset.any()
    assert valid_rewards(rollout) == [1, 2, 3, 1, 2, 3, 4, 5, 1]
    assert rollout.final is not None
    mine = rollout.final_places[:, 1] == 0
    assert rollout.final_places[mine, 0].tolist() == [2, 7, 8]
    assert rollout.final["observation"][mine].tolist() == [[0, 3], [1, 5], [2, 1]]
    assert rollout.observations["observation"][3, 0].tolist() == [1, 0]


def test_a_rollout_goes_on_where_the_last_one_stopped() -> None:
    whole, parts = runner("next_step"), runner("next_step")
    once = whole.collect(11, act)
    twice = [parts.collect(4, act), parts.collect(7, act)]
    for name in ("rewards", "reset", "truncated"):
        joined = np.concatenate([getattr(part, name) for part in twice])
        assert np.array_equal(getattr(once, name), joined)


def test_episodes_are_counted_across_rollouts_without_their_resets() -> None:
    counted = runner("next_step")
    returns: list[float] = []
    lengths: list[int] = []
    for steps in (2, 1, 5, 9, 4):
        rollout = counted.collect(steps, act)
        ended = rollout.terminated | rollout.truncated
        found = counted.count_on(rollout.rewards, ended, ~rollout.reset)
        returns += found[0]
        lengths += found[1]
    # 21 steps of two environments that do the same: 3 + 1, 5 + 1, 1 + 1, and again up to a step of the next.
    assert lengths == [3, 3, 5, 5, 1, 1, 3, 3, 5, 5]
    assert returns == [length * (length + 1) / 2 for length in lengths]


def test_a_state_restores_environments_and_what_is_carried() -> None:
    one = runner("next_step")
    rollout = one.collect(5, act)
    one.count_on(rollout.rewards, rollout.truncated, ~rollout.reset)
    one.discounted += 7.0
    state = one.state()
    assert state is not None
    other = runner("next_step")
    assert other.restore([state])
    assert np.array_equal(other.lengths, one.lengths)
    assert np.array_equal(other.discounted, one.discounted)
    assert torch.equal(
        one.collect(6, act).observations["observation"],
        other.collect(6, act).observations["observation"],
    )


@pytest.mark.parametrize(
    "states", [lambda state: [state, state], lambda state: [None], lambda state: []]
)
def test_a_state_of_other_processes_is_not_taken(states: Callable[[object], list[None]]) -> None:
    one = runner("next_step")
    assert not one.restore(states(one.state()))


def test_a_state_of_another_number_of_environments_is_not_taken() -> None:
    assert not runner("next_step").restore([runner("next_step", count=1).state()])


def test_explained_variance_is_one_of_a_critic_that_knows_the_returns_and_zero_of_their_mean() -> (
    None
):
    returns = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    valid = np.ones((50, 2), bool)
    known = Estimates.of(np.zeros_like(returns), returns, valid, [1.0, 3.0], [4, 5])
    assert known.measures["explained_variance"] == 1.0
    assert (known.measures["return"], known.measures["length"]) == (2.0, 4.5)
    mean = np.full_like(returns, returns.mean())
    guessed = Estimates.of(returns - mean, mean, valid, [], [])
    assert guessed.measures["explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(guessed.measures["return"])


def test_a_process_gets_the_estimates_of_its_own_environments() -> None:
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    estimates = Estimates.of(grid, grid * 0, np.ones((3, 4), bool), [], [])
    advantages, returns, values = estimates.own(slice(1, 3))
    assert advantages.tolist() == returns.tolist() == [1, 2, 5, 6, 9, 10]
    assert not values.any()
