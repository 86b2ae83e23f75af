"""What may change observations, actions and rewards: gymnasium's wrappers as plain parts of a config."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import wrappers as gymnasium_wrappers

Environment = gymnasium.Env[Any, Any]


class Wrapping(ABC):
    """One change to an environment: a frozen dataclass of plain arguments, so that a checkpoint can carry it.

    A wrapper of your own derives from this; in a checkpoint it stands by its dotted path, and the module that defines
    it must have been imported before the checkpoint is played.
    """

    # What eases learning but hides the true return: evaluation leaves it out.
    training_only: ClassVar[bool] = False

    @abstractmethod
    def wrap(self, env: Environment) -> Environment:
        """The environment with this change.

        Raises:
            ValueError: If it does not suit the environment.
        """

    def plain(self) -> dict[str, Any]:
        """What a checkpoint carries: `name` and `options`."""
        return {"name": _name_of(type(self)), "options": asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Wrapping":
        """The wrapper that `plain` described.

        Raises:
            ValueError: If no imported wrapper has its name, or its options do not suit it.
        """
        known = {_name_of(kind): kind for kind in _kinds(Wrapping)}  # type: ignore[type-abstract]
        name, options = plain.get("name"), plain.get("options", {})
        if name not in known:
            raise ValueError(
                f"wrappers: no wrapper is called {name!r}; there are {', '.join(sorted(known))}; one of your own is "
                "found once its module has been imported"
            )
        try:
            return known[name](**options)
        except TypeError as error:
            raise ValueError(f"wrappers: {name} cannot be built of {options}: {error}") from error

    def must(self, holds: bool, argument: str, allowed: str) -> None:
        """Refuses an argument's value by a message.

        Raises:
            ValueError: Unless `holds`.
        """
        if not holds:
            kind = type(self).__name__
            raise ValueError(f"{kind}: {argument} must be {allowed}, got {getattr(self, argument)}")


@dataclass(frozen=True)
class FrameStack(Wrapping):
    """The newest `count` observations together, the oldest first; an episode's first observation fills the stack.

    Vectors (d,) become a sequence (d, count); pictures become one picture of `count` times the channels.

    Args:
        count: Observations to stack, at least 2.
    """

    count: int = 4

    def __post_init__(self) -> None:
        self.must(self.count >= 2, "count", "at least 2")

    def wrap(self, env: Environment) -> Environment:
        return gymnasium_wrappers.FrameStackObservation(env, self.count)


@dataclass(frozen=True)
class Greyscale(Wrapping):
    """Pictures (H, W, 3) of uint8 as (H, W): 0.2125 red + 0.7154 green + 0.0721 blue."""

    def wrap(self, env: Environment) -> Environment:
        space = env.observation_space
        shape = space.shape or ()
        if not (len(shape) == 3 and shape[-1] == 3 and space.dtype == "uint8"):
            raise ValueError(f"Greyscale takes pictures (H, W, 3) of uint8, got {space}")
        return gymnasium_wrappers.GrayscaleObservation(env)


@dataclass(frozen=True)
class Resize(Wrapping):
    """Pictures of another size, by area interpolation; it needs OpenCV (`pip install opencv-python-headless`).

    Args:
        height: Rows of pixels.
        width: Columns of pixels.
    """

    height: int = 84
    width: int = 84

    def __post_init__(self) -> None:
        self.must(self.height >= 1, "height", "at least 1")
        self.must(self.width >= 1, "width", "at least 1")

    def wrap(self, env: Environment) -> Environment:
        shape = env.observation_space.shape or ()
        if len(shape) not in (2, 3):
            raise ValueError(
                f"Resize takes pictures (H, W) or (H, W, C), got {env.observation_space}"
            )
        try:
            # gymnasium's argument is (width, height), as OpenCV's.
            return gymnasium_wrappers.ResizeObservation(env, (self.width, self.height))
        except gymnasium.error.DependencyNotInstalled as error:
            raise ValueError("Resize needs OpenCV: pip install opencv-python-headless") from error


@dataclass(frozen=True)
class ClipReward(Wrapping):
    """Rewards clipped to [low, high], in training alone; evaluation counts true rewards.

    Args:
        low: Smallest reward.
        high: Largest reward.
    """

    training_only: ClassVar[bool] = True

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        self.must(self.low < self.high, "low", f"below high ({self.high})")

    def wrap(self, env: Environment) -> Environment:
        return gymnasium_wrappers.ClipReward(env, self.low, self.high)


@dataclass(frozen=True)
class ScaleReward(Wrapping):
    """Rewards times a factor, in training alone; evaluation counts true rewards.

    Args:
        factor: What rewards are multiplied by, above 0.
    """

    training_only: ClassVar[bool] = True

    factor: float

    def __post_init__(self) -> None:
        self.must(self.factor > 0, "factor", "above 0")

    def wrap(self, env: Environment) -> Environment:
        factor = self.factor
        return gymnasium_wrappers.TransformReward(env, lambda reward: float(reward) * factor)


@dataclass(frozen=True)
class StickyActions(Wrapping):
    """Repeats the last action instead of the new one with a probability, as Machado et al. (2018) ask for Atari.

    Args:
        probability: Of a repetition, in [0, 1); 0.25 in https://arxiv.org/abs/1709.06009.
    """

    probability: float = 0.25

    def __post_init__(self) -> None:
        self.must(0 <= self.probability < 1, "probability", "in [0, 1)")

    def wrap(self, env: Environment) -> Environment:
        return gymnasium_wrappers.StickyAction(env, self.probability)


@dataclass(frozen=True)
class EpisodicLife(Wrapping):
    """A lost life ends an episode, in training alone, as Mnih et al. (2015) do for Atari.

    The environment must say its lives by `env.unwrapped.ale.lives()`. The game itself goes on with the next life: its
    reset is one step of action 0, unless the game was over.
    """

    training_only: ClassVar[bool] = True

    def wrap(self, env: Environment) -> Environment:
        if not hasattr(getattr(env.unwrapped, "ale", None), "lives"):
            raise ValueError(f"EpisodicLife needs a game that counts lives (ALE/...), got {env}")
        return LostLifeEnds(env)


class LostLifeEnds(gymnasium.Wrapper[Any, Any, Any, Any]):
    """What `EpisodicLife` wraps an environment in."""

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.lives = 0
        self.over = True

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.over = bool(terminated or truncated)
        lives = int(self.unwrapped.ale.lives())  # type: ignore[attr-defined]
        lost = 0 < lives < self.lives
        self.lives = lives
        return observation, reward, bool(terminated or lost), bool(truncated), info

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if self.over or seed is not None:
            observation, info = self.env.reset(seed=seed, options=options)
        else:
            observation, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                observation, info = self.env.reset(options=options)
        self.over = False
        self.lives = int(self.unwrapped.ale.lives())  # type: ignore[attr-defined]
        return observation, info


@dataclass(frozen=True)
class TimeLimit(Wrapping):
    """Truncates an episode after a number of steps.

    Args:
        steps: The most steps of an episode.
    """

    steps: int

    def __post_init__(self) -> None:
        self.must(self.steps >= 1, "steps", "at least 1")

    def wrap(self, env: Environment) -> Environment:
        return gymnasium_wrappers.TimeLimit(env, self.steps)


@dataclass(frozen=True)
class RescaleAction(Wrapping):
    """Continuous actions in [low, high], moved and scaled to the environment's own bounds.

    Args:
        low: What stands for the environment's lower bounds.
        high: What stands for its upper bounds.
    """

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        self.must(self.low < self.high, "low", f"below high ({self.high})")

    def wrap(self, env: Environment) -> Environment:
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or not space.is_bounded("both"):
            raise ValueError(f"RescaleAction takes continuous actions with bounds, got {space}")
        low, high = (np.full(space.shape, bound, space.dtype) for bound in (self.low, self.high))
        return gymnasium_wrappers.RescaleAction(env, low, high)


@dataclass(frozen=True)
class AtariPreprocessing(Wrapping):
    """What learning usually makes of an Atari game, done by ale-py's own vectorised environment (extra `atari`).

    Frames are greyscale, resized and stacked: a picture (stack, height, width) of uint8. Defaults follow Mnih et al.
    (2015) but for sticky actions, which Machado et al. (2018, https://arxiv.org/abs/1709.06009) ask for instead of
    starting with no-operations alone; with them and full episodes, results compare with theirs.

    Args:
        frame_skip: Frames that an action is held for; the last two are joined by their maximum.
        height: Rows of pixels.
        width: Columns of pixels.
        stack: Newest frames together.
        greyscale: Whether colours are left out; else a frame has 3 channels.
        noop_max: An episode begins with up to so many frames of no operation.
        sticky: Probability that the last action is repeated.
        episodic_life: Whether a lost life ends an episode, in training alone.
        clip_reward: Whether rewards become their sign, in training alone.
        fire_at_reset: Whether an episode begins with `fire` where the game has it.
        threads: Threads that play the games of one vector; 0 for ale-py's choice.
    """

    frame_skip: int = 4
    height: int = 84
    width: int = 84
    stack: int = 4
    greyscale: bool = True
    noop_max: int = 30
    sticky: float = 0.25
    episodic_life: bool = False
    clip_reward: bool = True
    fire_at_reset: bool = False
    threads: int = 0

    def __post_init__(self) -> None:
        for argument in ("frame_skip", "height", "width", "stack"):
            self.must(getattr(self, argument) >= 1, argument, "at least 1")
        self.must(self.noop_max >= 0, "noop_max", "at least 0")
        self.must(0 <= self.sticky < 1, "sticky", "in [0, 1)")
        self.must(self.threads >= 0, "threads", "at least 0")

    def arguments(self, training: bool) -> dict[str, Any]:
        """The arguments of `ale_py.vector_env.AtariVectorEnv`."""
        return {
            "frameskip": self.frame_skip,
            "img_height": self.height,
            "img_width": self.width,
            "stack_num": self.stack,
            "grayscale": self.greyscale,
            "maxpool": self.frame_skip > 1,
            "noop_max": self.noop_max,
            "repeat_action_probability": self.sticky,
            "episodic_life": self.episodic_life and training,
            "reward_clipping": self.clip_reward and training,
            "use_fire_reset": self.fire_at_reset,
            "num_threads": self.threads,
        }

    def wrap(self, env: Environment) -> Environment:
        raise ValueError(
            "AtariPreprocessing is done by ale-py's vectorised environment: it must be the only wrapper of an ALE/... "
            f"environment, vectorized as `auto` or `native`; got it around {env}"
        )


def _name_of(kind: type[Wrapping]) -> str:
    return (
        kind.__name__ if kind.__module__ == __name__ else f"{kind.__module__}.{kind.__qualname__}"
    )


def _kinds(base: type[Wrapping]) -> Iterator[type[Wrapping]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)
