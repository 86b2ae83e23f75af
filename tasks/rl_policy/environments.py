"""Environments of gymnasium, many at a time, with one account of what every step of each has done."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from .references import REFERENCES
from .registration import constructed, find, make, metadata
from .spaces import ActionDecoder, Encoder, describe_action, describe_observation
from .spec import PolicySpec
from .vectors import MASK, Atari, Batch, EnvironmentFailed, Guard, Guarded, Native, random_action
from .wrappers import AtariPreprocessing, Environment, Wrapping

__all__ = ["EnvironmentFailed", "Frame", "VectorEnvironments", "describe", "make_environments"]

Vectorization = Literal["auto", "native", "sync", "async"]
Autoreset = Literal["next_step", "same_step"]
MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}
# Evaluation must end: of an environment without a limit of its own, it cuts an episode after so many steps.
LONGEST_EPISODE = 10_000
Result = TypeVar("Result")


@dataclass(slots=True)
class Frame:
    """What one step of E environments gave.

    Attributes:
        observations: The parts of the newest observations, by name: (E, ...) each.
        rewards: (E,), float32.
        terminated: (E,), bool: True where the episode ended by itself.
        truncated: (E,), bool: True where it was cut short, so that its last observation still has a value.
        reset: (E,), bool: True where a new episode only began: the step's action was ignored, its reward is 0. So it
            is after `VectorEnvironments.reset`, and in next-step mode after each step that ended an episode.
        final: In same-step mode, where an episode ended in this step, the last observations of the ended episodes,
            (E, ...) each with zeros in the rows of the others; else None. In next-step mode `observations` are the
            final ones.
        masks: (E, A), bool: True where an action is allowed; the dimensions of multi-discrete actions one after the
            other. None where the environment masks none.
    """

    observations: dict[str, np.ndarray]
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    reset: np.ndarray
    final: dict[str, np.ndarray] | None
    masks: np.ndarray | None


class VectorEnvironments:
    """Environments that step together; `make_environments` makes them.

    Args:
        spec: What each of them is.
        batch: What steps them.
        count: How many there are.
        autoreset: When an ended one begins anew.

    Attributes:
        count: How many there are.
        name: The environment's id.
        autoreset: `next_step` or `same_step`.
    """

    def __init__(self, spec: PolicySpec, batch: Batch, count: int, autoreset: Autoreset) -> None:
        self.spec = spec
        self.count = count
        self.name = spec.environment
        self.autoreset = autoreset
        self._batch = batch
        self._encoder = Encoder(batch.vector.single_observation_space)
        self._decoder = ActionDecoder(batch.vector.single_action_space)
        self._check_spec()
        self._floats = [
            name for name, part in spec.observations.items() if part["dtype"] == "float32"
        ]
        self._same_step = autoreset == "same_step"
        self._masked = bool(spec.action["masked"])
        self._never = np.zeros(count, bool)
        self._ended = self._never
        self._steps = 0
        self._began = np.zeros(
            count, np.int64
        )  # the step at which each one's episode began, for messages
        self._frame: Frame | None = None

    @property
    def frame(self) -> Frame:
        """The newest frame.

        Raises:
            RuntimeError: Before the first reset.
        """
        if self._frame is None:
            raise RuntimeError(f"{self.name}: reset the environments before their frame is read")
        return self._frame

    def reset(self, seeds: list[int]) -> Frame:
        """Begins an episode in each environment.

        Args:
            seeds: One for each; an implementation that takes one for all (CartPole's own) gets the first.

        Raises:
            ValueError: If there are not as many seeds as environments.
            EnvironmentFailed: If a reset fails.
        """
        if len(seeds) != self.count:
            raise ValueError(f"{self.count} environments need as many seeds, got {len(seeds)}")
        try:
            raw, infos = self._batch.reset(seeds)
        except EnvironmentFailed:
            raise
        except Exception as error:
            raise EnvironmentFailed(
                f"{self.name}: the reset failed: {type(error).__name__}: {error}"
            ) from error
        self._ended, self._steps = self._never, 0
        self._began[:] = 0
        rewards = np.zeros(self.count, np.float32)
        observations = self._encoder.encode(raw)
        self._check_finite(observations, rewards, None)
        never, reset = self._never, np.ones(self.count, bool)
        masks = self._masks(infos)
        self._frame = Frame(observations, rewards, never, never, reset, None, masks)
        return self._frame

    def step(self, actions: np.ndarray) -> Frame:
        """Steps each environment.

        Args:
            actions: (E,) or (E, D), discrete ones from 0; those of environments whose episode has just ended are
                ignored in next-step mode.

        Raises:
            EnvironmentFailed: If an environment raises, or gives NaN or an observation that leaves its space.
        """
        try:
            raw, rewards, terminated, truncated, infos = self._batch.step(
                self._decoder.decode(actions)
            )
        except EnvironmentFailed:
            raise
        except Exception as error:
            raise EnvironmentFailed(
                f"{self.name}: step {self._steps + 1} failed on actions {actions}: {type(error).__name__}: {error}"
            ) from error
        self._steps += 1
        observations = self._encoder.encode(raw)
        rewards = np.asarray(rewards, np.float32)
        self._check_finite(observations, rewards, actions)
        reset = self._never if self._same_step else self._ended
        ended = terminated | truncated
        final = None
        if np.count_nonzero(ended):
            if self._same_step:
                final = self._final(infos, ended)
                self._began[ended] = self._steps
            else:
                self._began[ended] = self._steps + 1
        self._ended = ended
        masks = self._masks(infos) if self._masked else None
        self._frame = Frame(observations, rewards, terminated, truncated, reset, final, masks)
        return self._frame

    def render(self) -> list[np.ndarray]:
        """A picture (H, W, 3) of uint8 of each environment.

        Raises:
            RuntimeError: If they were not made to draw.
        """
        drawn = self._batch.render(self.frame.observations)
        if len(drawn) != self.count or any(picture is None for picture in drawn):
            raise RuntimeError(f"{self.name} was not made to draw; make it with render=True")
        return [_picture(picture) for picture in drawn]

    def state(self) -> dict[str, Any] | None:
        """All that the next steps follow from, as plain values, or None where `no_state` says why.

        It holds one entry an environment, or one for all of a native vector, and the newest frame.
        """
        states, _ = self._batch.keep()
        if states is None:
            return None
        frame = self.frame
        return {
            "environments": states,
            "frame": {
                "observations": _tensors(frame.observations),
                "rewards": torch.from_numpy(frame.rewards.copy()),
                "terminated": torch.from_numpy(frame.terminated.copy()),
                "truncated": torch.from_numpy(frame.truncated.copy()),
                "reset": torch.from_numpy(frame.reset.copy()),
                "final": None if frame.final is None else _tensors(frame.final),
                "masks": None if frame.masks is None else torch.from_numpy(frame.masks.copy()),
            },
            "steps": self._steps,
            "began": torch.from_numpy(self._began.copy()),
        }

    @property
    def no_state(self) -> str:
        """Why there is no state; empty where there is one."""
        return self._batch.keep()[1]

    def restore(self, state: Mapping[str, Any]) -> Frame:
        """Goes on from a state of as many environments of the same kind.

        Raises:
            ValueError: If it does not suit.
        """
        try:
            states, kept = state["environments"], state["frame"]
            frame = Frame(
                {name: part.numpy().copy() for name, part in kept["observations"].items()},
                rewards=kept["rewards"].numpy().copy(),
                terminated=kept["terminated"].numpy().copy(),
                truncated=kept["truncated"].numpy().copy(),
                reset=kept["reset"].numpy().copy(),
                final=None
                if kept["final"] is None
                else {name: part.numpy().copy() for name, part in kept["final"].items()},
                masks=None if kept["masks"] is None else kept["masks"].numpy().copy(),
            )
            steps, began = int(state["steps"]), state["began"].numpy().copy()
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{self.name}: the saved state is damaged: {error!r}") from error
        if len(frame.rewards) != self.count:
            raise ValueError(
                f"{self.name}: the state is of {len(frame.rewards)} environments, not {self.count}"
            )
        self.reset(list(range(self.count)))
        due = frame if not self._same_step else None
        ended = [
            (bool(due.terminated[i]), bool(due.truncated[i])) if due else (False, False)
            for i in range(self.count)
        ]
        try:
            self._batch.take(states, ended)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.name}: {error}") from error
        self._frame, self._steps, self._began = frame, steps, began
        self._ended = frame.terminated | frame.truncated
        return frame

    def close(self) -> None:
        """Frees what the environments hold; closing twice does nothing."""
        self._batch.vector.close()

    def _masks(self, infos: dict[str, Any]) -> np.ndarray | None:
        if not self._masked:
            return None
        if MASK not in infos:
            raise EnvironmentFailed(
                f"{self.name} gave no {MASK!r} in its infos, as it did when it was described"
            )
        return np.array(infos[MASK], bool)

    def _final(self, infos: dict[str, Any], ended: np.ndarray) -> dict[str, np.ndarray]:
        final = infos["final_obs"]
        if final.dtype != object:
            parts = self._encoder.encode(final)
        else:
            parts = {}
            for name, rows in self._encoder.encode_list([*final[ended]]).items():
                parts[name] = np.zeros((self.count, *rows.shape[1:]), rows.dtype)
                parts[name][ended] = rows
        self._check_finite(parts, np.zeros(self.count, np.float32), None)
        return parts

    def _check_finite(
        self, observations: dict[str, np.ndarray], rewards: np.ndarray, actions: np.ndarray | None
    ) -> None:
        # One sum of squares tells that all is finite, in a third of the time of asking each number, which is done only
        # where the sum is not: it may be too large.
        total = float(rewards.dot(rewards))
        for name in self._floats:
            numbers = observations[name].ravel("K")
            total += float(numbers.dot(numbers))
        if not math.isfinite(total):
            self._find_not_finite(observations, rewards, actions)

    def _find_not_finite(
        self, observations: dict[str, np.ndarray], rewards: np.ndarray, actions: np.ndarray | None
    ) -> None:
        wrong = {"reward": ~np.isfinite(rewards)}
        for name in self._floats:
            rows = observations[name].reshape(self.count, -1)
            wrong["observation"] = wrong.get("observation", False) | ~np.isfinite(rows).all(1)
        for what, where in wrong.items():
            for index in np.flatnonzero(where):
                when = "at its reset"
                if actions is not None:
                    step = self._steps - int(self._began[index])
                    when = f"at step {step}, on action {actions[index]},"
                raise EnvironmentFailed(
                    f"{self.name}: environment {index} {when} gave a {what} that is not finite"
                )

    def _check_spec(self) -> None:
        observations = describe_observation(self._encoder.space)
        action = describe_action(self._batch.vector.single_action_space)
        told = {**self.spec.action, "masked": False}
        if observations != self.spec.observations or action != told:
            raise ValueError(
                f"{self.name} is not as described: its observations are {observations} and actions {action}, not "
                f"{self.spec.observations} and {told}; its package may have changed"
            )


def describe(
    environment: str,
    options: Mapping[str, Any] | None = None,
    wrappers: Sequence[Wrapping] = (),
    *,
    random_return: float | None = None,
    reference_return: float | None = None,
    source: str = "",
    episode_limit: int | None = None,
) -> PolicySpec:
    """What a task must know of an environment; it is made, reset and stepped once for that.

    The two returns are those of `references.REFERENCES` unless given; None where there are none. The episode limit
    of an environment that has none of its own is 10,000 steps unless given.

    Args:
        environment: The id that gymnasium knows it by.
        options: Arguments of `gymnasium.make`.
        wrappers: What changes it, the innermost first.
        random_return: The mean return of random actions.
        reference_return: The return that counts as a score of 1.
        source: Where the two returns come from.
        episode_limit: Steps after which evaluation ends an episode.

    Raises:
        ValueError: If gymnasium knows no such environment, an extra is missing, it cannot be made with the options,
            or a space is not supported.
        EnvironmentFailed: If its first reset or step fails.
    """
    found = find(environment)
    plain = dict(options or {})
    if random_return is None and reference_return is None and environment in REFERENCES:
        told = REFERENCES[environment]
        random_return, reference_return, source = told.random, told.reference, told.source
    masked, limited = False, True
    if _is_atari(found, wrappers):
        vector = _make_native(found, plain, wrappers, 1, "next_step", False, False)
        observation, action = vector.single_observation_space, vector.single_action_space
        vector.close()
    else:
        env = Guard(make(found, plain, wrappers, training=True, render=False), environment, 0)
        observation, action = env.observation_space, env.action_space
        try:
            _named(environment, lambda: describe_observation(observation))
            _named(environment, lambda: describe_action(action))
            env.reset(seed=0)
            env.step(random_action(env, np.random.default_rng(0)))
            masked, limited = env.masked, _has_limit(env, found)
        finally:
            env.close()
        if masked and isinstance(action, gymnasium.spaces.Box):
            raise ValueError(f"{environment} masks actions, which are continuous: {action}")
    return PolicySpec(
        environment=environment,
        options=plain,
        wrappers=[wrapper.plain() for wrapper in wrappers],
        observations=_named(environment, lambda: describe_observation(observation)),
        action={**_named(environment, lambda: describe_action(action)), "masked": masked},
        random_return=random_return,
        reference_return=reference_return,
        source=source,
        episode_limit=episode_limit or (None if limited else LONGEST_EPISODE),
    )


def make_environments(
    spec: PolicySpec,
    count: int,
    *,
    vectorization: Vectorization = "auto",
    autoreset: Autoreset = "next_step",
    training: bool,
    render: bool = False,
) -> VectorEnvironments:
    """`count` environments that step together.

    Args:
        spec: What they are, as `describe` gave it.
        count: How many.
        vectorization: `native` for the environment's own vectorised implementation (CartPole; ALE/... with
            AtariPreprocessing), `sync` for one after the other, `async` for a process each; `auto` is `native`
            where there is one that suits, else `sync`.
        autoreset: When an ended episode's environment begins the next: by the step after (`next_step`), or within
            the same (`same_step`).
        training: Whether wrappers for training alone are used too.
        render: Whether pictures will be asked for.

    Raises:
        ValueError: If they cannot be made so.
    """
    if count < 1:
        raise ValueError(f"at least 1 environment must be made, got {count}")
    if autoreset not in MODES:
        raise ValueError(f"autoreset must be one of {', '.join(MODES)}, got {autoreset!r}")
    found = find(spec.environment)
    wrappers = [Wrapping.of(plain) for plain in spec.wrappers]
    if render and not can_draw(spec.environment):
        raise ValueError(
            f"{spec.environment} draws no pictures (rgb_array is not among its render modes)"
        )
    atari = _is_atari(found, wrappers)
    kind = _vectorization(found, wrappers, vectorization, autoreset, training, render)
    batch: Batch
    if kind == "native":
        options = spec.options
        native = partial(_make_native, found, options, wrappers, count, autoreset, training, render)
        batch = Atari(native()) if atari else Native(native)
    else:
        one = partial(make, found, spec.options, wrappers, training=training, render=render)
        try:
            batch = Guarded(kind, one, spec.environment, count, MODES[autoreset])
        except RuntimeError as error:
            raise ValueError(f"{spec.environment} does not suit: {error}") from error
    return VectorEnvironments(spec, batch, count, autoreset)


def can_draw(environment: str) -> bool:
    """Whether an environment can draw pictures of itself."""
    return "rgb_array" in metadata(find(environment)).get("render_modes", ())


def _vectorization(
    found: EnvSpec,
    wrappers: Sequence[Wrapping],
    asked: Vectorization,
    autoreset: Autoreset,
    training: bool,
    render: bool,
) -> Literal["native", "sync", "async"]:
    """What is asked for, if it can be; `auto` chosen."""
    if asked not in ("auto", "native", "sync", "async"):
        raise ValueError(f"vectorization must be one of auto, native, sync, async, got {asked!r}")
    if _is_atari(found, wrappers):
        if asked in ("sync", "async"):
            raise ValueError(
                f"{found.id} with AtariPreprocessing is vectorized by ale-py: auto or native, got {asked!r}"
            )
        return "native"
    if asked in ("sync", "async"):
        return asked
    reason = ""
    used = [type(wrapper).__name__ for wrapper in wrappers if training or not wrapper.training_only]
    if found.vector_entry_point is None:
        reason = "has no vectorised implementation of its own"
    elif found.namespace == "ALE":
        reason = "needs AtariPreprocessing for ale-py's vectorised implementation"
    elif used:
        reason = f"takes no wrappers in its own vectorised implementation ({', '.join(used)})"
    elif autoreset != "next_step":
        reason = "resets only in next-step mode in its own vectorised implementation"
    elif render:
        # CartPole's own opens a display; one after the other draws without.
        reason = "draws one by one"
    if asked == "native" and reason:
        raise ValueError(f"vectorization: {found.id} {reason}; use auto, sync or async")
    return "sync" if reason else "native"


def _make_native(
    found: EnvSpec,
    options: Mapping[str, Any],
    wrappers: Sequence[Wrapping],
    count: int,
    autoreset: Autoreset,
    training: bool,
    render: bool,
) -> VectorEnv:
    arguments = dict(options)
    if wrappers and isinstance(wrappers[0], AtariPreprocessing):
        arguments = {
            **wrappers[0].arguments(training),
            **arguments,
            "autoreset_mode": MODES[autoreset],
        }
    elif render:
        arguments["render_mode"] = "rgb_array"
    vector: VectorEnv = constructed(
        found,
        lambda: gymnasium.make_vec(
            found, count, vectorization_mode="vector_entry_point", **arguments
        ),
    )
    if vector.metadata.get("autoreset_mode") is not MODES[autoreset]:
        vector.close()
        raise ValueError(
            f"{found.id}'s own vectorised implementation resets in mode {vector.metadata.get('autoreset_mode')}, not "
            f"{autoreset}; set vectorization to sync or async"
        )
    return vector


def _is_atari(found: EnvSpec, wrappers: Sequence[Wrapping]) -> bool:
    return (
        found.namespace == "ALE"
        and len(wrappers) == 1
        and isinstance(wrappers[0], AtariPreprocessing)
    )


def _has_limit(env: Environment, found: EnvSpec) -> bool:
    if found.namespace == "ALE":
        return True  # 108,000 frames, ALE's own
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return True
        env = env.env
    return False


def _named(environment: str, describe: Callable[[], Result]) -> Result:
    try:
        return describe()
    except ValueError as error:
        raise ValueError(f"{environment}: {error}") from error


def _tensors(parts: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(part, order="C")) for name, part in parts.items()}


def _picture(drawn: Any) -> np.ndarray:
    """A drawn picture as (H, W, 3) of uint8; floats are fractions, grey is repeated."""
    picture = np.asarray(drawn)
    if picture.dtype.kind == "f":
        picture = np.round(picture * 255)
    if picture.shape[-1] == 1:
        picture = np.repeat(picture, 3, axis=-1)
    return np.ascontiguousarray(picture[..., :3], np.uint8)
