"""A run counts once, whole, however many pieces it was read in."""

import pytest

from resdomains.comparing import joined
from tests.resdomains.comparing.recorded import record, rows


def test_a_run_that_is_found_twice_counts_once() -> None:
    assert len(joined([record(), record()])) == 1


def test_runs_of_other_ids_are_others() -> None:
    assert len(joined([record("one"), record("two")])) == 2


def test_fragments_of_one_id_are_joined_and_the_later_one_counts() -> None:
    first = record(rows=rows(4), status="running")
    again = [{**row, "train/loss": 7.0} for row in rows(3, begin=3)]
    [run] = joined([record(rows=again), first])
    assert list(run.history["step"]) == [1, 2, 3, 4, 5]
    assert list(run.history["train/loss"]) == [2.0, 1.0, 7.0, 7.0, 7.0]
    assert run.result["status"] == "finished"


def test_a_run_that_went_on_takes_its_beginning_along() -> None:
    first = record("first", rows=rows(3), status="terminated")
    rest = record("rest", rows=rows(2, begin=3), continues="first")
    [run] = joined([first, rest])
    assert run.run_id == "rest"
    assert list(run.history["step"]) == [1, 2, 3, 4]


def test_a_finished_run_stays_one_of_its_own_where_another_went_on_from_it() -> None:
    first = record("first", rows=rows(3))
    rest = record("rest", rows=rows(2, begin=4), continues="first")
    found = {run.run_id: len(run.history) for run in joined([first, rest])}
    assert found == {"first": 3, "rest": 5}


def test_runs_that_claim_to_continue_each_other_end() -> None:
    found = joined([record("one", continues="two"), record("two", continues="one")])
    assert {run.run_id for run in found} <= {"one", "two"}
    assert found


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_record_with_more_rows_counts(order: tuple[int, int]) -> None:
    records = [record(rows=rows(5)), record(rows=rows(3), status="running")]
    [run] = joined([records[i] for i in order])
    assert len(run.history) == 5
    assert run.result["status"] == "finished"
