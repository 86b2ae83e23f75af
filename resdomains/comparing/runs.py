"""What a finished, stopped or running run says of itself, wherever it was read from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

STEP = "step"


class UnreadableRun(ValueError):
    """A run that cannot be read.

    Args:
        source: Where it lies.
        reason: What is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run.

    Args:
        source: Where it was read: a folder, a file of W&B's, or a W&B path.
        run_id: The id that the run was given when it began.
        continues: Id of the run from whose checkpoint it went on, if any.
        facts: What ran: `resdomains.training.run_facts`.
        result: How it ended, as in `summary.json`; empty for a run that was killed or goes on.
        history: A row for each record, in order, with the optimizer step as `step`.
        profile: The table `residual/profile` of its probes, with a row for each block; empty without probes.
        removal: The table `residual/removal` of its lesions, with a row for each draw of random blocks; empty without.

    Raises:
        UnreadableRun: If the best results are no mapping, or records have no step.
    """

    source: str
    run_id: str
    continues: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    profile: pd.DataFrame = field(default_factory=pd.DataFrame)
    removal: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        if not isinstance(self.result.get("best") or {}, Mapping):
            raise UnreadableRun(self.source, "its best results are damaged")
        if not self.history.empty and STEP not in self.history:
            raise UnreadableRun(self.source, f"its records are damaged: they have no {STEP}")

    def last(self, name: str) -> float | None:
        """Return the newest value of a logged name, None if it was never logged."""
        values = self.values(name)
        return None if values.empty else float(values.iloc[-1])

    def first(self, name: str) -> float | None:
        """Return the oldest value of a logged name, None if it was never logged."""
        values = self.values(name)
        return None if values.empty else float(values.iloc[0])

    def highest(self, name: str) -> float | None:
        """Return the highest value of a logged name, None if it was never logged."""
        values = self.values(name)
        return None if values.empty else float(values.max())

    def values(self, name: str) -> "pd.Series[float]":
        """Return all values of a logged name."""
        if name not in self.history:
            return pd.Series(dtype=float)
        return self.history[name].dropna()


def joined(runs: Iterable[RecordedRun]) -> list[RecordedRun]:
    """Return each run once and whole.

    Fragments of one id are one run: a later one replaces the rows from its first step on. A run that went on from
    another's checkpoint takes over the rows before its own; the other is then no run of its own unless it finished.
    Of a run that was read from several places, the record with the most rows counts.
    """
    found: dict[str, RecordedRun] = {}
    for run in runs:
        other = found.get(run.run_id)
        found[run.run_id] = run if other is None else _one(other, run)
    whole = {run_id: _with_beginning(run, found, {run_id}) for run_id, run in found.items()}
    continued = {run.continues for run in found.values()}
    return [
        run
        for run_id, run in whole.items()
        if run_id not in continued or run.result.get("status") == "finished"
    ]


def _one(first: RecordedRun, second: RecordedRun) -> RecordedRun:
    """Two records of one id: the same rows read twice, or a fragment and the one that went on from it."""
    steps = [set(run.history[STEP]) if STEP in run.history else set() for run in (first, second)]
    if steps[0] >= steps[1] and first.result:
        return first
    if steps[1] >= steps[0] and (second.result or not first.result):
        return second
    earlier, later = sorted((first, second), key=lambda run: _begin(run.history))
    return _append(earlier, later)


def _with_beginning(
    run: RecordedRun, found: Mapping[str, RecordedRun], seen: set[str]
) -> RecordedRun:
    before = found.get(run.continues or "")
    if before is None or before.run_id in seen:
        return run
    return _append(_with_beginning(before, found, seen | {before.run_id}), run)


def _append(earlier: RecordedRun, later: RecordedRun) -> RecordedRun:
    if earlier.history.empty or later.history.empty:
        history = later.history if earlier.history.empty else earlier.history
    else:
        kept = earlier.history[earlier.history[STEP] < _begin(later.history)]
        history = pd.concat([kept, later.history], ignore_index=True)
    return replace(later, history=history)


def _begin(history: pd.DataFrame) -> float:
    return float("inf") if history.empty else float(history[STEP].min())
