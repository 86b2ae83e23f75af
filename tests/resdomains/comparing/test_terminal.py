"""The table on a terminal holds what its width allows, and what sets its rows apart."""

import io

import pandas as pd
import pytest
from rich.console import Console

from resdomains.comparing import run_table, seed_table, terminal_table
from tests.resdomains.comparing.recorded import record


def shown(seeds: pd.DataFrame, width: int) -> list[list[str]]:
    """The cells of each line; each line fits, or the console would have broken it."""
    out = io.StringIO()
    Console(file=out, width=width).print(terminal_table(seeds, width))
    lines = out.getvalue().splitlines()
    return [[cell.strip() for cell in line.replace("┃", "│").split("│")] for line in lines]


@pytest.fixture
def seeds() -> pd.DataFrame:
    runs = [
        record(
            f"{memory}{depth}{seed}",
            memory=memory,
            depth=depth,
            seed=seed,
            setup=f"{memory}{depth}",
        )
        for memory in ("Store", "Reverse")
        for depth in (110, 20)
        for seed in (0, 1)
    ]
    return seed_table(run_table(runs))


def test_rows_are_sorted_and_told_apart_by_what_differs(seeds: pd.DataFrame) -> None:
    names, _, *lines = shown(seeds, 200)
    assert names[:5] == ["task", "config", "merge", "memory", "depth"]
    assert "coupling" not in names
    assert [line[3:5] for line in lines] == [
        ["Reverse", "20"],
        ["Reverse", "110"],
        ["Store", "20"],
        ["Store", "110"],
    ]


def test_a_narrow_terminal_shows_what_matters_whole(seeds: pd.DataFrame) -> None:
    names, _, *lines = shown(seeds, 80)
    assert names == ["task", "config", "merge", "memory", "depth", "best score"]
    assert lines[0][0] == "image_classification"
    assert lines[0][-1] == "0.9000 ± 0.0000"


def test_nothing_is_an_empty_table() -> None:
    assert terminal_table(seed_table(run_table([])), 80).row_count == 0
