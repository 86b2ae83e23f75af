import sys
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest

from resdomains_tasks.rl_policy.environments import describe, make_environments
from resdomains_tasks.rl_policy.wrappers import (
    AtariPreprocessing,
    ClipReward,
    EpisodicLife,
    FrameStack,
    Greyscale,
    LostLifeEnds,
    RescaleAction,
    Resize,
    ScaleReward,
    StickyActions,
    TimeLimit,
    Wrapping,
)

from . import worlds

COUNTING = {"lengths": [4], "copies": True}


def play(wrappers: list[Wrapping], steps: int, training: bool = True) -> list[Any]:
    spec = describe("Worlds/Counting-v0", COUNTING, wrappers)
    environments = make_environments(spec, 1, training=training)
    frames = [environments.reset([0])]
    frames += [environments.step(np.array([0])) for _ in range(steps)]
    environments.close()
    return frames


@pytest.mark.parametrize(
    "wrapper",
    [
        FrameStack(3),
        Greyscale(),
        Resize(60, 80),
        ClipReward(-2, 3),
        ScaleReward(0.5),
        StickyActions(0.1),
        EpisodicLife(),
        TimeLimit(7),
        RescaleAction(),
        AtariPreprocessing(stack=3, episodic_life=True),
    ],
)
def test_a_wrapper_is_what_its_plain_description_makes(wrapper: Wrapping) -> None:
    plain = wrapper.plain()
    assert plain["name"] == type(wrapper).__name__
    assert Wrapping.of(plain) == wrapper


def test_a_wrapper_of_ones_own_is_found_by_its_dotted_path() -> None:
    @dataclass(frozen=True)
    class Own(Wrapping):
        number: int = 1

        def wrap(self, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
            return env

    plain = Own(5).plain()
    assert plain["name"] == f"{__name__}.{Own.__qualname__}"
    assert Wrapping.of(plain) == Own(5)


def test_a_checkpoint_imports_no_module() -> None:
    sys.modules.pop("this", None)
    with pytest.raises(ValueError, match=r"no wrapper is called 'this.s'; there are .*FrameStack"):
        Wrapping.of({"name": "this.s", "options": {}})
    assert "this" not in sys.modules
    with pytest.raises(ValueError, match=r"FrameStack cannot be built of \{'cuont': 3\}"):
        Wrapping.of({"name": "FrameStack", "options": {"cuont": 3}})


def test_a_frame_stack_holds_the_newest_observations_and_begins_with_the_first() -> None:
    frames = play([FrameStack(3)], 2)
    assert frames[0].observations["observation"].tolist() == [[[0, 0, 0], [0, 0, 0]]]
    assert frames[2].observations["observation"][0, 1].tolist() == [0, 1, 2]


def test_rewards_are_clipped_and_scaled_in_training_alone() -> None:
    wrappers = [ScaleReward(2.0), ClipReward(0, 5)]
    assert [frame.rewards[0] for frame in play(wrappers, 4)] == [0, 2, 4, 5, 5]
    assert [frame.rewards[0] for frame in play(wrappers, 4, training=False)] == [0, 1, 2, 3, 4]


def test_a_time_limit_truncates() -> None:
    frames = play([TimeLimit(2)], 2)
    assert [bool(frame.truncated[0]) for frame in frames] == [False, False, True]


def test_actions_are_rescaled_to_the_environments_bounds() -> None:
    env = RescaleAction().wrap(gymnasium.make("Pendulum-v1"))
    env.reset(seed=0)
    env.step(np.array([0.5], np.float32))
    assert env.unwrapped.last_u == 1.0  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="continuous actions with bounds, got Discrete"):
        RescaleAction().wrap(gymnasium.make("CartPole-v1"))


def test_sticky_actions_repeat_the_last_one() -> None:
    env = StickyActions(0.5).wrap(worlds.Counting([1000]))
    taken: list[int] = []
    unwrapped: Any = env.unwrapped
    step = unwrapped.step

    def record(action: Any) -> Any:
        taken.append(int(action))
        return step(action)

    unwrapped.step = record
    env.reset(seed=0)
    for number in range(400):
        env.step(np.int64(5 + number % 3))
    kept = np.mean([action == 5 + i % 3 for i, action in enumerate(taken)])
    assert 0.4 < kept < 0.8


class Lives(gymnasium.Env[Any, Any]):
    """Three lives of two steps each."""

    observation_space = gymnasium.spaces.Box(0, 10, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.ale = self
        self.count = 0

    def lives(self) -> int:
        return 3 - self.count // 3

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        return np.array([0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.array([self.count], np.float32), 1.0, self.count == 9, False, {}


def test_a_lost_life_ends_the_episode_and_the_game_goes_on() -> None:
    env = EpisodicLife().wrap(Lives())
    assert isinstance(env, LostLifeEnds)
    firsts, lengths = [], []
    for _ in range(4):
        first, _ = env.reset()
        firsts.append(int(first[0]))
        ended, length = False, 0
        while not ended:
            _, _, ended, _, _ = env.step(1)
            length += 1
        lengths.append(length)
    # The reset of a lost life is a step of its own; the fourth begins a new game.
    assert firsts == [0, 4, 7, 0]
    assert lengths == [3, 2, 2, 3]


def test_a_wrapper_says_what_it_needs() -> None:
    cartpole = gymnasium.make("CartPole-v1")
    for wrapper, message in (
        (Greyscale(), r"Greyscale takes pictures \(H, W, 3\)"),
        (Resize(), r"Resize takes pictures \(H, W\)"),
        (EpisodicLife(), "EpisodicLife needs a game that counts lives"),
        (AtariPreprocessing(), "must be the only wrapper of an ALE/... environment"),
    ):
        with pytest.raises(ValueError, match=message):
            wrapper.wrap(cartpole)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FrameStack(1), "FrameStack: count must be at least 2, got 1"),
        (lambda: Resize(height=0), "height must be at least 1, got 0"),
        (lambda: Resize(width=0), "width must be at least 1, got 0"),
        (lambda: ClipReward(1, 1), r"low must be below high \(1\), got 1"),
        (lambda: ScaleReward(0), "factor must be above 0, got 0"),
        (lambda: StickyActions(1), r"probability must be in \[0, 1\), got 1"),
        (lambda: TimeLimit(0), "steps must be at least 1, got 0"),
        (lambda: RescaleAction(1, 0), r"low must be below high \(0\), got 1"),
        (lambda: AtariPreprocessing(stack=0), "stack must be at least 1, got 0"),
        (lambda: AtariPreprocessing(noop_max=-1), "noop_max must be at least 0, got -1"),
        (lambda: AtariPreprocessing(sticky=1), r"sticky must be in \[0, 1\), got 1"),
        (lambda: AtariPreprocessing(threads=-1), "threads must be at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_what_hides_the_true_return_is_left_out_of_atari_evaluation() -> None:
    wrapper = AtariPreprocessing(episodic_life=True, clip_reward=True)
    training, evaluation = wrapper.arguments(True), wrapper.arguments(False)
    assert (training.pop("episodic_life"), training.pop("reward_clipping")) == (True, True)
    assert (evaluation.pop("episodic_life"), evaluation.pop("reward_clipping")) == (False, False)
    assert training == evaluation
