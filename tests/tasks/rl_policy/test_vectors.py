from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from resdomains_tasks.rl_policy.vectors import (
    Choices,
    Guard,
    fits,
    flat_mask,
    mask_sizes,
    random_action,
)

from . import worlds


class Acting(gymnasium.Env[Any, Any]):
    """Only takes actions of a given space."""

    observation_space = spaces.Box(-1, 1, (1,))

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.action_space = space


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=4),
        spaces.MultiDiscrete(np.array([[2, 3]]), start=np.array([[1, 0]])),
        spaces.MultiBinary(3),
        spaces.Box(
            np.array([-1, -np.inf, 5], np.float32), np.array([1, np.inf, np.inf], np.float32)
        ),
    ],
)
def test_random_actions_lie_in_their_space_and_differ(space: spaces.Space[Any]) -> None:
    guard = Guard(Acting(space), "Acting", 0)
    generator = np.random.default_rng(0)
    actions = [random_action(guard, generator) for _ in range(50)]
    assert all(space.contains(action) for action in actions)
    assert len({str(action) for action in actions}) > 2


def test_random_actions_keep_to_masks() -> None:
    guard = Guard(worlds.Masked(by_method=False), "Masked", 0)
    guard.reset(seed=0)
    generator = np.random.default_rng(0)
    drawn = {tuple(random_action(guard, generator).tolist()) for _ in range(50)}
    assert drawn == {(0, 1), (0, 2), (1, 1), (1, 2)}


def test_choices_contain_what_gymnasium_says() -> None:
    own, theirs = Choices(np.array([2, 3])), spaces.MultiDiscrete([2, 3])
    for x in ([0, 0], [1, 2], [2, 0], [0, 3], [-1, 0], [1], [1, 1, 1]):
        actions = np.array(x)
        assert own.contains(actions) is bool(theirs.contains(actions))
    assert not own.contains(np.array([0.5, 1]))
    assert not own.contains([0, 1])


def test_masks_are_flat() -> None:
    assert flat_mask((np.array([1, 0]), np.array([0, 1, 1]))).tolist() == [1, 0, 0, 1, 1]
    assert flat_mask([1, 0, 1]).tolist() == [True, False, True]
    assert mask_sizes(spaces.MultiBinary((2, 2))) == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"a": np.full(2, 9.0)}, True),
        ({"a": np.zeros(3)}, False),
        ({"b": (1,)}, False),
        ({"b": (1, 7)}, False),
        ({"c": 1}, False),
        ({"a": None}, False),
    ],
)
def test_an_observation_fits_by_structure_and_shape(change: Any, expected: bool) -> None:
    space = spaces.Dict(
        a=spaces.Box(-1, 1, (2,)), b=spaces.Tuple([spaces.Discrete(2), spaces.Discrete(3)])
    )
    assert fits(space, {"a": np.zeros(2), "b": (1, 2), **change}) is expected


def test_only_masks_are_kept_of_infos() -> None:
    guard = Guard(worlds.Counting([3]), "Counting", 0)
    assert guard.reset(seed=0)[1] == {}
    assert guard.step(5)[4] == {}
