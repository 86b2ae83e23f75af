from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from resdomains_tasks.rl_policy.spaces import (
    ActionDecoder,
    Encoder,
    describe_action,
    describe_observation,
)

BOOL: Any = bool  # of which gymnasium makes spaces, but says it does not


def part(layout: str, *shape: int, dtype: str = "float32", scale: float = 1.0) -> dict[str, Any]:
    return {"layout": layout, "shape": list(shape), "dtype": dtype, "scale": scale}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Box(-1, 1, (4,), np.float64), part("vector", 4)),
        (spaces.Box(-1, 1, ()), part("vector", 1)),
        (spaces.Box(-1, 1, (5, 3)), part("sequence", 3, 5)),
        (
            spaces.Box(0, 255, (8, 9, 3), np.uint8),
            part("picture", 3, 8, 9, dtype="uint8", scale=255.0),
        ),
        (
            spaces.Box(0, 255, (4, 8, 9), np.uint8),
            part("picture", 4, 8, 9, dtype="uint8", scale=255.0),
        ),
        (
            spaces.Box(0, 255, (2, 8, 9, 3), np.uint8),
            part("picture", 6, 8, 9, dtype="uint8", scale=255.0),
        ),
        (
            spaces.Box(0, 1, (10, 10, 10), BOOL),
            part("picture", 10, 10, 10, dtype="uint8"),
        ),
        (spaces.Box(-4, 7, (6, 6), np.int64), part("picture", 1, 6, 6, scale=7.0)),
        (spaces.Box(-1, 1, (6, 6, 2)), part("picture", 2, 6, 6)),
        (spaces.Discrete(5, start=-2), part("vector", 5)),
        (spaces.MultiDiscrete([2, 3]), part("vector", 5)),
        (spaces.MultiBinary((2, 2)), part("vector", 4)),
    ],
)
def test_every_supported_space_is_described_as_it_is_encoded(
    space: spaces.Space[Any], expected: dict[str, Any]
) -> None:
    assert describe_observation(space) == {"observation": expected}
    space.seed(0)
    encoded = Encoder(space).encode_list([space.sample() for _ in range(3)])["observation"]
    assert encoded.shape == (3, *expected["shape"])
    assert encoded.dtype == expected["dtype"]


def test_a_float32_vector_is_not_copied() -> None:
    raw = np.random.default_rng(0).standard_normal((3, 4), np.float32)
    assert Encoder(spaces.Box(-1, 1, (4,))).encode(raw)["observation"] is raw


def test_discrete_values_are_one_hot_from_their_start() -> None:
    encoded = Encoder(spaces.Discrete(3, start=-1)).encode(np.array([-1, 1, 0]))
    np.testing.assert_array_equal(encoded["observation"], np.eye(3)[[0, 2, 1]])
    space = spaces.MultiDiscrete([2, 3], start=[0, 5])
    encoded = Encoder(space).encode(np.array([[1, 5], [0, 7]]))
    np.testing.assert_array_equal(encoded["observation"], [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])


def test_a_history_has_its_time_last_and_pictures_their_channels_first() -> None:
    history = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    encoded = Encoder(spaces.Box(-1, 1, (3, 2))).encode(history)["observation"]
    assert encoded[1, 0].tolist() == [6, 8, 10]
    stacked = np.zeros((1, 2, 8, 9, 3), np.uint8)
    stacked[0, 1, 5, 7, 2] = 1
    space = spaces.Box(0, 255, (2, 8, 9, 3), np.uint8)
    encoded = Encoder(space).encode(stacked)["observation"]
    assert np.argwhere(encoded).tolist() == [[0, 3 + 2, 5, 7]]


