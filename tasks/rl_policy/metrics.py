"""Metrics of episodes, exact over a whole split and over all processes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from resdomains.classification import Gathered
from resdomains.statistics import interquartile_mean

from .episodes import ENDS, Episode

COLUMNS = ("index", "seed", "return", "length", "end", "value_loss")
"""Of an episode: its number in the split, its seed, return, steps, the place of its end in `ENDS`, and the mean square
of what its critic was wrong by."""

STEP_COLUMNS = ("reward", "value", "discounted")
"""Of a step: the reward, the value that the critic expected before it, and the discounted return that came."""


class EpisodeMetrics(Gathered):
    """What episodes brought. One that occurs twice counts once; the order of batches does not matter.

    Args:
        discount: The critic's, per step.
    """

    episodes: list[Tensor]
    steps: list[Tensor]

    def __init__(self, discount: float) -> None:
        super().__init__()
        self.discount = discount
        self.keep("episodes", torch.empty(0, len(COLUMNS), dtype=torch.float64))
        self.keep("steps", torch.empty(0, len(STEP_COLUMNS), dtype=torch.float32))

    def update(self, index: Sequence[int], episodes: Sequence[Episode], scale: float = 1.0) -> None:
        """Take the episodes of a batch.

        Args:
            index: Their numbers in the split.
            episodes: As they were played.
            scale: What makes the critic's units of rewards.
        """
        for number, episode in zip(index, episodes, strict=True):
            ahead = episode.discounted(self.discount, scale)
            values = np.asarray(episode.values, np.float64)
            facts = (
                number,
                episode.seed,
                episode.total,
                episode.length,
                ENDS.index(episode.end),
                np.square(values - ahead).mean(),
            )
            self.episodes.append(torch.tensor([facts], dtype=torch.float64, device=self.device))
            steps = np.stack([episode.rewards, values, ahead], 1)
            self.steps.append(torch.from_numpy(steps).to(self.device, torch.float32))

    def compute(self) -> dict[str, Tensor]:
        """Return numbers, and more.

        Returns:
            `return`, the mean over the episodes, `return_iqm`, the mean of their middle half, `return_std`, their
            standard deviation (of these episodes: divided by N), and `length`, the mean of steps; NaN without episodes.
            `episodes` is (N, 6), of `COLUMNS`, by number; `best` and `worst` are (T, 3), of `STEP_COLUMNS`, of the
            episodes of the highest and the lowest return, of equal ones the first.
        """
        given, steps = self.kept("episodes").cpu(), self.kept("steps").cpu()
        lengths = given[:, COLUMNS.index("length")].long()
        begins = lengths.cumsum(0) - lengths
        _, first = np.unique(given[:, 0].numpy(), return_index=True)
        rows = given[torch.from_numpy(first)]
        returns = rows[:, COLUMNS.index("return")]
        if not len(rows):
            undefined = torch.tensor(torch.nan)
            names = ("return", "return_iqm", "return_std", "length")
            return {
                **dict.fromkeys(names, undefined),
                "episodes": rows,
                "best": steps,
                "worst": steps,
            }

        def steps_of(place: Tensor) -> Tensor:
            chosen = int(first[int(place)])
            return steps[begins[chosen] : begins[chosen] + lengths[chosen]]

        return {
            "return": returns.mean().float(),
            "return_iqm": torch.tensor(interquartile_mean(returns.numpy())),
            "return_std": returns.std(correction=0).float(),
            "length": rows[:, COLUMNS.index("length")].mean().float(),
            "episodes": rows,
            "best": steps_of(returns.argmax()),
            "worst": steps_of(returns.argmin()),
        }


class OtherReturns(Gathered):
    """The mean return of episodes that were played a second time, the other way of acting.

    Args:
        name: Of the result, such as `return_sampled`; NaN where none was played.
    """

    returns: list[Tensor]

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.keep("returns", torch.empty(0, 2, dtype=torch.float64))

    def update(self, index: Sequence[int], episodes: Sequence[Episode]) -> None:
        """Take the episodes of a batch and their numbers in the split."""
        rows = [(number, episode.total) for number, episode in zip(index, episodes, strict=True)]
        found = torch.tensor(rows, dtype=torch.float64, device=self.device)
        self.returns.append(found.reshape(-1, 2))

    def compute(self) -> dict[str, Tensor]:
        """Return the mean, by its name."""
        rows = self.kept("returns").cpu().numpy()
        _, first = np.unique(rows[:, 0], return_index=True)
        return {self.name: torch.from_numpy(rows[first, 1]).mean().float()}


def build_metrics(discount: float, other: str) -> dict[str, Metric]:
    """Return the metrics of a split.

    Args:
        discount: The critic's, per step.
        other: The way of acting that the test plays too: `sampled` or `deterministic`.
    """
    return {"episodes": EpisodeMetrics(discount), "other": OtherReturns(f"return_{other}")}


def tables(results: Mapping[str, Tensor]) -> dict[str, list[dict[str, Any]]]:
    """Return `episodes`: a row for each, of `seed`, `return`, `length`, `end` and `value_loss`, the worst first.

    Args:
        results: As `EpisodeMetrics` computes them.
    """
    return {"episodes": [_row(numbers) for numbers in _by_return(results)]}


def typical(results: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the row of the episode of the median return; of an even number, of the lower one in the middle."""
    rows = _by_return(results)
    return _row(rows[(len(rows) - 1) // 2])


def examples(results: Mapping[str, Tensor]) -> list[str]:
    """Return a line on the episode of the lowest, the median and the highest return."""
    rows = [_row(numbers) for numbers in _by_return(results)]
    places = sorted({0, (len(rows) - 1) // 2, len(rows) - 1}) if rows else []
    return [
        f"seed {rows[place]['seed']}: return {rows[place]['return']:,.6g} "
        f"in {counted(rows[place]['length'])}, {rows[place]['end']}"
        for place in places
    ]


def counted(steps: int) -> str:
    """Return a number of steps in words."""
    return "1 step" if steps == 1 else f"{steps:,} steps"


def _by_return(results: Mapping[str, Tensor]) -> list[list[float]]:
    place = COLUMNS.index("return")
    rows: list[list[float]] = results["episodes"].tolist()
    return sorted(rows, key=lambda row: row[place])


_AS: dict[str, Callable[[float], Any]] = {
    "seed": int,
    "return": float,
    "length": int,
    "end": lambda place: ENDS[int(place)],
    "value_loss": float,
}


def _row(numbers: Sequence[float]) -> dict[str, Any]:
    facts = dict(zip(COLUMNS, numbers, strict=True))
    return {name: make(facts[name]) for name, make in _AS.items()}
