"""Gymnasium's vector environments, told apart by what differs: seeds, masks, states and pictures."""

import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from .states import NoState, restore, snapshot, verify
from .wrappers import Environment

Step = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]
MASK = "action_mask"  # the info of allowed actions, as gymnasium's Taxi gives it
MASK_METHOD = "action_masks"  # or the environment's own method, as sb3-contrib asks for


class EnvironmentFailed(RuntimeError):
    """An environment raised, or gave what is not in its spaces; the message says which, when and on what action."""


class Guard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment of several: says what failed and when, checks shapes, and keeps but the masks of its infos.

    Args:
        env: The environment.
        name: Its id, for messages.
        index: Its number among its mates.
    """

    def __init__(self, env: Environment, name: str, index: int) -> None:
        super().__init__(env)
        self.name = name
        self.index = index
        self.steps = 0
        self.masked = False
        self.info: dict[str, Any] = {}
        self.observation: Any = None
        self._method: Callable[[], Any] | None = getattr(env.unwrapped, MASK_METHOD, None)
        self._shape = env.observation_space.shape
        self._replay: tuple[bool, bool] | None = None

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._replay is not None:
            (terminated, truncated), self._replay = self._replay, None
            return self.observation, 0.0, terminated, truncated, self.info
        self.steps += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise EnvironmentFailed(self._raised(action, error)) from error
        self._look(observation, info, action)
        if terminated or truncated:
            # An environment may write each observation to the same array; the next reset must not change this one.
            observation = deepcopy(observation)
        return observation, reward, terminated, truncated, self.info

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise EnvironmentFailed(self._raised(None, error)) from error
        self.masked = self.masked or MASK in info or self._method is not None
        self._look(observation, info, None)
        return observation, self.info

    def keep(self) -> tuple[dict[str, Any] | None, str]:
        """What `take` goes on from, or None and the reason why there is no such state."""
        try:
            return {"env": snapshot(self.env), "steps": self.steps}, ""
        except NoState as reason:
            return None, str(reason)

    def take(self, states: list[dict[str, Any]], ended: list[tuple[bool, bool]]) -> None:
        """Goes on from its own of all mates' states.

        The next step only gives back whether its episode has ended, and touches nothing: the vector environment
        around learns so whether a reset is due.
        """
        state = states[self.index]
        restore(self.env, state["env"])
        self.steps = int(state["steps"])
        self._replay = ended[self.index]

    def _look(self, observation: Any, info: dict[str, Any], action: Any) -> None:
        # A Box is by far the most frequent, and asked first: this runs at every step of every environment.
        if getattr(observation, "shape", None) != self._shape or self._shape is None:
            space = self.env.observation_space
            if not fits(space, observation):
                got = f"a {type(observation).__name__} of shape {np.shape(observation)}"
                raise EnvironmentFailed(
                    f"{self._where(action)} gave an observation that leaves its space: {got}, not {space}"
                )
        self.observation = observation
        if not self.masked or isinstance(self.env.action_space, spaces.Box):
            return
        mask = self._method() if self._method is not None else info.get(MASK)
        if mask is None:
            raise EnvironmentFailed(
                f"{self._where(action)} gave no {MASK!r} in its infos, as before"
            )
        flat = flat_mask(mask)
        sizes = mask_sizes(self.env.action_space)
        if len(flat) != sum(sizes) or not all(part.any() for part in parts(flat, sizes)):
            raise EnvironmentFailed(
                f"{self._where(action)} gave a mask of {len(flat)} actions, {int(flat.sum())} of them allowed; it must "
                f"have {' + '.join(map(str, sizes))} and allow at least one of each"
            )
        self.info = {MASK: flat}

    def _where(self, action: Any) -> str:
        when = "at its reset" if action is None else f"at step {self.steps}, on action {action},"
        return f"{self.name}: environment {self.index} {when}"

    def _raised(self, action: Any, error: Exception) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        return f"{self._where(action)} raised {type(error).__name__}: {error}{place}"


class Batch(ABC):
    """Environments that gymnasium steps together.

    Args:
        vector: Gymnasium's vector environment.
    """

    def __init__(self, vector: VectorEnv) -> None:
        self.vector = vector
        self.step: Callable[[Any], Step] = vector.step

    @abstractmethod
    def reset(self, seeds: list[int]) -> tuple[Any, dict[str, Any]]:
        """Begins all episodes anew."""

    @abstractmethod
    def keep(self) -> tuple[list[dict[str, Any]] | None, str]:
        """All states, or None and the reason why there are none."""

    @abstractmethod
    def take(self, states: list[dict[str, Any]], ended: list[tuple[bool, bool]]) -> None:
        """Goes on from states; `ended` are the flags (terminated, truncated) that still ask for a reset.

        Raises:
            ValueError: If they do not suit.
        """

    def render(self, observations: dict[str, np.ndarray]) -> list[Any]:
        """A picture of each environment, drawn by itself."""
        return list(self.vector.render() or ()) if self.vector.render_mode is not None else []


class Guarded(Batch):
    """Each environment made by itself and guarded, stepped in turn or by a process each.

    Args:
        kind: `sync` or `async`.
        make: Makes one environment.
        name: Its id.
        count: How many.
        autoreset: When an ended one begins anew.
    """

    def __init__(
        self,
        kind: Literal["sync", "async"],
        make: Callable[[], Environment],
        name: str,
        count: int,
        autoreset: AutoresetMode,
    ) -> None:
        makers = [_Maker(make, name, index) for index in range(count)]
        self._maker = makers[0]
        self._reason: str | None = None
        if kind == "sync":
            super().__init__(SyncVectorEnv(makers, autoreset_mode=autoreset))
        else:
            super().__init__(AsyncVectorEnv(makers, autoreset_mode=autoreset))
            self.step = self._step_quietly

    def reset(self, seeds: list[int]) -> tuple[Any, dict[str, Any]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.vector.reset(seed=seeds)  # type: ignore[arg-type]

    def keep(self) -> tuple[list[dict[str, Any]] | None, str]:
        if self._reason is None:
            self._reason = self._try()
        if self._reason:
            return None, self._reason
        kept = self.vector.call("keep")  # type: ignore[attr-defined]
        reasons = [reason for state, reason in kept if state is None]
        return (None, reasons[0]) if reasons else ([state for state, _ in kept], "")

    def take(self, states: list[dict[str, Any]], ended: list[tuple[bool, bool]]) -> None:
        self.vector.call("take", states, ended)  # type: ignore[attr-defined]
        self.step(np.stack([self.vector.single_action_space.sample() for _ in states]))

    def _try(self) -> str:
        """Why a state would not be exact; empty where it is."""
        generator = np.random.default_rng(0)
        try:
            verify(self._maker, lambda env: random_action(env, generator), _advance)
        except (NoState, EnvironmentFailed) as reason:
            return str(reason)
        return ""

    def _step_quietly(self, actions: Any) -> Step:
        # What a process raises is a warning with its traceback first, and then an error as well.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.vector.step(actions)


class Native(Batch):
    """An environment's own vectorised implementation, which takes one seed for all.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], VectorEnv]) -> None:
        super().__init__(make())
        space = self.vector.action_space
        if isinstance(space, spaces.MultiDiscrete) and not space.start.any():
            self.vector.action_space = Choices(space.nvec)
        self._make = make
        self._reason: str | None = None

    def reset(self, seeds: list[int]) -> tuple[Any, dict[str, Any]]:
        return self.vector.reset(seed=seeds[0])

    def keep(self) -> tuple[list[dict[str, Any]] | None, str]:
        if self._reason is None:
            try:
                verify(self._make, lambda vector: vector.action_space.sample(), _advance_all)
                self._reason = ""
            except NoState as reason:
                self._reason = str(reason)
        return (None, self._reason) if self._reason else ([snapshot(self.vector)], "")

    def take(self, states: list[dict[str, Any]], ended: list[tuple[bool, bool]]) -> None:
        restore(self.vector, states[0])


