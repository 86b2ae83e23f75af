"""Exact states of environments as plain values, so that a run resumes in the middle of an episode."""

import io
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import data_equivalence

TRIAL_STEPS = 60
DEEPEST = 30
GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
WRITTEN_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class NoState(Exception):
    """An environment's state cannot be kept as plain values; the message says why."""


def snapshot(env: Any) -> dict[str, Any]:
    """The attributes of an environment, of its wrappers and of the objects that it holds, as plain values.

    Read are numbers, strings, arrays (as tensors), lists, tuples, mappings, numpy's generators, MuJoCo's simulations
    and objects of classes written in Python. Spaces, functions, enumerations and MuJoCo's models are left out: steps do
    not change them, and `verify` would show it if they did. Nothing is pickled.

    Raises:
        NoState: If an attribute is anything else, such as a physics engine's world.
    """
    unwrapped = getattr(env, "unwrapped", env)
    return dict(_read(env, type(unwrapped).__name__, {}, 0))


def restore(env: Any, state: dict[str, Any]) -> None:
    """Gives a snapshot's values to an environment that was made and reset as the snapshot's was.

    Raises:
        ValueError: If the state is of another environment, or damaged.
    """
    try:
        _write(env, state, [])
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError) as error:
        raise ValueError(f"the saved state does not suit the environment {env}: {error}") from error


def verify(
    make: Callable[[], Any], act: Callable[[Any], Any], advance: Callable[[Any, Any], Any]
) -> None:
    """Shows that a restored twin goes the way of its original: the same actions give both exactly the same.

    Args:
        make: Makes the environment, or several that step together.
        act: Draws an action that it now allows.
        advance: Steps it by an action, and gives all that came of it.

    Raises:
        NoState: If the state cannot be read, or the twin goes another way within 60 steps.
    """
    original, twin = make(), make()
    name = type(original.unwrapped).__name__
    try:
        original.reset(seed=1)
        twin.reset(seed=2)
        for _ in range(TRIAL_STEPS // 3):
            advance(original, act(original))
        file = io.BytesIO()
        torch.save(snapshot(original), file)
        file.seek(0)
        restore(twin, torch.load(file, weights_only=True))
        for count in range(TRIAL_STEPS):
            action = act(original)
            if not data_equivalence(advance(original, action), advance(twin, action), exact=True):
                raise NoState(f"{name}: a restored twin went another way after {count} steps")
    except ValueError as error:
        raise NoState(f"{name}: {error}") from error
    finally:
        original.close()
        twin.close()


def _read(value: Any, path: str, seen: dict[int, tuple[int, Any]], depth: int) -> Any:
    """A plain value, or a mapping with the key `kind` for what is more than that."""
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.generic):
        return {"kind": "number", "value": torch.as_tensor(_array(np.asarray(value), path))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (gymnasium.Space, EnvSpec, type, Enum)) or callable(value):
        return {"kind": "left"}
    if _is_mujoco(value, "MjModel"):
        return {"kind": "left"}
    if depth > DEEPEST:
        raise NoState(f"{path}: objects within each other, more than {DEEPEST} deep")
    if id(value) in seen:
        return {"kind": "seen", "index": seen[id(value)][0]}
    # The value stays here, so that no other can get its id meanwhile.
    seen[id(value)] = (len(seen), value)

    def inner(entry: Any, name: Any) -> Any:
        # Wrappers are left out of the path: the environment that they hold is what is meant.
        return _read(entry, path if name == "env" else f"{path}.{name}", seen, depth + 1)

    if isinstance(value, np.ndarray):
        if value.dtype.kind in "SU":
            return {"kind": "text", "dtype": value.dtype.str, "value": value.astype("U").tolist()}
        return {"kind": "array", "value": torch.from_numpy(_array(value, path).copy(order="C"))}
    if _is_mujoco(value, "MjData"):
        return {"kind": "mujoco", "arrays": _simulation(value)}
    if isinstance(value, np.random.Generator):
        return {"kind": "generator", "state": inner(value.bit_generator.state, "state")}
    if isinstance(value, np.random.RandomState):
        return {"kind": "random_state", "state": inner(value.get_state(legacy=False), "state")}
    if type(value) in (list, tuple, deque):
        entries = [inner(entry, index) for index, entry in enumerate(value)]
        plain: dict[str, Any] = {"kind": type(value).__name__, "entries": entries}
        return {**plain, "maxlen": value.maxlen} if isinstance(value, deque) else plain
    if type(value) is dict:
        if not all(key is None or isinstance(key, (bool, int, float, str)) for key in value):
            raise NoState(f"{path} is a mapping whose keys are no plain values")
        entries = [[key, inner(entry, key)] for key, entry in value.items()]
        return {"kind": "dict", "entries": entries}
    if _in_python(type(value)):
        attributes = {name: inner(entry, name) for name, entry in vars(value).items()}
        return {"kind": "object", "type": type(value).__qualname__, "attributes": attributes}
    raise NoState(f"{path} is a {type(value).__name__}, which cannot be kept as plain values")


