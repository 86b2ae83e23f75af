"""Episodes of an evaluation: one for each seed, each counted to its end, none touched by its mates."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from resdomains.training import BadSample, Film
from resdomains_tasks.rl_policy.environments import (
    EnvironmentFailed,
    Frame,
    VectorEnvironments,
    describe,
)
from resdomains_tasks.rl_policy.episodes import (
    Episode,
    evaluation_environments,
    play,
    play_alone,
)

Array = np.ndarray[Any, Any]


class Counting(VectorEnvironments):
    """Episodes as long as their seed; the observation is the seed and the step, the reward the action.

    An even seed's episode is terminated, an odd one's truncated.

    Args:
        count: How many.
        same_step: Whether an ended one begins anew within the step.
        breaks_at: A step that fails.
    """

    def __init__(self, count: int, same_step: bool = False, breaks_at: int | None = None) -> None:
        self.count, self.name, self.same_step, self.breaks_at = (
            count,
            "Counting",
            same_step,
            breaks_at,
        )
        self.steps_taken = 0
        self.rewards = np.zeros(count, np.float32)

    def reset(self, seeds: list[int]) -> Frame:
        assert len(seeds) == self.count
        self.seeds, self.step_of = np.array(seeds), np.zeros(self.count, int)
        self.ended = np.zeros(self.count, bool)
        return self._frame_of(np.zeros(self.count), self.ended, np.ones(self.count, bool))

    def step(self, actions: Array) -> Frame:
        self.steps_taken += 1
        if self.steps_taken == self.breaks_at:
            raise EnvironmentFailed("Counting: broke")
        reset = self.ended
        self.step_of = np.where(reset, 0, self.step_of + 1)
        ended = ~reset & (self.step_of == self.seeds)
        final = self._observations() if self.same_step and ended.any() else None
        self.step_of = np.where(ended & self.same_step, 0, self.step_of)
        self.ended = ended & (not self.same_step)
        return self._frame_of(np.where(reset, 0, actions), ended, reset, final)

    def _observations(self) -> dict[str, Array]:
        return {"observation": np.stack([self.seeds, self.step_of], 1).astype(np.float32)}

    def _frame_of(
        self, rewards: Array, ended: Array, reset: Array, final: dict[str, Array] | None = None
    ) -> Frame:
        even = self.seeds % 2 == 0
        # As vector environments do, the same array each step.
        self.rewards[:] = rewards
        return Frame(
            self._observations(), self.rewards, ended & even, ended & ~even, reset, final, None
        )

    def render(self) -> list[Array]:
        return [np.full((160, 160, 3), 10 * int(n), np.uint8) for n in self.step_of]


def say(observations: Any, masks: Any, noise: Tensor | None) -> tuple[Array, Array]:
    """The action is the step that is to come, plus noise; the value is 100 seed + step."""
    seeds, steps = observations["observation"].T
    chosen = steps + 1 if noise is None else steps + 1 + noise.numpy()
    return chosen, 100 * seeds + steps


def draw(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


@pytest.mark.parametrize("same_step", [False, True])
def test_each_seed_gets_one_episode_to_its_end(same_step: bool) -> None:
    found = play(say, Counting(5, same_step), [3, 1, 4])
    assert [episode.seed for episode in found] == [3, 1, 4]
    assert [episode.rewards.tolist() for episode in found] == [[1, 2, 3], [1], [1, 2, 3, 4]]
    assert [episode.values.tolist() for episode in found] == [
        [300, 301, 302],
        [100],
        [400, 401, 402, 403],
    ]
    assert [episode.end for episode in found] == ["truncated", "truncated", "terminated"]
    assert [episode.bootstrap for episode in found] == [303, 101, 0]
    assert [(episode.total, episode.length) for episode in found] == [(6, 3), (1, 1), (10, 4)]


def test_the_run_ends_when_all_have_ended_or_at_the_limit() -> None:
    environments = Counting(2)
    play(say, environments, [7, 2])
    assert environments.steps_taken == 7
    environments = Counting(3)
    found = play(say, environments, [7, 2, 4], limit=4)
    assert environments.steps_taken == 4
    assert [episode.length for episode in found] == [4, 2, 4]
    assert [episode.end for episode in found] == ["cut", "terminated", "terminated"]
    assert [episode.bootstrap for episode in found] == [704, 0, 0]


def test_sampled_episodes_depend_on_their_seed_and_not_on_their_mates() -> None:
    seeds = [100, 3, 71, 9]
    together = play(say, Counting(4), seeds, noise=draw)
    for seed, episode in zip(seeds, together, strict=True):
        (alone,) = play(say, Counting(1), [seed], noise=draw)
        assert alone.rewards.tolist() == episode.rewards.tolist()
        noise = episode.rewards - np.arange(1, seed + 1)
        assert (noise > 0).all()
        assert len(np.unique(noise)) == seed, "each step has noise of its own"
    backwards = play(say, Counting(5), seeds[::-1], noise=draw)[::-1]
    assert [e.rewards.tolist() for e in backwards] == [e.rewards.tolist() for e in together]


def test_the_value_loss_is_that_of_the_formula() -> None:
    episode = Episode(0, np.array([1.0, 2.0]), np.array([3.0, 5.0]), "truncated", 10.0)
    # G_1 = 0.5 * 2 + 0.9 * 10 = 10, G_0 = 0.5 * 1 + 0.9 * 10 = 9.5
    assert episode.discounted(0.9, 0.5) == pytest.approx([9.5, 10.0])
    assert episode.value_loss(0.9, 0.5) == pytest.approx((6.5**2 + 5**2) / 2)
    over = Episode(0, np.array([1.0, 2.0]), np.array([3.0, 5.0]), "terminated", 0.0)
    assert over.discounted(0.9, 1.0) == pytest.approx([2.8, 2.0])


def test_a_film_shows_the_first_episode_from_its_reset_to_its_last_step() -> None:
    film = Film(10.0)
    play(say, Counting(3), [4, 9, 2], film=film)
    assert film.times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    short = Film(1000.0)
    play(say, Counting(2), [6, 8], film=short)
    assert short.times == pytest.approx([0, 0.006]), "the last step is always there"


def test_a_wrong_number_of_seeds_is_refused() -> None:
    for seeds in ([], [1, 2, 3]):
        with pytest.raises(ValueError, match=f"at most the 2 environments, got {len(seeds)}"):
            play(say, Counting(2), seeds)


def lean(observations: Any, masks: Any, noise: Tensor | None) -> tuple[Array, Array]:
    """Push CartPole's cart the way that its pole falls."""
    x = observations["observation"]
    return (x[:, 2] + 0.5 * x[:, 3] > 0).astype(np.int64), x[:, 0]