class Atari(Batch):
    """ale-py's vectorised games, which take a seed each, give no state and draw no pictures.

    Args:
        vector: `ale_py.vector_env.AtariVectorEnv`.
    """

    def reset(self, seeds: list[int]) -> tuple[Any, dict[str, Any]]:
        return self.vector.reset(seed=np.array(seeds))  # type: ignore[arg-type]

    def keep(self) -> tuple[list[dict[str, Any]] | None, str]:
        return None, "ale-py's vectorised games give no state"

    def take(self, states: list[dict[str, Any]], ended: list[tuple[bool, bool]]) -> None:
        raise ValueError(f"ale-py's vectorised games take no state, got {len(states)}")

    def render(self, observations: dict[str, np.ndarray]) -> list[Any]:
        """The newest frame of each stack: the last channel, or the last three."""
        (stacks,) = observations.values()
        space = self.vector.single_observation_space
        colours = 3 if len(space.shape or ()) == 4 else 1
        return [stack[-colours:].transpose(1, 2, 0) for stack in stacks]


class Choices(spaces.MultiDiscrete):
    """What a vector's discrete actions must be, asked in one comparison.

    CartPole's own vector asks at every step; gymnasium's way takes a quarter of the step's time.
    """

    def __init__(self, nvec: np.ndarray) -> None:
        super().__init__(nvec)
        self._sizes = self.nvec.astype(np.uint64)

    def contains(self, x: Any) -> bool:
        if not (isinstance(x, np.ndarray) and x.dtype == np.int64 and x.shape == self.shape):
            return False
        # Below 0 is far above as an unsigned number.
        return bool((x.view(np.uint64) < self._sizes).all())


