import io
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from resdomains_tasks.rl_policy.environments import (
    Autoreset,
    EnvironmentFailed,
    VectorEnvironments,
    Vectorization,
    can_draw,
    describe,
    make_environments,
)
from resdomains_tasks.rl_policy.references import REFERENCES
from resdomains_tasks.rl_policy.wrappers import AtariPreprocessing, ClipReward, FrameStack

from . import worlds  # noqa: F401 it registers them

KINDS: list[Vectorization] = ["sync", "async"]


class Made:
    """Makes environments and closes them after the test."""

    def __init__(self) -> None:
        self.all: list[VectorEnvironments] = []

    def __call__(
        self,
        environment: str,
        count: int = 2,
        vectorization: Vectorization = "auto",
        autoreset: Autoreset = "next_step",
        wrappers: Any = (),
        training: bool = True,
        render: bool = False,
        **options: Any,
    ) -> VectorEnvironments:
        spec = describe(environment, options, wrappers)
        made = make_environments(
            spec,
            count,
            vectorization=vectorization,
            autoreset=autoreset,
            training=training,
            render=render,
        )
        self.all.append(made)
        return made


@pytest.fixture
def make() -> Iterator[Made]:
    made = Made()
    yield made
    for environments in made.all:
        environments.close()


def observed(frame: Any) -> list[Any]:
    rows: list[Any] = frame.observations["observation"].tolist()
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("truncates", [False, True])
def test_next_step_mode_shows_the_final_observation_and_then_only_resets(
    make: Made, kind: Vectorization, truncates: bool
) -> None:
    environments = make("Worlds/Counting-v0", 2, kind, lengths=[2, 3], truncates=truncates)
    frames = [environments.reset([0, 1])]
    frames += [environments.step(np.array([0, 2])) for _ in range(5)]
    assert [observed(frame)[0] for frame in frames] == [
        [0, 0],
        [0, 1],
        [0, 2],
        [1, 0],
        [1, 1],
        [1, 2],
    ]
    assert [frame.rewards.tolist() for frame in frames] == [[x, x] for x in (0, 1, 2, 0, 1, 2)]
    assert [frame.reset.tolist() for frame in frames] == [[x, x] for x in (1, 0, 0, 1, 0, 0)]
    ended = [frame.truncated if truncates else frame.terminated for frame in frames]
    other = [frame.terminated if truncates else frame.truncated for frame in frames]
    assert [flags.tolist() for flags in ended] == [[x, x] for x in (0, 0, 1, 0, 0, 0)]
    assert not np.any(other)
    assert all(frame.final is None for frame in frames)
    assert environments.frame is frames[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_same_step_mode_gives_the_final_observation_beside_the_next_episodes_first(
    make: Made, kind: Vectorization
) -> None:
    environments = make("Worlds/Counting-v0", 2, kind, "same_step", lengths=[2, 3])
    frames = [environments.reset([0, 1])]
    frames += [environments.step(np.array([0, 2])) for _ in range(5)]
    shown = [observed(frame)[1] for frame in frames]
    assert shown == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0]]
    assert [float(frame.rewards[1]) for frame in frames] == [0, 1, 2, 1, 2, 3]
    assert [bool(frame.terminated[0]) for frame in frames] == [0, 0, 1, 0, 0, 1]
    assert not any(frame.reset.any() for frame in frames[1:])
    finals = [
        None if frame.final is None else frame.final["observation"].tolist() for frame in frames
    ]
    assert finals == [None, None, [[0, 2]] * 2, None, None, [[1, 3]] * 2]


def test_only_the_ended_environments_have_a_final_observation(make: Made) -> None:
    environments = make("CartPole-v1", 2, "sync", "same_step")
    environments.reset([2, 1])
    while (frame := environments.step(np.array([environments._steps % 2, 0]))).final is None:
        before = frame
    assert frame.terminated.tolist() == [False, True]
    assert abs(frame.final["observation"][1]).max() > 0.2 > abs(observed(frame)[1][2])
    assert not frame.final["observation"][0].any()
    assert before.final is None