def test_cartpole_is_played_as_gymnasium_plays_it() -> None:
    import gymnasium

    spec = describe("CartPole-v1")
    env = gymnasium.make("CartPole-v1")
    found = play_alone(lean, spec, [5, 6, 7])
    for seed, episode in zip((5, 6, 7), found, strict=True):
        observation, _ = env.reset(seed=seed)
        over, steps = False, 0
        while not over:
            action = lean({"observation": observation[None]}, None, None)[0][0]
            observation, _, terminated, truncated, _ = env.step(int(action))
            over, steps = terminated or truncated, steps + 1
        assert episode.record() == {
            "seed": seed,
            "return": float(steps),
            "length": steps,
            "end": "terminated" if terminated else "truncated",
        }
    one_by_one = play_alone(lean, spec, [5, 6, 7], together=False)
    assert [e.record() for e in one_by_one] == [e.record() for e in found]


def test_evaluation_environments_take_a_seed_each() -> None:
    environments = evaluation_environments(describe("CartPole-v1"), 2)
    first = environments.reset([3, 8]).observations["observation"].copy()
    second = environments.reset([8, 3]).observations["observation"]
    assert np.array_equal(first, second[::-1])
    assert not np.array_equal(first[0], first[1])
    environments.close()


def test_an_environment_that_fails_is_a_bad_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "resdomains_tasks.rl_policy.episodes.make_environments"
    spec = describe("CartPole-v1")
    monkeypatch.setattr(Counting, "close", lambda self: None, raising=False)
    monkeypatch.setattr(module, lambda *a, **k: Counting(1, breaks_at=2))
    with pytest.raises(BadSample, match="CartPole-v1: Counting: broke"):
        play_alone(say, spec, [5])

    def refuse(*a: Any, **k: Any) -> Any:
        raise ValueError("it needs a package")

    monkeypatch.setattr(module, refuse)
    with pytest.raises(BadSample, match="CartPole-v1: it needs a package"):
        play_alone(say, spec, [5])
