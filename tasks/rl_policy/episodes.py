"""Episodes as an evaluation plays them: each has its own seed and counts once, and none depends on its mates."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resdomains.training import BadSample, Film

from .environments import Frame, VectorEnvironments, make_environments
from .spec import PolicySpec
from .vectors import EnvironmentFailed

_BLOCK = 64  # steps for which noise is drawn at once

End = Literal["terminated", "truncated", "cut"]
ENDS: tuple[End, ...] = ("terminated", "truncated", "cut")
"""How an episode ends: by the environment's rules, by its time limit, or by the evaluation's own."""

Floats = npt.NDArray[np.floating[Any]]
Noise = Callable[[int, torch.Generator], Tensor]
"""Draws what makes a number of samples random, (count, ...), as `ActionDistribution.noise` does."""


class Act(Protocol):
    """A policy and its critic, as episodes need them."""

    def __call__(
        self,
        observations: Mapping[str, npt.NDArray[Any]],
        masks: npt.NDArray[np.bool_] | None,
        noise: Tensor | None,
        /,
    ) -> tuple[npt.NDArray[Any], Floats]:
        """Return the actions (E, ...) as the environments take them, and the values (E,).

        Args:
            observations: The parts by name, (E, ...) each.
            masks: (E, A), True where an action is allowed; None where none is masked.
            noise: (E, ...) what picks the actions; None for the likeliest ones.
        """


@dataclass(frozen=True, eq=False)
class Episode:
    """An episode of T steps that was played to its end.

    Args:
        seed: What its environment was reset with.
        rewards: (T,) as the environment gave them.
        values: (T,) what the critic expected before each step.
        end: How it ended.
        bootstrap: The value of the last observation; 0 where the episode was terminated.
    """

    seed: int
    rewards: Floats
    values: Floats
    end: End
    bootstrap: float

    @property
    def total(self) -> float:
        """The return: the sum of the rewards."""
        return float(self.rewards.sum(dtype=np.float64))

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return len(self.rewards)

    def discounted(self, discount: float, scale: float) -> npt.NDArray[np.float64]:
        """Return G_t = scale r_t + discount G_(t+1), (T,), with the bootstrap value behind the last step.

        Args:
            discount: Per step.
            scale: What makes the critic's units of rewards.
        """
        found = np.empty(self.length)
        ahead = self.bootstrap
        for step, reward in zip(
            range(self.length - 1, -1, -1), self.rewards[::-1].tolist(), strict=True
        ):
            ahead = scale * reward + discount * ahead
            found[step] = ahead
        return found

    def value_loss(self, discount: float, scale: float) -> float:
        """Return the mean over the steps of (V(s_t) - G_t)^2; arguments are those of `discounted`."""
        return float(np.square(self.values - self.discounted(discount, scale)).mean())

    def record(self) -> dict[str, Any]:
        """Return what a table says of it: `seed`, `return`, `length` and `end`."""
        return {
            "seed": self.seed,
            "return": self.total,
            "length": self.length,
            "end": self.end,
        }


class _Noises:
    """What makes actions random: of each episode it depends on its seed and the step alone."""

    def __init__(self, draw: Noise, seeds: Sequence[int]) -> None:
        self.draw = draw
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.block = torch.empty(0)

    def at(self, step: int) -> Tensor:
        """Return the noise of a step, (E, ...); steps must be asked for in order."""
        if step % _BLOCK == 0:
            self.block = torch.stack([self.draw(_BLOCK, own) for own in self.generators], 1)
        return self.block[step % _BLOCK]


def play(
    act: Act,
    environments: VectorEnvironments,
    seeds: Sequence[int],
    *,
    limit: int | None = None,
    noise: Noise | None = None,
    film: Film | None = None,
) -> list[Episode]:
    """Play one episode for each seed, all together, until the last has ended.

    Environments whose episode has ended, and those that get no seed, step on and count no more.

    Args:
        act: The policy.
        environments: At least as many as seeds.
        seeds: What the environments are reset with; noise depends on them too.
        limit: Steps after which an episode is cut.
        noise: Draws what picks actions at random; with None the policy takes the likeliest ones.
        film: Takes pictures of the first episode, of environments that can render and that reset in the next step.

    Raises:
        ValueError: If there are more seeds than environments, or none.
        EnvironmentFailed: If an environment fails.
    """
    count = len(seeds)
    if not 0 < count <= environments.count:
        raise ValueError(
            f"seeds must be at least 1 and at most the {environments.count} environments, got {count}"
        )
    every = [*seeds, *[seeds[-1]] * (environments.count - count)]
    noises = None if noise is None else _Noises(noise, every)
    frame = environments.reset(every)
    rewards: list[Floats] = []
    values: list[Floats] = []
    ends: dict[int, tuple[int, End, float]] = {}
    if film is not None:
        film.take(lambda: environments.render()[0])
    while len(ends) < count:
        step = len(rewards)
        drawn = None if noises is None else noises.at(step)
        actions, expected = act(frame.observations, frame.masks, drawn)
        values.append(expected[:count])
        frame = environments.step(actions)
        rewards.append(frame.rewards[:count].copy())
        cut = limit is not None and step + 1 >= limit
        ended = _ended(frame, cut, count)
        new = [place for place in ended if place not in ends]
        behind: Floats | None = None
        if any(ended[place] != "terminated" for place in new):
            last = frame.observations if frame.final is None else frame.final
            behind = act(last, frame.masks, drawn)[1]
        if film is not None and 0 not in ends:
            film.take(lambda: environments.render()[0], last=0 in new)
        for place in new:
            after = 0.0 if ended[place] == "terminated" or behind is None else float(behind[place])
            ends[place] = (step + 1, ended[place], after)
    gained, judged = np.stack(rewards), np.stack(values)
    return [
        Episode(
            seed=seed,
            rewards=gained[: ends[place][0], place],
            values=judged[: ends[place][0], place],
            end=ends[place][1],
            bootstrap=ends[place][2],
        )
        for place, seed in enumerate(seeds)
    ]


def _ended(frame: Frame, cut: bool, count: int) -> dict[int, End]:
    """How episodes end in this step, by their place."""
    found: dict[int, End] = dict.fromkeys(range(count), "cut") if cut else {}
    for flags, end in ((frame.truncated, ENDS[1]), (frame.terminated, ENDS[0])):
        found.update(dict.fromkeys(np.flatnonzero(flags[:count]).tolist(), end))
    return found


def evaluation_environments(
    spec: PolicySpec, count: int, *, render: bool = False
) -> VectorEnvironments:
    """Return environments that take a seed each, without the wrappers for training alone.

    Args:
        spec: What each is.
        count: How many.
        render: Whether pictures will be asked for.

    Raises:
        ValueError: If they cannot be made.
    """
    # ale-py's own vector takes a seed each; CartPole's takes one for all.
    native = any(wrapper["name"] == "AtariPreprocessing" for wrapper in spec.wrappers)
    return make_environments(
        spec, count, vectorization="auto" if native else "sync", training=False, render=render
    )


def play_alone(
    act: Act,
    spec: PolicySpec,
    seeds: Sequence[int],
    *,
    noise: Noise | None = None,
    together: bool = True,
) -> list[Episode]:
    """Play an episode for each seed in environments that are made for it, without a data module.

    Args:
        act: The policy.
        spec: The environment.
        seeds: What the environments are reset with.
        noise: Draws what picks actions at random; with None the policy takes the likeliest ones.
        together: Whether all are played at once; else one after the other, as on a screen.

    Raises:
        BadSample: If the environment cannot be made, or fails.
    """
    parts = [list(seeds)] if together else [[seed] for seed in seeds]
    played: list[Episode] = []
    try:
        with closing(evaluation_environments(spec, len(parts[0]))) as environments:
            for part in parts:
                played += play(act, environments, part, limit=spec.episode_limit, noise=noise)
    except (ValueError, EnvironmentFailed) as error:
        raise BadSample(spec.environment, str(error)) from error
    return played
