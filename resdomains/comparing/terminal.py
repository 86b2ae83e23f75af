"""The means over seeds as a table for the terminal."""

import pandas as pd
from rich.table import Table

from resdomains.comparing.page import number

# What a line of some 100 characters holds; the page and the CSV have all.
_SHOWN = (
    *("task", "config", "merge", "depth", "seeds"),
    *("train_score", "best_score", "test_score", "seconds"),
)


def terminal_table(seeds: pd.DataFrame) -> Table:
    """Return the most important columns of `seed_table`, those that hold anything."""
    table = Table(show_edge=False, pad_edge=False)
    columns = [name for name in _SHOWN if seeds[name].notna().any()]
    for name in columns:
        text = seeds[name].map(lambda value: isinstance(value, str)).any()
        # A name gives way first where the terminal is narrow, a number never.
        table.add_column(
            name.replace("_", " "),
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
        )
    for _, row in seeds.iterrows():
        table.add_row(*(_cell(row, name) for name in columns))
    return table


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
