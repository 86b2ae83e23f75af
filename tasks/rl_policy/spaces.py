"""What observations and actions of a gymnasium space become: arrays of three layouts, and plain descriptions."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

OBSERVATION = "observation"  # the one part of an observation that is not a mapping
VECTOR = "vector"  # what is not a picture, where an observation is a mapping that holds pictures
LARGEST_ONE_HOT = 10_000  # values of a Discrete space that become one-hot vectors

Encode = Callable[[Any], np.ndarray]


def describe_observation(space: spaces.Space[Any]) -> dict[str, dict[str, Any]]:
    """What `Encoder` makes of the space's observations: for each part, by name, its layout, shape, dtype and scale.

    One space has one part, `observation`. A mapping or tuple without pictures is flattened into that one vector; with
    pictures, each keeps its own name (`front/camera` where mappings are nested) and all the rest is one `vector`.

    - `vector` (d,), float32: numbers; one-hot for a Discrete value.
    - `sequence` (d, T), float32: a float Box of (T, d), time last, such as a stacked history.
    - `picture` (C, H, W): a Box of three dimensions, (H, W, C) unless its first is smaller than its last; of two, if
      of whole numbers or bool; of four, if pictures were stacked, whose channels follow each other. uint8 stays as it
      is and its largest value is the scale that a network divides by (255); bool becomes uint8 of scale 1.

    Raises:
        ValueError: If the space is none of these; the message names it and what is supported.
    """
    return {part.name: part.description for part in _parts(space)}


def describe_action(space: spaces.Space[Any]) -> dict[str, Any]:
    """The plain description of a space of actions, as `PolicySpec.action` holds it, without masks.

    `kind` is `discrete` with `sizes` [n]; `multi_discrete` with one size a dimension (MultiBinary: 2); `continuous`
    with `shape`, `low` and `high` (flat lists, None where there is no bound).

    Raises:
        ValueError: If the space is none of these; the message names it and what is supported.
    """
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "sizes": [int(space.n)], "masked": False}
    if isinstance(space, spaces.MultiDiscrete):
        sizes = [int(size) for size in space.nvec.reshape(-1)]
        return {"kind": "multi_discrete", "sizes": sizes, "masked": False}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_discrete", "sizes": [2] * math.prod(space.shape), "masked": False}
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        return {
            "kind": "continuous",
            "shape": list(space.shape),
            "low": _bounds(space.low),
            "high": _bounds(space.high),
            "masked": False,
        }
    raise ValueError(
        f"actions of {_name(space)} are not supported; Discrete, MultiDiscrete, MultiBinary and Box of floats are "
        "(a gymnasium wrapper can change an action space: gymnasium.wrappers.TransformAction)"
    )


class Encoder:
    """Makes the arrays that `describe_observation` tells of a batch of a space's observations.

    Args:
        space: The space of one observation.

    Raises:
        ValueError: If the space is not supported.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.space = space
        self._parts = _parts(space)

    def encode(self, raw: Any) -> dict[str, np.ndarray]:
        """The parts of E observations, batched as gymnasium's vector environments do: name -> (E, ...).

        What is float32 already, in its layout, is returned itself and not copied.
        """
        return {part.name: part.encode(raw) for part in self._parts}

    def encode_list(self, observations: list[Any]) -> dict[str, np.ndarray]:
        """The parts of single observations, one after the other."""
        empty: Any = create_empty_array(self.space, n=len(observations))
        return self.encode(concatenate(self.space, observations, empty))


