"""One HTML page that shows figures and tables; it opens from disk and needs no network."""

import base64
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

_CAPTIONS = {
    "skill_over_compute": (
        "Skill over compute",
        "Validation skill, (score - chance) / (1 - chance), over training FLOPs: the mean of a domain's best setup "
        "over its seeds, with their range.",
    ),
    "score_over_depth": (
        "Score over depth",
        "Best validation score for each merge (dashed: score on the training data); bars are one standard "
        "deviation over seeds. BranchOnly is the plain network.",
    ),
    "score_by_kind": (
        "Score by merge",
        "Best validation score of networks of one depth (hollow: score on the training data); bars are one standard "
        "deviation over seeds.",
    ),
    "cost_over_depth": (
        "Cost over depth",
        "Peak memory, and training time of a sample; bars are one standard deviation over seeds.",
    ),
    "residual_profile": (
        "What the blocks do",
        "Over relative depth (blocks passed / all blocks): gradient norm of a block's parameters, and norm of the "
        "branch's term over the shortcut's.",
    ),
    "lesions": (
        "Lesions",
        "Score of the trained networks without the branch of one block, and without those of k random blocks: means, "
        "with the range over seeds and draws. A hollow point is a block that changes the shape; "
        "dashed: the score of the whole network.",
    ),
    "score_over_cost": (
        "Score over memory and speed",
        "Means over seeds; the number beside a point is its depth, the line joins setups that no other beats in both.",
    ),
    "training_curves": ("Training curves", "Means over seeds, with their range."),
}


class _Cell(NamedTuple):
    """What a cell shows, the number that it is sorted by, and its spread."""

    text: str
    key: float | None = None
    spread: str = ""


def write_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as PNG and SVG, and remove those that an earlier comparison drew and this one did not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _CAPTIONS.keys() - figures.keys():
        for suffix in (".png", ".svg"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=150)
        (folder / f"{name}.svg").write_bytes(_svg(figure))


def page(
    title: str,
    figures: Mapping[str, Figure],
    runs: pd.DataFrame,
    seeds: pd.DataFrame,
    left_out: Iterable[str],
    command: str,
) -> str:
    """Return the page.

    Args:
        title: What was compared.
        figures: By name.
        runs: What `run_table` gives.
        seeds: What `seed_table` gives.
        left_out: A line for each run that could not be read.
        command: What made it.
    """
    environment = Environment(
        loader=PackageLoader("resdomains.comparing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    domains = runs["task"].nunique()
    shown = [
        {
            "name": name,
            "title": _CAPTIONS[name][0],
            "caption": _CAPTIONS[name][1],
            "svg": base64.b64encode(_svg(figure)).decode(),
        }
        for name, figure in figures.items()
    ]
    tables = [
        _table(
            "seeds",
            "Setups",
            "A row for each setup that finished: means over its seeds, ± one standard deviation. Nothing is averaged "
            "over different data.",
            seeds,
        ),
        _table("runs", "Runs", "A row for each run.", runs.drop(columns=["setup", "run_id"])),
    ]
    return environment.get_template("report.html.jinja").render(
        title=title,
        command=command,
        counts=f"{len(runs)} runs of {domains} task{'s' * (domains != 1)}, {len(seeds)} finished setups.",
        figures=shown,
        tables=tables,
        left_out=list(left_out),
    )


def _svg(figure: Figure) -> bytes:
    file = io.BytesIO()
    # Without a date, the same runs give the same bytes.
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _table(name: str, title: str, note: str, frame: pd.DataFrame) -> dict[str, Any]:
    columns = [
        column
        for column in frame
        if not str(column).endswith("_sd") and frame[column].notna().any()
    ]
    return {
        "name": name,
        "title": title,
        "note": note,
        "columns": [
            {"name": str(column).replace("_", " "), "number": _is_number(frame[column])}
            for column in columns
        ],
        "rows": [[_cell(row, column) for column in columns] for _, row in frame.iterrows()],
    }


def _is_number(column: "pd.Series[Any]") -> bool:
    return all(isinstance(value, int | float) for value in column.dropna())


def _cell(row: "pd.Series[Any]", column: str) -> _Cell:
    value = row[column]
    if value is None or value != value:
        return _Cell("")
    if isinstance(value, int | float):
        spread = row.get(f"{column}_sd")
        known = spread is not None and not math.isnan(spread)
        return _Cell(number(value), float(value), number(spread) if known else "")
    return _Cell(str(value))


def number(value: float) -> str:
    """Return a number as a table shows it: whole ones with separators, others with four figures."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
