"""How predictions are shown, and how much is read before something is predicted."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from resdomains.cli.prediction import render, windows
from resdomains.training import Task

WORDS = [{"word": "yes", "start": 0.5, "end": 0.75}, {"word": "no", "start": 1.0, "end": 1.5}]
RECORDS: list[dict[str, Any]] = [
    {"source": "quiet.wav", "seconds": 2.0, "text": "", "words": []},
    {"source": "a.wav", "seconds": 1.0, "text": "yes no", "words": WORDS},
]


def test_lists_of_mappings_are_left_out_of_a_table() -> None:
    assert render(RECORDS, "table").splitlines() == [
        "source     seconds  text",
        "quiet.wav  2.0000",
        "a.wav      1.0000   yes no",
    ]


def test_lists_of_mappings_stay_in_json_and_csv() -> None:
    assert [json.loads(line) for line in render(RECORDS, "json").splitlines()] == RECORDS
    quiet, spoken = csv.DictReader(io.StringIO(render(RECORDS, "csv")))
    assert json.loads(spoken["words"]) == WORDS
    assert quiet["words"] == ""
    assert list(quiet) == ["source", "seconds", "text", "words"]


def test_rankings_and_lists_of_texts_have_a_place_in_a_table() -> None:
    record = {"source": "1.png", "top": [["cat", 0.75], ["dog", 0.25]], "labels": ["a", "b"]}
    assert render([record], "table").splitlines()[1] == "1.png   cat 0.7500, dog 0.2500  a b"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_long_text_is_cut_but_in_the_last_column_where_it_wraps() -> None:
    long = "word " * 60
    record = {"source": "x" * 70, "text": long, "label": "pos"}
    line = render([record], "table").splitlines()[1]
    assert line.startswith(f"{'x' * 70}  {'word ' * 11}word…  pos")
    last = render([{"source": "a.wav", "text": long}], "table").splitlines()[1:]
    assert sum(line.count("word") for line in last) == 60
    assert max(map(len, last)) <= 100


class Sized:
    """A task whose items are their own sizes."""

    def size(self, item: int) -> int | None:
        return item or None


def taken(sizes: list[int], batch: int) -> list[int]:
    """How many items each window holds."""
    reached: Iterator[int] = iter(sizes)
    return [len(window) for window in windows(cast(Task, Sized()), reached, batch)]


def test_items_of_one_size_are_held_a_batch_at_a_time() -> None:
    assert taken([0] * 10, 4) == [4, 4, 2]


def test_items_that_differ_in_size_are_held_in_many_batches_but_not_more_than_memory_has() -> None:
    assert taken([100] * 450, 4) == [200, 200, 50]
    hour = 3600 * 16000
    assert taken([hour] * 7, 4) == [4, 3]
    assert taken([hour // 60] * 200, 4) == [70, 70, 60]
