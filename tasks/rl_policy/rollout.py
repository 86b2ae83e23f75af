"""Playing: what a policy does in its training environments, and what is carried from one rollout to the next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .environments import VectorEnvironments

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


class Acted(NamedTuple):
    """What a policy says of E observations.

    Args:
        parameters: (E, P) of the distribution that the actions were drawn from.
        actions: (E, ...) as they are learned from.
        taken: (E, ...) as the environments take them.
        values: (E,) of the observations; None where they are computed for the whole rollout at once.
    """

    parameters: Tensor
    actions: Tensor
    taken: npt.NDArray[Any]
    values: Tensor | None


Act = Callable[[int, dict[str, Tensor], Tensor | None], Acted]
"""What chooses actions: gets the step's number within the rollout, the observations (E, ...) and the masks (E, P)."""


@dataclass
class Rollout:
    """T steps in this process's E environments; tensors on the CPU.

    Args:
        observations: (T + 1, E, ...) by name; the last are those after the last step.
        actions: (T, E, ...).
        parameters: (T, E, P) of the distributions that they were drawn from.
        masks: (T, E, P) of allowed actions, or None.
        values: (T + 1, E), or None where they are still to be computed.
        rewards: (T, E).
        terminated: (T, E), True where the step ended an episode by the environment's rules.
        truncated: (T, E), True where a limit cut an episode off.
        reset: (T, E), True where the step only began an episode.
        final: Last observations (N, ...) by name of the episodes that were truncated, where the environments reset in
            the same step (empty without such); None where they reset at the next, whose observation is then the last.
        final_places: (N, 2) step and environment of these.
    """

    observations: dict[str, Tensor]
    actions: Tensor
    parameters: Tensor
    masks: Tensor | None
    values: Tensor | None
    rewards: npt.NDArray[np.float32]
    terminated: Bools
    truncated: Bools
    reset: Bools
    final: dict[str, Tensor] | None
    final_places: npt.NDArray[np.int64]

    @property
    def seen(self) -> dict[str, Tensor]:
        """The observations that actions were chosen for, (T * E, ...) by name."""
        return {name: part[:-1].flatten(0, 1) for name, part in self.observations.items()}


class Runner:
    """This process's training environments, and what all processes' episodes under way have come to.

    Args:
        environments: This process's environments; they have been reset.
        first: The number of the first of them among those of all processes.
        total: The number of environments of all processes.
    """

    def __init__(self, environments: VectorEnvironments, first: int, total: int) -> None:
        self.environments = environments
        self.own = slice(first, first + environments.count)
        self.total = total
        self.returns = np.zeros(total)
        """(total,) rewards so far of each episode under way."""
        self.lengths = np.zeros(total, np.int64)
        """(total,) steps so far of each."""
        self.discounted = np.zeros(total)
        """(total,) running discounted return of each, by which rewards are normalised."""

    def collect(self, steps: int, act: Act) -> Rollout:
        """Let the policy act for a number of steps in every environment."""
        frame, count = self.environments.frame, self.environments.count
        arrays = {
            name: np.empty((steps + 1, *part.shape), part.dtype)
            for name, part in frame.observations.items()
        }
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        views = [
            dict(zip(tensors, row, strict=True))
            for row in zip(*(tensor.unbind() for tensor in tensors.values()), strict=True)
        ]
        rewards = np.empty((steps, count), np.float32)
        flags = np.empty((3, steps, count), np.bool_)
        terminated, truncated, reset = flags
        acted: list[Acted] = []
        masks: list[Tensor] = []
        final: list[dict[str, npt.NDArray[Any]]] = []
        final_places: list[tuple[int, int]] = []
        for step in range(steps):
            for name, part in frame.observations.items():
                arrays[name][step] = part
            allowed = None
            if frame.masks is not None:
                # A copy: an environment may write its next masks over these.
                allowed = torch.from_numpy(frame.masks.copy())
                masks.append(allowed)
            now = act(step, views[step], allowed)
            acted.append(now)
            frame = self.environments.step(now.taken)
            rewards[step] = frame.rewards
            terminated[step], truncated[step] = frame.terminated, frame.truncated
            reset[step] = frame.reset
            if frame.final is not None and frame.truncated.any():
                places = np.flatnonzero(frame.truncated)
                final.append({name: part[places] for name, part in frame.final.items()})
                final_places += [(step, int(place)) for place in places]
        for name, part in frame.observations.items():
            arrays[name][steps] = part
        values = [now.values for now in acted if now.values is not None]
        return Rollout(
            observations=tensors,
            actions=torch.stack([now.actions for now in acted]),
            parameters=torch.stack([now.parameters for now in acted]),
            masks=torch.stack(masks) if masks else None,
            values=torch.stack(values) if values else None,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            reset=reset,
            final={
                name: torch.from_numpy(np.concatenate([part[name] for part in final]))
                for name in final[0]
            }
            if final
            else ({} if self.environments.autoreset == "same_step" else None),
            final_places=np.array(final_places, np.int64).reshape(-1, 2),
        )

    def count_on(
        self, rewards: Floats, ended: Bools, valid: Bools
    ) -> tuple[list[float], list[int]]:
        """Add a rollout to the episodes under way; return the returns and lengths of those that ended in it.

        Args:
            rewards: (T, total) of all processes' environments, as the environments gave them.
            ended: (T, total), True where the step ended an episode.
            valid: (T, total), False where the step only began one.
        """
        returns: list[float] = []
        lengths: list[int] = []
        gained = np.cumsum(rewards * valid, 0, dtype=np.float64)
        steps = np.cumsum(valid, 0, dtype=np.int64)
        # What of the sums belongs to episodes that have ended; they are few beside steps.
        gone, taken = np.zeros(self.total), np.zeros(self.total, np.int64)
        for step, place in zip(*np.nonzero(ended), strict=True):
            returns.append(float(self.returns[place] + gained[step, place] - gone[place]))
            lengths.append(int(self.lengths[place] + steps[step, place] - taken[place]))
            self.returns[place], self.lengths[place] = 0.0, 0
            gone[place], taken[place] = gained[step, place], steps[step, place]
        self.returns += gained[-1] - gone
        self.lengths += steps[-1] - taken
        return returns, lengths

    def state(self) -> dict[str, Any] | None:
        """Return what a run goes on from, all plain; None where the environments cannot give their states."""
        environments = self.environments.state()
        if environments is None:
            return None
        return {
            "environments": environments,
            "returns": torch.from_numpy(self.returns.copy()),
            "lengths": torch.from_numpy(self.lengths.copy()),
            "discounted": torch.from_numpy(self.discounted.copy()),
        }

    def restore(self, states: Sequence[Mapping[str, Any] | None]) -> bool:
        """Go on from what `state` returned in each process; say whether that could be done.

        It cannot where environments give no state, or where there were other numbers of environments or processes.
        """
        count = self.environments.count
        place, processes = self.own.start // count, self.total // count
        own = states[place] if len(states) == processes else None
        if own is None or len(own["returns"]) != self.total:
            return False
        self.environments.restore(own["environments"])
        self.returns = own["returns"].numpy().copy()
        self.lengths = own["lengths"].numpy().copy()
        self.discounted = own["discounted"].numpy().copy()
        return True