class ActionDecoder:
    """Makes a space's own actions of arrays that count from 0 and are flat.

    Args:
        space: The space of one action.

    Raises:
        ValueError: If the space is not supported.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        describe_action(space)
        assert space.dtype is not None
        self.shape = () if isinstance(space, spaces.Discrete) else tuple(space.shape or ())
        self.dtype = space.dtype
        self.start: Any = 0
        if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            self.start = space.start
        self._moves = bool(np.any(self.start))

    def decode(self, actions: np.ndarray) -> np.ndarray:
        """Actions (E,) or (E, D), from 0, as the batched space (E, ...) has them."""
        actions = np.asarray(actions, self.dtype)
        if actions.shape[1:] != self.shape:
            actions = actions.reshape(len(actions), *self.shape)
        return actions + self.start if self._moves else actions


@dataclass(frozen=True, slots=True)
class _Part:
    """One array of an observation: its name, its description and what makes it of raw observations."""

    name: str
    description: dict[str, Any]
    encode: Encode


def _parts(space: spaces.Space[Any]) -> list[_Part]:
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return [_Part(OBSERVATION, *_leaf(space))]
    pictures: list[_Part] = []
    vectors: list[tuple[int, Encode]] = []
    for path, leaf, pick in _leaves(space):
        description, encode = _leaf(leaf, path)
        if description["layout"] == "picture":
            pictures.append(_Part(path, description, _after(pick, encode)))
        else:
            vectors.append((math.prod(description["shape"]), _after(pick, _flat(encode))))
    if any(picture.name == VECTOR for picture in pictures):
        raise ValueError(
            f"a picture of the observation {_name(space)} is called {VECTOR!r}, which is the name of all that is no "
            "picture; rename it with a gymnasium wrapper"
        )
    if not vectors:
        if not pictures:
            raise ValueError(f"the observation space {_name(space)} is empty")
        return pictures
    name = VECTOR if pictures else OBSERVATION
    return [*pictures, _Part(name, _vector(sum(n for n, _ in vectors)), _joined(vectors))]


def _leaves(
    space: spaces.Space[Any], path: str = "", pick: Encode = lambda raw: raw
) -> Iterator[tuple[str, spaces.Space[Any], Encode]]:
    """The spaces at the ends of nested mappings and tuples, with how to find their observations."""
    entries: list[tuple[Any, spaces.Space[Any]]]
    if isinstance(space, spaces.Dict):
        entries = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        entries = list(enumerate(space.spaces))
    else:
        yield path, space, pick
        return
    for key, entry in entries:
        name = f"{path}/{key}" if path else str(key)
        # nn.ModuleDict, where a picture's own stem stands under this name, takes no dots.
        yield from _leaves(entry, name.replace(".", "_"), _entry(pick, key))


def _leaf(space: spaces.Space[Any], path: str = "") -> tuple[dict[str, Any], Encode]:
    where = f" at {path!r}" if path else ""
    if isinstance(space, spaces.Discrete):
        n = int(space.n)
        if n > LARGEST_ONE_HOT:
            raise ValueError(
                f"the observation {_name(space)}{where} would be a one-hot vector of {n} numbers; at most "
                f"{LARGEST_ONE_HOT} are supported: describe the state by numbers or pictures"
            )
        return _vector(n), _one_hot(np.array([n]), np.array([int(space.start)]))
    if isinstance(space, spaces.MultiDiscrete):
        sizes = space.nvec.reshape(-1)
        if int(sizes.sum()) > LARGEST_ONE_HOT:
            raise ValueError(
                f"the observation {_name(space)}{where} would be one-hot vectors of {int(sizes.sum())} numbers; at "
                f"most {LARGEST_ONE_HOT} are supported: describe the state by numbers or pictures"
            )
        return _vector(int(sizes.sum())), _one_hot(sizes, np.asarray(space.start).reshape(-1))
    if isinstance(space, spaces.MultiBinary):
        return _vector(math.prod(space.shape)), _numbers
    if not isinstance(space, spaces.Box):
        raise ValueError(
            f"observations of {_name(space)}{where} are not supported; Box, Discrete, MultiDiscrete, MultiBinary, and "
            "Dict and Tuple of these are"
        )
    if space.dtype.kind not in "fiub":
        raise ValueError(
            f"observations of {_name(space)}{where} are not supported: their dtype must be of numbers or bool"
        )
    if 0 in space.shape:
        raise ValueError(f"the observation {_name(space)}{where} holds no number")
    dimensions = len(space.shape)
    if dimensions <= 1:
        return _vector(math.prod(space.shape)), _numbers
    if dimensions == 2 and space.dtype.kind == "f":
        steps, features = space.shape
        description = _description("sequence", (features, steps), "float32", 1.0)
        return description, lambda raw: np.asarray(raw, np.float32).transpose(0, 2, 1)
    if dimensions <= 4:
        return _picture(space)
    raise ValueError(
        f"the observation {_name(space)}{where} has {dimensions} dimensions; numbers (d,), histories (T, d), pictures "
        "(H, W, C) or (C, H, W) and stacks of pictures are supported"
    )


def _picture(space: spaces.Box) -> tuple[dict[str, Any], Encode]:
    """A picture (C, H, W) of a Box of 2 to 4 dimensions."""
    shape = space.shape
    axes: tuple[int, ...] | None = None
    size: tuple[int, ...]
    if len(shape) == 2:
        channels, size = 1, shape
    else:
        first, *_, last = shape[-3:]
        channels_first = first < last
        channels, size = (first, shape[-2:]) if channels_first else (last, shape[-3:-1])
        stacked = len(shape) == 4
        # The axes of a batch (E, [T,] H, W, C), channels before height and width.
        order = (0, *range(1, len(shape) - 2), len(shape), len(shape) - 2, len(shape) - 1)
        axes = None if channels_first else order
        channels *= shape[0] if stacked else 1
    as_bytes = space.dtype in (np.dtype(np.uint8), np.dtype(bool))
    dtype = np.dtype(np.uint8 if as_bytes else np.float32)
    target = (channels, *size)

    def encode(raw: Any) -> np.ndarray:
        picture = np.asarray(raw)
        if axes is not None:
            picture = picture.transpose(axes)
        # A transposed picture is only a view: a network's first copy puts it in order.
        return picture.astype(dtype, copy=False).reshape(len(picture), *target)

    return _description("picture", target, dtype.name, _scale(space)), encode


def _scale(space: spaces.Box) -> float:
    """The largest value of whole numbers, 1 for floats and where there is no such bound."""
    if space.dtype.kind in "fb":
        return 1.0
    largest = max(abs(float(space.low.min())), abs(float(space.high.max())))
    return largest if 0 < largest < 2**31 - 1 else 1.0


def _vector(size: int) -> dict[str, Any]:
    return _description("vector", (size,), "float32", 1.0)


def _description(layout: str, shape: tuple[int, ...], dtype: str, scale: float) -> dict[str, Any]:
    return {
        "layout": layout,
        "shape": [int(size) for size in shape],
        "dtype": dtype,
        "scale": scale,
    }


def _numbers(raw: Any) -> np.ndarray:
    numbers = np.asarray(raw, np.float32)
    return numbers if numbers.ndim == 2 else numbers.reshape(len(numbers), -1)


def _one_hot(sizes: np.ndarray, starts: np.ndarray) -> Encode:
    offsets = np.concatenate(([0], np.cumsum(sizes)[:-1])) - starts

    def encode(raw: Any) -> np.ndarray:
        values = np.asarray(raw).reshape(len(raw), -1)
        hot = np.zeros((len(values), int(sizes.sum())), np.float32)
        hot[np.arange(len(values))[:, None], values + offsets] = 1
        return hot

    return encode


def _flat(encode: Encode) -> Encode:
    def flat(raw: Any) -> np.ndarray:
        array = encode(raw)
        return array.reshape(len(array), -1)

    return flat


def _joined(vectors: list[tuple[int, Encode]]) -> Encode:
    return lambda raw: np.concatenate([encode(raw) for _, encode in vectors], axis=1)


def _after(pick: Encode, encode: Encode) -> Encode:
    return lambda raw: encode(pick(raw))


def _entry(pick: Encode, key: Any) -> Encode:
    return lambda raw: pick(raw)[key]


def _bounds(values: np.ndarray) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values.reshape(-1)]


def _name(space: spaces.Space[Any]) -> str:
    if isinstance(space, Mapping):
        return f"{type(space).__name__}({', '.join(map(str, space))})"
    text = str(space)
    return text if len(text) <= 120 else f"{type(space).__name__} of shape {space.shape}"