def test_earlier_frames_stay_as_they_were(make: Made) -> None:
    for environment in ("CartPole-v1", "Acrobot-v1"):
        environments = make(environment)
        frames = [environments.reset([0, 1])]
        kept = []
        for _ in range(40):
            frames.append(environments.step(np.array([0, 1])))
            kept.append([np.copy(x) for x in (frames[-1].observations["observation"],)])
        for frame, (copy,) in zip(frames[1:], kept, strict=True):
            np.testing.assert_array_equal(frame.observations["observation"], copy)


def test_native_cartpole_goes_as_its_equations_do(make: Made) -> None:
    native = make("CartPole-v1", 4)
    assert type(native._batch).__name__ == "Native"
    single = gymnasium.make("CartPole-v1")
    frame = native.reset([3, 4, 5, 6])
    unwrapped: Any = single.unwrapped
    generator = np.random.default_rng(0)
    done = np.ones(4, bool)
    ended = 0
    for _ in range(200):
        actions = generator.integers(0, 2, 4)
        states = native._batch.vector.state.T.copy()  # type: ignore[attr-defined]
        frame = native.step(actions)
        assert frame.reset.tolist() == (done if ended else np.zeros(4, bool)).tolist()
        for row in range(4):
            if frame.reset[row]:
                assert frame.rewards[row] == 0
                assert not frame.terminated[row]
                assert np.abs(observed(frame)[row]).max() <= 0.05
                continue
            single.reset()
            unwrapped.state = states[row]
            expected, reward, terminated, _, _ = single.step(int(actions[row]))
            np.testing.assert_allclose(observed(frame)[row], expected, rtol=1e-5, atol=1e-6)
            assert (frame.rewards[row], frame.terminated[row]) == (reward, terminated)
        done = frame.terminated | frame.truncated
        ended += int(done.sum())
    assert ended > 10


def test_each_environment_begins_from_its_own_seed(make: Made) -> None:
    both = make("CartPole-v1", 2, "sync").reset([5, 9])
    alone = make("CartPole-v1", 1, "async").reset([9])
    assert observed(both)[1] == observed(alone)[0]
    again = make("CartPole-v1", 2, "sync").reset([5, 9])
    assert observed(both) == observed(again)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_method", [False, True])
def test_masks_say_what_is_allowed_now(make: Made, kind: Vectorization, by_method: bool) -> None:
    environments = make("Worlds/Masked-v0", 2, kind, by_method=by_method)
    assert environments.spec.action["masked"]
    frames = [environments.reset([0, 1])]
    frames += [environments.step(np.array([[1, 2], [0, 2]])) for _ in range(3)]
    even, odd = [True, True, False, True, True], [True, True, True, False, True]
    masks = [frame.masks[1].tolist() for frame in frames if frame.masks is not None]
    assert masks == [even, odd, even, even]


def test_masks_of_same_step_mode_are_of_the_new_episode(make: Made) -> None:
    environments = make("Worlds/Masked-v0", 1, "sync", "same_step", by_method=False, length=1)
    environments.reset([0])
    frame = environments.step(np.array([[0, 0]]))
    assert frame.terminated[0]
    assert frame.masks is not None
    assert frame.masks[0].tolist() == [True, True, False, True, True]


def test_taxi_masks_its_actions(make: Made) -> None:
    environments = make("Taxi-v4", 2)
    frame = environments.reset([0, 1])
    assert frame.masks is not None
    assert frame.masks.shape == (2, 6)
    assert frame.masks.any(1).all()
    assert not frame.masks.all()
    assert frame.observations["observation"].sum(1).tolist() == [1, 1]


def test_a_mask_that_allows_nothing_is_named(make: Made) -> None:
    environments = make("Worlds/Masked-v0", 1, by_method=False, gives=2, length=9)
    environments.reset([0])
    environments.step(np.array([[0, 0]]))
    with pytest.raises(EnvironmentFailed, match=r"step 2.*mask of 5 actions, 2 of them allowed"):
        environments.step(np.array([[0, 0]]))


