"""One row a run, one row a setup; nothing is averaged that differs in more than its seed."""

import pandas as pd
import pytest

from resdomains.comparing import run_table, seed_table
from tests.resdomains.comparing.recorded import record, rows


def test_a_row_says_what_ran_and_how_well() -> None:
    row = run_table([record(rows=rows(5, best=0.8))]).iloc[0]
    assert row["task"] == "image_classification"
    assert row["merge"] == "Add"
    assert row["best_score"] == pytest.approx(0.8)
    assert row["last_score"] == pytest.approx(0.8)
    assert row["samples"] == 5 * 64
    assert row["samples_per_second"] == 103.0
    assert row["first_gradient_ratio"] == 1.0
    assert row["last_gradient_ratio"] == pytest.approx(0.2)
    assert pd.isna(row["test_score"])


def test_a_killed_run_has_what_it_logged() -> None:
    row = run_table([record(rows=rows(4, best=0.8), status="running")]).iloc[0]
    assert row["status"] == "unfinished"
    assert row["best_score"] == pytest.approx(0.6)
    assert row["samples"] == 4 * 64


def test_seeds_are_averaged_with_their_spread_and_number() -> None:
    runs = [record(f"run{s}", seed=s, rows=rows(5, best=b)) for s, b in enumerate((0.7, 0.8, 0.9))]
    [row] = seed_table(run_table(runs)).to_dict("records")
    assert row["seeds"] == 3
    assert row["best_score"] == pytest.approx(0.8)
    assert row["best_score_sd"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "change", [{"setup": "other"}, {"depth": 20}, {"merge": "Highway"}, {"data": "Cifar"}]
)
def test_what_differs_in_more_than_the_seed_is_not_averaged(change: dict[str, object]) -> None:
    runs = [record("one", seed=0), record("two", seed=1, **change)]
    assert list(seed_table(run_table(runs))["seeds"]) == [1, 1]


def test_runs_without_a_setup_stand_alone() -> None:
    runs = [record("one", seed=0, setup=None), record("two", seed=1, setup=None)]
    assert list(seed_table(run_table(runs))["seeds"]) == [1, 1]


def test_a_seed_that_ran_twice_counts_once_and_unfinished_runs_never() -> None:
    runs = [
        record("one", seed=0, rows=rows(5, best=0.5)),
        record("two", seed=0, rows=rows(5, best=0.7)),
        record("three", seed=1, status="failed"),
    ]
    [row] = seed_table(run_table(runs)).to_dict("records")
    assert row["seeds"] == 1
    assert row["best_score"] == pytest.approx(0.7)
    assert pd.isna(row["best_score_sd"])


def test_tables_without_runs_have_their_columns() -> None:
    empty = run_table([])
    assert {"task", "best_score"} <= set(empty)
    assert {"seeds", "best_score_sd"} <= set(seed_table(empty))