def test_mappings_of_numbers_are_one_vector_in_their_order() -> None:
    space = spaces.Tuple([spaces.Discrete(2), spaces.Dict(b=spaces.Box(-1, 1, (2,)))])
    assert describe_observation(space) == {"observation": part("vector", 4)}
    encoded = Encoder(space).encode_list([(1, {"b": np.array([0.5, -0.5], np.float32)})])
    assert encoded["observation"].tolist() == [[0, 1, 0.5, -0.5]]


def test_pictures_keep_their_names_and_the_rest_is_one_vector() -> None:
    camera = spaces.Box(0, 255, (4, 6, 3), np.uint8)
    space = spaces.Dict(front=spaces.Dict({"a.b": camera}), body=spaces.Tuple([spaces.Discrete(2)]))
    described = describe_observation(space)
    assert described == {
        "front/a_b": part("picture", 3, 4, 6, dtype="uint8", scale=255.0),
        "vector": part("vector", 2),
    }
    picture = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).astype(np.uint8)
    encoded = Encoder(space).encode_list([{"front": {"a.b": picture}, "body": (1,)}])
    np.testing.assert_array_equal(encoded["front/a_b"][0], picture.transpose(2, 0, 1))
    assert encoded["vector"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(5), r"Text\(.*not supported; Box, Discrete"),
        (spaces.Sequence(spaces.Discrete(2)), "Sequence.*not supported"),
        (spaces.Dict(a=spaces.Graph(spaces.Discrete(2), None)), "Graph.*at 'a' are not supported"),
        (spaces.Box(-1, 1, (2, 2, 2, 2, 2)), "has 5 dimensions"),
        (spaces.Discrete(10**6), "one-hot vector of 1000000 numbers; at most 10000"),
        (spaces.MultiDiscrete([9000, 9000]), "of 18000 numbers; at most 10000"),
        (spaces.Dict(), "is empty"),
        (spaces.Box(-1, 1, (0,)), "holds no number"),
        (spaces.Dict(vector=spaces.Box(0, 255, (4, 4, 3), np.uint8)), "is called 'vector'"),
    ],
)
def test_other_observations_are_refused_by_name(space: spaces.Space[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe_observation(space)
    with pytest.raises(ValueError, match=message):
        Encoder(space)


def test_actions_are_described() -> None:
    assert describe_action(spaces.Discrete(3, start=2)) == {
        "kind": "discrete",
        "sizes": [3],
        "masked": False,
    }
    sizes = {"kind": "multi_discrete", "masked": False}
    assert describe_action(spaces.MultiDiscrete(np.array([[2, 3]]))) == {**sizes, "sizes": [2, 3]}
    assert describe_action(spaces.MultiBinary(3)) == {**sizes, "sizes": [2, 2, 2]}
    box = spaces.Box(np.array([-1, -np.inf], np.float32), np.array([np.inf, 2], np.float32))
    assert describe_action(box) == {
        "kind": "continuous",
        "shape": [2],
        "low": [-1.0, None],
        "high": [None, 2.0],
        "masked": False,
    }


@pytest.mark.parametrize(
    "space", [spaces.Dict(a=spaces.Discrete(2)), spaces.Box(0, 5, (2,), np.int64), spaces.Text(3)]
)
def test_other_actions_are_refused_by_name(space: spaces.Space[Any]) -> None:
    with pytest.raises(ValueError, match=rf"{type(space).__name__}.*Discrete, MultiDiscrete"):
        describe_action(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=2),
        spaces.MultiDiscrete(np.array([[2, 3]]), start=np.array([[1, 0]])),
        spaces.MultiBinary(3),
        spaces.Box(-1, 1, (2, 2), np.float64),
    ],
)
def test_flat_actions_from_zero_become_the_spaces_own(space: spaces.Space[Any]) -> None:
    described = describe_action(space)
    size = len(described.get("sizes") or described["low"])
    flat = np.zeros((4, size)) if described["kind"] != "discrete" else np.zeros(4, np.int64)
    actions = ActionDecoder(space).decode(flat)
    assert len(actions) == 4
    for action in actions:
        assert space.contains(action)