def test_pictures_and_numbers_of_mappings_come_apart(make: Made) -> None:
    environments = make("Worlds/Camera-v0", 3)
    frame = environments.reset([0, 1, 2])
    assert frame.observations["camera"].shape == (3, 3, 4, 6)
    assert frame.observations["camera"].dtype == np.uint8
    # Entries of a mapping stand in the order of their names.
    assert frame.observations["vector"][0].tolist() == [0, 1, 0, 1, 3, 2, 4]
    frame = environments.step(np.array([[1.0, 2.0], [0, 0], [-1, 3]]))
    assert frame.rewards.tolist() == [3, 0, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "raises",
            r"environment \d at step 3, on action 6, raised ZeroDivisionError: the ball is nowhere \(.*worlds.py:",
        ),
        ("observation", r"environment 0 at step 3, on action 1, gave a observation that is not"),
        ("reward", r"environment 0 at step 3, on action 1, gave a reward that is not finite"),
        (
            "shape",
            r"at step 3, on action 6, gave an observation that leaves its space: a ndarray of shape \(1",
        ),
        (
            "nothing",
            r"at step 3, on action 6, gave an observation that leaves its space: a NoneType",
        ),
        ("reset", r"environment \d at its reset raised OSError: the level is missing"),
    ],
)
def test_what_fails_is_named_with_its_step_and_action(
    make: Made, kind: Vectorization, wrong: str, message: str
) -> None:
    environments = make("Worlds/Broken-v0", 2, kind, wrong=wrong)
    environments.reset([0, 1])
    for _ in range(5 if wrong == "reset" else 8):
        environments.step(np.array([1, 1]))
    with pytest.raises(EnvironmentFailed, match=rf"Worlds/Broken-v0: .*{message}"):
        environments.step(np.array([1, 1]))
    environments.close()
    assert not multiprocessing.active_children()


def test_a_large_sum_of_finite_numbers_is_finite(make: Made) -> None:
    environments = make("Worlds/Counting-v0", 2, lengths=[9])
    frame = environments.reset([0, 1])
    huge = {"observation": np.full((2, 2), 3e38, np.float32)}
    with np.errstate(over="ignore"):
        environments._check_finite(huge, frame.rewards, None)
        huge["observation"][1, 0] = np.nan
        with pytest.raises(EnvironmentFailed, match="environment 1 at its reset gave a observ"):
            environments._check_finite(huge, frame.rewards, None)


