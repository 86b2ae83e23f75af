"""Pictures of what is specific to texts, to be read without a caption."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from resdomains.classification.figures import drawable, plain, short

_MANY = 3000
_WIDTH, _LINES = 92, 3


def mistakes(rows: Sequence[Mapping[str, str]], heading: str, title: str) -> Figure:
    """Draw a table of texts that were judged wrongly.

    Args:
        rows: Each with `predicted`, `true`, `text` and `source`.
        heading: What the rows have in common.
        title: What the figure shows.
    """
    cells = [_lines(row["text"][:1000], _WIDTH, _LINES) for row in rows]
    names = [[_lines(row[key], 23, _LINES) for key in ("predicted", "true")] for row in rows]
    line = 0.19  # inches
    heights = [(max(len(c), *map(len, n)) + 1) * line for c, n in zip(cells, names, strict=True)]
    total = sum(heights) + 0.4
    figure = Figure(figsize=(11, total + 0.65))
    axes = figure.add_axes((0.02, 0.02, 0.96, total / (total + 0.65)))
    axes.axis("off")
    axes.set(xlim=(0, 10.56), ylim=(total, 0))
    columns = (0.0, 1.9, 3.8)
    for x, name in zip(columns, ("predicted", "true", "text, and where it stands"), strict=True):
        axes.text(x, 0.28, name, fontsize=9, color="0.4")
    y = 0.4
    for row, text, (predicted, true), height in zip(rows, cells, names, heights, strict=True):
        axes.plot([0, 10.56], [y, y], color="0.85", linewidth=0.8)
        colours = ("firebrick", "black", "black")
        for x, lines, colour in zip(columns, (predicted, true, text), colours, strict=True):
            for number, words in enumerate(lines):
                axes.text(x, y + (number + 0.95) * line, words, fontsize=9, color=colour)
        where, below = short(row["source"], 60), y + height - 0.05
        axes.text(columns[2], below, where, fontsize=7, color="0.5")
        y += height
    figure.suptitle(f"{heading}\n{title}", fontsize=11, y=1 - 0.08 / (total + 0.65), va="top")
    return figure


def _lines(text: str, width: int, most: int) -> list[str]:
    """Wrap, and leave out what does not fit."""
    lines = textwrap.wrap(drawable(text), width) or [""]
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " …"]


def predicted_against_true(pairs: Tensor, title: str) -> Figure:
    """Draw predicted over true numbers; many as a density.

    Args:
        pairs: (2, N): predictions, targets.
        title: What the figure shows.
    """
    predictions, targets = (row.tolist() for row in pairs)
    dense = len(targets) > _MANY
    figure = Figure(figsize=(6.6 if dense else 5.4, 5.8), layout="constrained")
    axes = figure.subplots()
    low, high = float(pairs.min()), float(pairs.max())
    margin = 0.03 * (high - low or 1.0)
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color="0.55", linestyle="--", linewidth=1, zorder=1)
    if dense:
        cells = axes.hexbin(targets, predictions, gridsize=50, bins="log", mincnt=1, cmap="Blues")
        figure.colorbar(cells, ax=axes, shrink=0.8, label="texts")
    else:
        axes.plot(targets, predictions, "o", color="tab:blue", alpha=0.35, markersize=4)
    axes.set(xlim=ends, ylim=ends, xlabel="true number", ylabel="predicted number", aspect="equal")
    axes.text(
        0.97,
        0.03,
        "dashed: predicted as it is",
        transform=axes.transAxes,
        ha="right",
        fontsize=8,
        color="0.4",
    )
    plain(axes)
    figure.suptitle(f"Predicted against true\n{title}", fontsize=11)
    return figure