def _is_mujoco(value: Any, name: str) -> bool:
    return type(value).__name__ == name and type(value).__module__.startswith("mujoco.")


def _simulation(data: Any) -> dict[str, torch.Tensor]:
    """All numbers of a MuJoCo simulation: what its next step starts from, and what the last one left to be observed."""
    arrays = {name: getattr(data, name) for name in dir(data) if not name.startswith("_")}
    kept = {
        name: torch.from_numpy(array.copy())
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and array.size and array.dtype.kind in "biuf"
    }
    return {**kept, "time": torch.tensor(data.time, dtype=torch.float64)}


def _write_simulation(data: Any, arrays: dict[str, torch.Tensor]) -> None:
    data.time = float(arrays["time"])
    for name, array in arrays.items():
        live = getattr(data, name)
        # Contacts' arrays have the size of the last step's contacts; every step finds its own anew.
        if isinstance(live, np.ndarray) and live.shape == tuple(array.shape):
            live[...] = array.numpy()


def _array(array: np.ndarray, path: str) -> np.ndarray:
    if array.dtype.kind not in "biuf" or not array.dtype.isnative:
        raise NoState(f"{path} is an array of {array.dtype}, which cannot be kept as plain values")
    return array


def _in_python(kind: type) -> bool:
    """Whether all of a class, `object` apart, is written in Python, so that its attributes are its state."""
    written = all(base.__flags__ & WRITTEN_IN_PYTHON for base in kind.__mro__[:-1])
    return written and hasattr(kind, "__dict__") and "__dict__" in _slots(kind)


def _slots(kind: type) -> set[str]:
    return {name for base in kind.__mro__ for name in vars(base)}


def _write(live: Any, saved: Any, seen: list[Any]) -> Any:
    """The value that `saved` tells, in the live object where that is one; `seen` numbers them as `_read` did."""
    if not isinstance(saved, dict):
        return saved
    kind = saved["kind"]
    if kind == "left":
        return live
    if kind == "number":
        return saved["value"].numpy()[()]
    if kind == "seen":
        return seen[saved["index"]]
    place = len(seen)
    seen.append(live)
    if kind == "object":
        if type(live).__qualname__ != saved["type"]:
            raise ValueError(f"a {type(live).__qualname__} stands for a {saved['type']}")
        _write_object(live, saved["attributes"], seen)
        return live
    if kind == "mujoco":
        _write_simulation(live, saved["arrays"])
        return live
    if kind == "generator":
        state = _write(None, saved["state"], seen)
        if state["bit_generator"] not in GENERATORS:
            raise ValueError(f"no random generator is called {state['bit_generator']!r}")
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
        generator.bit_generator.state = state
        seen[place] = generator
    elif kind == "random_state":
        random_state = np.random.RandomState()
        random_state.set_state(_write(None, saved["state"], seen))
        seen[place] = random_state
    elif kind == "array":
        seen[place] = saved["value"].numpy().copy()
    elif kind == "text":
        seen[place] = np.array(saved["value"], saved["dtype"])
    elif kind == "dict":
        old = live if isinstance(live, dict) else {}
        new: dict[Any, Any] = {}
        seen[place] = new
        for key, entry in saved["entries"]:
            new[key] = _write(old.get(key), entry, seen)
    elif kind in ("list", "tuple", "deque"):
        old_entries = list(live) if isinstance(live, (list, tuple, deque)) else []
        old_entries += [None] * (len(saved["entries"]) - len(old_entries))
        entries: Any = [] if kind != "deque" else deque(maxlen=saved["maxlen"])
        seen[place] = entries
        for old_entry, entry in zip(old_entries, saved["entries"], strict=False):
            entries.append(_write(old_entry, entry, seen))
        if kind == "tuple":
            seen[place] = tuple(entries)
    else:
        raise ValueError(f"nothing is kept as {kind!r}")
    return seen[place]


def _write_object(live: Any, attributes: dict[str, Any], seen: list[Any]) -> None:
    own = vars(live)
    for name in [name for name in own if name not in attributes]:
        del own[name]
    for name, saved in attributes.items():
        if not (isinstance(saved, dict) and saved["kind"] == "left"):
            own[name] = _write(own.get(name), saved, seen)