def test_arguments_that_cannot_be_used_are_named() -> None:
    spec = describe("CartPole-v1")
    with pytest.raises(ValueError, match="at least 1 environment must be made, got 0"):
        make_environments(spec, 0, training=True)
    with pytest.raises(ValueError, match="autoreset must be one of next_step, same_step, got 'x'"):
        make_environments(spec, 1, autoreset="x", training=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vectorization must be one of auto, native, sync, async"):
        make_environments(spec, 1, vectorization="x", training=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cannot be made: TypeError: .*'graviti'"):
        describe("CartPole-v1", {"graviti": 3})
    environments = make_environments(spec, 2, training=True)
    with pytest.raises(ValueError, match="2 environments need as many seeds, got 1"):
        environments.reset([1])
    with pytest.raises(RuntimeError, match="reset the environments before"):
        _ = environments.frame
    other = replace(spec, observations={"observation": {"layout": "vector", "shape": [5]}})
    with pytest.raises(ValueError, match="is not as described"):
        make_environments(other, 1, training=True)


def test_auto_takes_the_native_vector_where_it_suits(make: Made) -> None:
    def kind(environment: str, **arguments: Any) -> str:
        return type(make(environment, **arguments)._batch).__name__

    assert kind("CartPole-v1") == "Native"
    assert kind("CartPole-v1", autoreset="same_step") == "Guarded"
    assert kind("CartPole-v1", wrappers=[ClipReward()]) == "Guarded"
    assert kind("CartPole-v1", wrappers=[ClipReward()], training=False) == "Native"
    assert kind("Acrobot-v1") == "Guarded"
    for environment, arguments, reason in (
        ("Acrobot-v1", {}, "has no vectorised implementation of its own"),
        ("CartPole-v1", {"wrappers": [FrameStack(2)]}, r"takes no wrappers.*\(FrameStack\)"),
        ("CartPole-v1", {"autoreset": "same_step"}, "resets only in next-step mode"),
    ):
        with pytest.raises(ValueError, match=f"vectorization: {environment} {reason}"):
            make(environment, vectorization="native", **arguments)


def test_what_is_known_of_an_environment_is_described() -> None:
    spec = describe("CartPole-v1")
    reference = REFERENCES["CartPole-v1"]
    assert (spec.random_return, spec.reference_return) == (reference.random, reference.reference)
    assert spec.source == reference.source
    assert spec.episode_limit is None
    given = describe("CartPole-v1", random_return=1.0, reference_return=2.0, source="mine")
    assert (given.random_return, given.reference_return, given.source) == (1, 2, "mine")
    unknown = describe("Worlds/Counting-v0", {"lengths": [3]})
    assert unknown.random_return is None
    assert unknown.episode_limit == 10_000
    assert describe("Worlds/Counting-v0", {"lengths": [3]}, episode_limit=7).episode_limit == 7


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ("CartPole-v1", "native"),
        ("CartPole-v1", "async"),
        ("Acrobot-v1", "sync"),
        ("Pendulum-v1", "sync"),
        ("MountainCar-v0", "sync"),
        ("MountainCarContinuous-v0", "sync"),
        ("MinAtar/Breakout-v1", "sync"),
        ("Hopper-v5", "sync"),
    ],
)
@pytest.mark.parametrize("autoreset", ["next_step", "same_step"])
def test_restored_environments_go_on_exactly(
    make: Made, environment: str, kind: Vectorization, autoreset: Autoreset
) -> None:
    if (kind, autoreset) == ("native", "same_step"):
        pytest.skip("CartPole's own vector resets in next-step mode alone")
    if environment == "Hopper-v5":
        pytest.importorskip("mujoco")
    first = make(environment, 3, kind, autoreset)
    action = first.spec.action
    generator = np.random.default_rng(0)
    size = () if action["kind"] == "discrete" else tuple(action["shape"])

    def draw() -> np.ndarray:
        if action["kind"] == "discrete":
            return generator.integers(0, action["sizes"][0], 3)
        return generator.uniform(-1, 1, (3, *size))

    first.reset([1, 2, 3])
    # Stop where an episode has just ended, if one ends: a reset is due then.
    for _ in range(60):
        frame = first.step(draw())
        if frame.terminated.any():
            break
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = make(environment, 3, kind, autoreset)
    restored = second.restore(torch.load(file, weights_only=True))
    np.testing.assert_equal(observed(restored), observed(frame))
    ended = 0
    for _ in range(80):
        actions = draw()
        one, other = first.step(actions), second.step(actions)
        for name in ("rewards", "terminated", "truncated", "reset"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
        np.testing.assert_array_equal(observed(one), observed(other))
        assert (one.final is None) == (other.final is None)
        ended += int(one.terminated.sum())
    assert ended > 0 or "Mountain" in environment or environment in ("Pendulum-v1", "Acrobot-v1")


def test_masks_and_pictures_are_restored(make: Made) -> None:
    cases: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        ("Worlds/Masked-v0", np.zeros((1, 2), np.int64), {"by_method": True, "length": 3}),
        ("Worlds/Camera-v0", np.zeros((1, 2)), {}),
    ]
    for environment, actions, options in cases:
        first = make(environment, 1, **options)
        first.reset([0])
        first.step(actions)
        second = make(environment, 1, **options)
        frame = second.restore(first.state() or {})
        np.testing.assert_equal(frame.masks, first.frame.masks)
        np.testing.assert_equal(frame.observations, first.frame.observations)
        np.testing.assert_equal(second.step(actions).masks, first.step(actions).masks)


def test_a_state_that_does_not_suit_is_refused(make: Made) -> None:
    two, three = make("Acrobot-v1", 2), make("Acrobot-v1", 3)
    two.reset([0, 1])
    state = two.state()
    assert state is not None
    with pytest.raises(ValueError, match="state is of 2 environments, not 3"):
        three.restore(state)
    with pytest.raises(ValueError, match="the saved state is damaged"):
        two.restore({**state, "frame": {}})
    with pytest.raises(ValueError, match="does not suit the environment"):
        make("Pendulum-v1", 2).restore(state)


