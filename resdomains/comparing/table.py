"""One table of all runs, a row each, and one of their means over seeds."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from resdomains import schema
from resdomains.comparing.runs import RecordedRun

# What makes two runs repetitions of each other, all but the seed.
IDENTITY = (
    "task",
    "config",
    "data",
    "network",
    "merge",
    "coupling",
    "memory",
    "depth",
    "parameters",
    "setup",
)
# What is averaged over repetitions.
OUTCOMES = (
    "best_score",
    "best_skill",
    "last_score",
    "last_skill",
    "train_score",
    "test_score",
    "test_skill",
    "samples",
    "flops",
    "seconds",
    "samples_per_second",
    "peak_memory_mib",
    "first_gradient_ratio",
    "last_gradient_ratio",
    "contribution_mean",
)


def run_table(runs: Iterable[RecordedRun]) -> pd.DataFrame:
    """Return a row for each run: what ran, how well, at what cost.

    Columns: `run`, `run_id`, `status`, what ran (`task`, `config`, `data`, `network`, `merge`, `coupling`, `memory`,
    `depth`, `parameters`, `seed`, `setup`), `best_score`, `best_skill`, `last_score`, `last_skill` (validation),
    `train_score` (of `TrainScore`), `test_score`, `test_skill`, `samples`, `flops`, `seconds` of training,
    `samples_per_second`, `peak_memory_mib`; of probes `first_gradient_ratio`, `last_gradient_ratio`,
    `contribution_mean`; and `source`. What a run does not have is missing, never zero.
    """
    columns = ["run", "run_id", "status", *IDENTITY, "seed", *OUTCOMES, "source"]
    return pd.DataFrame([_row(run) for run in runs], columns=columns)


def _row(run: RecordedRun) -> dict[str, Any]:
    result = run.result
    best = result.get("best") or {}
    return {
        **{name: run.facts.get(name) for name in (*IDENTITY, "seed")},
        "run": f"{run.facts.get('task')}/{run.facts.get('config')}/{run.run_id}",
        "run_id": run.run_id,
        # Of a run that was killed nobody wrote how it ended.
        "status": result.get("status", "unfinished"),
        "best_score": _first(best.get(schema.VAL_SCORE), run.highest(schema.VAL_SCORE)),
        "best_skill": _first(best.get(schema.VAL_SKILL), run.highest(schema.VAL_SKILL)),
        "last_score": run.last(schema.VAL_SCORE),
        "last_skill": run.last(schema.VAL_SKILL),
        "train_score": run.last(schema.key("train", schema.SCORE)),
        "test_score": run.last(schema.key("test", schema.SCORE)),
        "test_skill": run.last(schema.key("test", schema.SKILL)),
        "samples": _first(result.get("samples"), run.last(schema.SAMPLES)),
        "flops": _first(result.get("flops"), run.last(schema.FLOPS)),
        "seconds": _first(result.get("seconds"), run.last(schema.SECONDS)),
        "samples_per_second": _speed(run),
        "peak_memory_mib": _first(result.get("peak_memory_mib"), run.highest(schema.PEAK_MEMORY)),
        "first_gradient_ratio": run.first(schema.GRAD_RATIO),
        "last_gradient_ratio": run.last(schema.GRAD_RATIO),
        "contribution_mean": run.last(schema.CONTRIBUTION_MEAN),
        "source": run.source,
    }


def differing(rows: pd.DataFrame) -> list[str]:
    """Return which of network, coupling and memory differ among the runs of any one domain.

    Args:
        rows: Of `run_table` or `seed_table`.
    """
    domains = rows.groupby(["task", "config"])
    return [
        name for name in ("network", "coupling", "memory") if (domains[name].nunique() > 1).any()
    ]


def _sortable(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """The column with a value in place of each missing one."""
    return column if pd.api.types.is_numeric_dtype(column) else column.map(str)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _speed(run: RecordedRun) -> float | None:
    """Samples per second of training steps: the median of what was logged."""
    values = run.values(schema.SAMPLES_PER_SECOND)
    return None if values.empty else float(values.median())


def seed_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each setup, sorted by what ran: the mean over its seeds, their standard deviation and number.

    Runs are repetitions of each other if they are equal in all but the seed, their data's settings and number of
    samples included; nothing is averaged over different data. Runs that did not finish are left out. A seed that ran
    twice counts once, by its last run.

    Args:
        runs: What `run_table` gives.
    """
    finished = runs[runs["status"] == "finished"]
    alone = finished["setup"].where(finished["setup"].notna(), finished["run_id"])
    keys = [*IDENTITY[:-1]]
    rows = []
    for (_, *identity), group in finished.groupby([alone, *keys], dropna=False, sort=False):
        seeds = group.drop_duplicates("seed", keep="last")
        row: dict[str, Any] = {**dict(zip(keys, identity, strict=True)), "seeds": len(seeds)}
        for name in OUTCOMES:
            values = pd.to_numeric(seeds[name])
            row[name] = values.mean()
            row[f"{name}_sd"] = values.std()  # of one seed: missing
        rows.append(row)
    outcomes = [column for name in OUTCOMES for column in (name, f"{name}_sd")]
    table = pd.DataFrame(rows, columns=[*keys, "seeds", *outcomes])
    return table.sort_values(keys, key=_sortable, kind="stable", ignore_index=True)