class _Maker:
    """Makes a guarded environment; a process of its own gets this."""

    def __init__(self, make: Callable[[], Environment], name: str, index: int) -> None:
        self.make, self.name, self.index = make, name, index

    def __call__(self) -> Guard:
        return Guard(self.make(), self.name, self.index)


def random_action(env: Guard, generator: np.random.Generator) -> Any:
    """An action drawn uniformly from those that are allowed; without bounds, from a standard normal distribution."""
    space = env.action_space
    if isinstance(space, spaces.Box):
        drawn = generator.standard_normal(space.shape)
        bounded = space.bounded_below & space.bounded_above
        low, high = np.where(bounded, space.low, 0.0), np.where(bounded, space.high, 1.0)
        uniform = low + (high - low) * generator.random(space.shape)
        inside = np.clip(drawn, space.low, space.high)
        return np.where(bounded, uniform, inside).astype(space.dtype)
    sizes = mask_sizes(space)
    if env.masked:
        allowed = parts(env.info[MASK], sizes)
        choices = [int(generator.choice(np.flatnonzero(part))) for part in allowed]
    else:
        choices = [int(generator.integers(size)) for size in sizes]
    if isinstance(space, spaces.Discrete):
        return space.start + choices[0]
    start = space.start if isinstance(space, spaces.MultiDiscrete) else 0
    return (np.array(choices).reshape(space.shape or ()) + start).astype(space.dtype)


def fits(space: spaces.Space[Any], observation: Any) -> bool:
    """Whether an observation has its space's structure and shapes; values out of bounds do no harm."""
    if isinstance(space, spaces.Dict):
        return (
            isinstance(observation, Mapping)
            and observation.keys() == space.spaces.keys()
            and all(fits(entry, observation[key]) for key, entry in space.spaces.items())
        )
    if isinstance(space, spaces.Tuple):
        return (
            isinstance(observation, (tuple, list))
            and len(observation) == len(space.spaces)
            and all(map(fits, space.spaces, observation))
        )
    if isinstance(space, spaces.Box):
        return observation is not None and np.shape(observation) == space.shape
    return space.contains(observation)


def mask_sizes(space: spaces.Space[Any]) -> list[int]:
    """How many actions each dimension of a discrete space has."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(size) for size in space.nvec.reshape(-1)]
    return [2] * int(np.prod(space.shape or ()))


def flat_mask(mask: Any) -> np.ndarray:
    """A mask (A,) of bool, of one array or of one for each dimension."""
    if isinstance(mask, (tuple, list)) and len(mask) and np.ndim(mask[0]):
        return np.concatenate([np.asarray(part).astype(bool).reshape(-1) for part in mask])
    return np.asarray(mask).astype(bool).reshape(-1)


def parts(mask: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    """A mask's dimensions, one after the other."""
    start = 0
    for size in sizes:
        yield mask[start : start + size]
        start += size


def _advance(env: Environment, action: Any) -> tuple[Any, ...]:
    observation, reward, terminated, truncated, _ = env.step(action)
    if terminated or truncated:
        observation, _ = env.reset()
    return observation, float(reward), bool(terminated), bool(truncated)


def _advance_all(vector: VectorEnv, actions: Any) -> tuple[Any, ...]:
    return vector.step(actions)[:4]
