"""The means over seeds as a table for the terminal."""

import pandas as pd
from rich.table import Table

from resdomains.comparing.page import number
from resdomains.comparing.table import differing

# The most important ones, from left to right; the page and the CSV have all.
_WHAT = ("task", "config", "network", "merge", "coupling", "memory", "depth")
_HOW = ("seeds", "train_score", "best_score", "test_score", "peak_memory_mib", "seconds")
# What goes first where a terminal is narrow.
_LEAST = ("peak_memory_mib", "seconds", "test_score", "train_score", "network", "seeds")


def terminal_table(seeds: pd.DataFrame, width: int) -> Table:
    """Return the most important columns of `seed_table` that hold anything, as many as fit.

    Args:
        seeds: The table.
        width: How many characters a line holds.
    """
    telling = {"task", "config", "merge", "depth", *differing(seeds)}
    shown = [*(name for name in _WHAT if name in telling), *_HOW]
    columns = {
        name: [_cell(row, name) for _, row in seeds.iterrows()]
        for name in shown
        if seeds[name].notna().any()
    }
    for name in _LEAST:
        if _width(columns) > width:
            columns.pop(name, None)
    table = Table(show_edge=False, pad_edge=False)
    for name, cells in columns.items():
        text = seeds[name].map(lambda value: isinstance(value, str)).any()
        # A name gives way where even so it is too narrow, a number never.
        table.add_column(
            _title(name),
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
            min_width=min(8, max(map(len, cells))) if text else None,
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _width(columns: dict[str, list[str]]) -> int:
    """Of a table with these cells, and three characters between two columns."""
    return sum(max(len(_title(name)), *map(len, cells)) + 3 for name, cells in columns.items()) - 3


def _title(name: str) -> str:
    return name.replace("_mib", ", MiB").replace("_", " ")


def _cell(row: "pd.Series[float]", name: str) -> str:
    value = row[name]
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if "score" not in name and "skill" not in name:
        return number(value)
    spread = row[f"{name}_sd"]
    return f"{value:.4f}" + (f" ± {spread:.4f}" if spread == spread else "")
