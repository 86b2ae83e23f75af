import io
from collections import deque
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from resdomains_tasks.rl_policy.states import NoState, restore, snapshot, verify


class Part:
    """An object that an environment holds."""

    def __init__(self) -> None:
        self.level = 1
        self.random = np.random.RandomState(3)


class Rich(gymnasium.Env[Any, Any]):
    """Holds one of everything that can be kept."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.number, self.text, self.nothing, self.big = 3, "a", None, 2**100
        self.scalar = np.float64(0.5)
        self.array = np.arange(6.0).reshape(2, 3).T
        self.same = self.array
        self.words = np.array([b"ab", b"c"])
        self.history = deque([np.zeros(2), np.ones(2)], maxlen=2)
        self.table: dict[Any, Any] = {(1 if i else "x"): [i, (i, {"y": i})] for i in (0, 1)}
        self.function = len
        self.part = Part()
        self.part.level = 5
        self.space = gymnasium.spaces.Discrete(3)
        self.generator = np.random.Generator(np.random.MT19937(4))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        drawn = self.generator.random() + self.part.random.random()
        return np.array([drawn, self.part.level]), 0.0, False, False, {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2), {}


def saved(env: Any) -> Any:
    file = io.BytesIO()
    torch.save(snapshot(env), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_everything_plain_is_restored_exactly() -> None:
    first, second = Rich(), Rich()
    first.reset(seed=1)
    first.number, first.big, first.scalar = 4, -(2**90), np.float64(1 / 3)
    first.array[0, 0] = 9
    first.history.append(np.full(2, 7.0))
    first.table["x"][1][1]["y"] = 8
    first.part.level = 6
    first.step(0)
    second.reset(seed=2)
    second.extra = 5  # type: ignore[attr-defined]
    restore(second, saved(first))
    np.testing.assert_equal(second.array, first.array)
    assert second.same is second.array
    assert (second.number, second.big, second.scalar) == (4, -(2**90), 1 / 3)
    assert type(second.scalar) is np.float64
    np.testing.assert_equal(list(second.history), [np.ones(2), np.full(2, 7.0)])
    assert second.history.maxlen == 2
    assert second.table == first.table
    assert second.words.tolist() == [b"ab", b"c"]
    assert second.function is len
    assert not hasattr(second, "extra")
    for _ in range(3):
        np.testing.assert_array_equal(first.step(0)[0], second.step(0)[0])
    assert first.np_random.random() == second.np_random.random()


def test_a_snapshot_does_not_change_with_its_environment() -> None:
    env = Rich()
    state = snapshot(env)
    env.array[:] = 0
    env.table["x"][0] = 100
    restore(env, state)
    assert env.array.sum() == 15
    assert env.table["x"][0] == 0


def numbers() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (numbers(), "Rich.held is a generator, which cannot be kept"),
        (np.array([object()]), "Rich.held is an array of object"),
        ({(1, 2): 3}, "Rich.held is a mapping whose keys are no plain values"),
        ([1, {2: {3}}], "Rich.held.1.2 is a set, which cannot be kept"),
    ],
)
def test_what_cannot_be_kept_is_named(value: Any, message: str) -> None:
    env = Rich()
    env.held = value  # type: ignore[attr-defined]
    with pytest.raises(NoState, match=message):
        snapshot(env)


def test_objects_in_a_circle_are_kept_and_very_deep_ones_refused() -> None:
    env: Any = Rich()
    env.part.owner = env.part
    other: Any = Rich()
    restore(other, saved(env))
    assert other.part.owner is other.part
    for _ in range(40):
        env.part.inner, env.part = env.part, Part()
        env.part.inner = env.part
    env.nested = []
    for _ in range(40):
        env.nested = [env.nested]
    with pytest.raises(NoState, match="objects within each other"):
        snapshot(env)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("number",), {"kind": "module", "name": "os"}),
        (("number",), {"value": 1}),
        (("part", "type"), "Path"),
        (("generator", "state", "entries", 0, 1), "os"),
        (("array", "value"), 3),
        (("same", "index"), 1000),
        (("table", "entries"), [1]),
    ],
)
def test_a_damaged_state_is_refused(path: tuple[Any, ...], value: Any) -> None:
    env = Rich()
    state = snapshot(env)
    place: Any = state["attributes"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError, match="the saved state does not suit the environment"):
        restore(env, state)


class Hidden(Rich):
    """Keeps a number where no attribute shows it."""

    def __init__(self) -> None:
        super().__init__()
        count = [0.0]

        def tick() -> float:
            count[0] += 1
            return count[0]

        self.tick = tick

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([self.tick(), 0]), 0.0, False, False, {}


class Nearly(Hidden):
    """Whose hidden number changes what is seen by a billionth."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([1 + 1e-9 * self.tick(), 0]), 0.0, False, False, {}


def test_a_twin_that_goes_another_way_is_found() -> None:
    verify(Rich, lambda env: 0, lambda env, action: env.step(action)[:4])
    for kind in (Hidden, Nearly):
        with pytest.raises(NoState, match=f"{kind.__name__}: a restored twin went another way"):
            verify(kind, lambda env: 0, lambda env, action: env.step(action)[:4])