def test_box2d_has_no_state_and_says_why(make: Made) -> None:
    environments = make("LunarLander-v3", 1)
    environments.reset([0])
    assert environments.state() is None
    assert "LunarLander.world" in environments.no_state
    assert "SwigPyObject" in environments.no_state


@pytest.mark.parametrize("kind", KINDS)
def test_environments_draw_themselves(make: Made, kind: Vectorization) -> None:
    environments = make("CartPole-v1", 2, kind, render=True)
    environments.reset([0, 1])
    pictures = environments.render()
    assert [picture.shape for picture in pictures] == [(400, 600, 3)] * 2
    assert pictures[0].dtype == np.uint8
    assert not np.array_equal(pictures[0], pictures[1])


def test_fractions_are_drawn_as_bytes(make: Made) -> None:
    environments = make("MinAtar/Breakout-v1", 1, render=True)
    environments.reset([0])
    (picture,) = environments.render()
    assert picture.shape == (10, 10, 3)
    assert picture.dtype == np.uint8
    assert picture.max() > 100


def test_what_cannot_draw_is_refused(make: Made) -> None:
    assert can_draw("CartPole-v1")
    assert not can_draw("Worlds/Counting-v0")
    with pytest.raises(ValueError, match="Worlds/Counting-v0 draws no pictures"):
        make("Worlds/Counting-v0", render=True, lengths=[3])
    environments = make("Acrobot-v1", 1)
    environments.reset([0])
    with pytest.raises(RuntimeError, match="was not made to draw; make it with render=True"):
        environments.render()


class TestAtari:
    """ale-py's own vectorised games."""

    ACTIONS = np.array([2, 3])

    def make(self, make: Made, autoreset: Autoreset, **wrapper: Any) -> VectorEnvironments:
        pytest.importorskip("ale_py")
        settings = {"noop_max": 1, "sticky": 0.0, "height": 42, "width": 42, **wrapper}
        return make(
            "ALE/Pong-v5",
            2,
            autoreset=autoreset,
            wrappers=[AtariPreprocessing(**settings)],
            max_num_frames_per_episode=40,
        )

    def test_next_step_mode(self, make: Made) -> None:
        environments = self.make(make, "next_step")
        assert environments.spec.observations["observation"]["shape"] == [4, 42, 42]
        frames = [environments.reset([3, 4])]
        frames += [environments.step(self.ACTIONS) for _ in range(12)]
        ends = [index for index, frame in enumerate(frames) if frame.truncated.all()]
        assert ends == [10]
        assert [index for index, frame in enumerate(frames) if frame.reset.any()] == [0, 11]
        # The stack of a new episode begins empty.
        assert not frames[11].observations["observation"][:, 0].any()
        assert all(frame.final is None for frame in frames)

    def test_same_step_mode(self, make: Made) -> None:
        environments = self.make(make, "same_step")
        other = self.make(make, "next_step")
        environments.reset([3, 4])
        other.reset([3, 4])
        frames = [environments.step(self.ACTIONS) for _ in range(10)]
        last = [other.step(self.ACTIONS) for _ in range(10)][-1]
        assert frames[-1].truncated.all()
        final = frames[-1].final
        assert final is not None
        np.testing.assert_array_equal(final["observation"], last.observations["observation"])
        assert not frames[-1].observations["observation"][:, 0].any()
        assert not frames[-1].reset.any()

    def test_its_newest_frame_is_drawn_and_it_gives_no_state(self, make: Made) -> None:
        environments = self.make(make, "next_step", greyscale=False, stack=2)
        frame = environments.reset([0, 1])
        assert frame.observations["observation"].shape == (2, 6, 42, 42)
        pictures = environments.render()
        assert [picture.shape for picture in pictures] == [(42, 42, 3)] * 2
        np.testing.assert_array_equal(
            pictures[0].transpose(2, 0, 1), frame.observations["observation"][0, 3:]
        )
        assert environments.state() is None
        assert environments.no_state == "ale-py's vectorised games give no state"

    def test_it_is_not_stepped_one_by_one(self, make: Made) -> None:
        pytest.importorskip("ale_py")
        with pytest.raises(ValueError, match="vectorized by ale-py: auto or native, got 'sync'"):
            make("ALE/Pong-v5", vectorization="sync", wrappers=[AtariPreprocessing()])
