"""What a task must know of an environment: plain values, so that a checkpoint can carry and rebuild it."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from resdomains.training.spec import Spec

LAYOUTS = ("vector", "sequence", "picture")
ACTIONS = ("discrete", "multi_discrete", "continuous")


@dataclass(frozen=True, kw_only=True)
class PolicySpec(Spec):
    """The plain description of an environment, its observations and its actions.

    Args:
        environment: The id that gymnasium knows it by.
        options: Arguments of `gymnasium.make`.
        wrappers: What changes its observations, actions and rewards, the innermost first: `name` and `options` of each.
        observations: For each part of an observation, by name, its `layout` (`vector` (d,), `sequence` (d, T) or
            `picture` (C, H, W)), `shape`, `dtype` (`float32` or `uint8`) and `scale`, which values are divided by.
        action: `kind` (`discrete`, `multi_discrete` or `continuous`), `masked`, and `sizes` for the discrete kinds or
            `shape`, `low` and `high` (None where there is no bound) for continuous actions.
        random_return: The mean return of random actions; None where it is not known.
        reference_return: The return that counts as a score of 1; None where none is known.
        source: Where the two returns come from.
        episode_limit: Steps after which evaluation ends an episode that has not ended by itself; None for no limit.

    Raises:
        ValueError: If a value cannot be used.
    """

    about: ClassVar[str] = "environments"

    environment: str
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: list[dict[str, Any]] = field(default_factory=list)
    observations: dict[str, dict[str, Any]]
    action: dict[str, Any]
    random_return: float | None = None
    reference_return: float | None = None
    source: str = ""
    episode_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.observations:
            raise ValueError("observations must have at least one part")
        for name, part in self.observations.items():
            if part.get("layout") not in LAYOUTS:
                raise ValueError(
                    f"observations[{name!r}] must have a layout of {', '.join(LAYOUTS)}, got {part.get('layout')!r}"
                )
        if self.action.get("kind") not in ACTIONS:
            raise ValueError(
                f"action must be of a kind of {', '.join(ACTIONS)}, got {self.action.get('kind')!r}"
            )
        returns = (self.random_return, self.reference_return)
        if (returns[0] is None) != (returns[1] is None):
            raise ValueError(
                f"random_return and reference_return go together, got {returns[0]} and {returns[1]}; "
                "the score is (return - random) / (reference - random)"
            )
        if returns[0] is not None and returns[1] is not None:
            if not all(math.isfinite(value) for value in (returns[0], returns[1])):
                raise ValueError(
                    f"random_return and reference_return must be finite, got {returns[0]} and {returns[1]}"
                )
            if returns[0] >= returns[1]:
                raise ValueError(
                    f"reference_return must be above random_return, got {returns[1]} and {returns[0]}"
                )
        if self.episode_limit is not None and self.episode_limit < 1:
            raise ValueError(f"episode_limit must be at least 1 step, got {self.episode_limit}")

    @property
    def has_reference(self) -> bool:
        """Whether a return can be made a score."""
        return self.reference_return is not None

    @property
    def output_names(self) -> list[str]:
        """The environment's actions: a choice of each, or the number of a continuous one."""
        if self.action["kind"] == "continuous":
            return [
                f"{self.environment} number {place}" for place in range(len(self.action["low"]))
            ]
        return [
            f"{self.environment} action {place}.{choice}"
            for place, choices in enumerate(self.action["sizes"])
            for choice in range(choices)
        ]

    @property
    def input_meaning(self) -> dict[str, Any]:
        """The parts of an observation and what made them so."""
        return {"observations": self.observations, "wrappers": self.wrappers}
