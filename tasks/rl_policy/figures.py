"""Pictures of what episodes brought, to be read without a caption."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from resdomains.classification.figures import drawable, plain

from .episodes import ENDS
from .metrics import COLUMNS, STEP_COLUMNS, counted

_BLUE, _ORANGE, _GREEN, _GREY = "tab:blue", "tab:orange", "tab:green", "0.45"
_END_COLOURS = {"terminated": _BLUE, "truncated": _ORANGE, "cut": _GREEN}
_MEANINGS = {
    "terminated": "ended by the environment's rules",
    "truncated": "ended by its time limit",
    "cut": "cut by the evaluation",
}
_BINS = 30


def drawn(
    results: Mapping[str, Tensor],
    title: str,
    random_return: float | None = None,
    reference_return: float | None = None,
) -> dict[str, Figure]:
    """Return all figures of a split; none without episodes.

    Args:
        results: As `EpisodeMetrics` computes them.
        title: What the figures show.
        random_return: What random actions bring, if it is known.
        reference_return: What counts as a score of 1, if there is such a return.
    """
    if not len(results["episodes"]):
        return {}
    return {
        "returns": returns(results, title, random_return, reference_return),
        "lengths": return_over_length(results["episodes"], title),
        "best_and_worst": best_and_worst(results, title),
    }


def returns(
    results: Mapping[str, Tensor],
    title: str,
    random_return: float | None,
    reference_return: float | None,
) -> Figure:
    """Draw how the episodes' returns are distributed, beside what random actions and the reference bring.

    Arguments are those of `drawn`.
    """
    values = _column(results["episodes"], "return")
    mean, middle, spread = (float(results[name]) for name in ("return", "return_iqm", "return_std"))
    figure = Figure(figsize=(8.2, 4.6), layout="constrained")
    axes = figure.subplots()
    known = [value for value in (random_return, reference_return) if value is not None]
    low, high = min([*values, *known]), max([*values, *known])
    margin = 0.04 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    counts, edges = np.histogram(values, _BINS, ends)
    axes.stairs(counts, edges, fill=True, color=_BLUE, alpha=0.55)
    rug = -0.03 * int(counts.max())
    axes.plot(values, [rug] * len(values), "|", color=_BLUE, markersize=8, alpha=0.6)
    for value, name, colour, style in (
        (mean, "mean", "black", "-"),
        (middle, "interquartile mean", _ORANGE, "-"),
        (random_return, "random actions", _GREY, "--"),
        (reference_return, "reference (score 1)", _GREEN, "--"),
    ):
        if value is not None:
            label = f"{name}: {value:,.5g}"
            axes.axvline(value, color=colour, linestyle=style, linewidth=1.8, label=label)
    axes.set(xlim=ends, xlabel="return of an episode", ylabel="episodes", ylim=(2 * rug, None))
    axes.yaxis.set_major_locator(_whole())
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    plain(axes)
    number = "1 episode" if len(values) == 1 else f"{len(values):,} episodes"
    said = f"{number}, mean {mean:,.5g}, standard deviation {spread:,.3g}"
    figure.suptitle(f"What episodes bring: {said}\n{drawable(title)}", fontsize=11)
    return figure


def return_over_length(episodes: Tensor, title: str) -> Figure:
    """Draw each episode's return over its number of steps, and how it ended.

    Args:
        episodes: (N, 6), of `metrics.COLUMNS`.
        title: What the figure shows.
    """
    lengths, values, ended = (_column(episodes, name) for name in ("length", "return", "end"))
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for place, end in enumerate(ENDS):
        of = ended == place
        if of.any():
            axes.plot(
                lengths[of],
                values[of],
                "o",
                color=_END_COLOURS[end],
                alpha=0.5,
                markersize=6,
                label=f"{_MEANINGS[end]}: {int(of.sum()):,}",
            )
    axes.margins(0.06)
    axes.set(xlabel="steps of the episode", ylabel="return")
    axes.xaxis.set_major_locator(_whole())
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    plain(axes)
    figure.suptitle(f"How long episodes last and how they end\n{drawable(title)}", fontsize=11)
    return figure


def best_and_worst(results: Mapping[str, Tensor], title: str) -> Figure:
    """Draw the rewards of the best and of the worst episode, and what the critic expected beside what came.

    Where all episodes bring the same return, the first is drawn.

    Args:
        results: As `EpisodeMetrics` computes them.
        title: What the figure shows.
    """
    brought = _column(results["episodes"], "return")
    differ = bool(brought.min() < brought.max())
    names = ("best", "worst") if differ else ("best",)
    figure = Figure(figsize=(1 + 5 * len(names), 5.8), layout="constrained")
    grid = figure.subplots(2, len(names), sharex="col", sharey="row", squeeze=False)
    for column, name in enumerate(names):
        steps = results[name].double().cpu().numpy()
        rewards, values, came = (steps[:, STEP_COLUMNS.index(of)] for of in STEP_COLUMNS)
        upper, lower = grid[:, column]
        _line(upper, rewards, _BLUE, "reward")
        total = f"{rewards.sum():,.5g} in {counted(len(steps))}"
        which = f"{name} episode" if differ else "the first"
        upper.set_title(f"{which}: return {total}", fontsize=10)
        _line(lower, came, _GREY, "discounted return that came")
        _line(lower, values, _ORANGE, "value that the critic expected")
        error = np.sqrt(np.square(values - came).mean())
        lower.set_title(f"the critic is off by {error:,.3g} (root mean square)", fontsize=10)
        lower.set_xlabel("step")
        lower.xaxis.set_major_locator(_whole())
        for axes in (upper, lower):
            plain(axes)
    grid[0, 0].set_ylabel("reward")
    grid[1, 0].set_ylabel("in the critic's units")
    figure.legend(
        *grid[1, 0].get_legend_handles_labels(),
        frameon=False,
        fontsize=9,
        ncols=2,
        loc="outside lower center",
    )
    heading = "The best and the worst episode" if differ else "All episodes bring the same"
    figure.suptitle(f"{heading}\n{drawable(title)}", fontsize=11)
    return figure


def _whole() -> MaxNLocator:
    """Ticks at whole numbers."""
    return MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])


def _line(axes: Axes, values: np.ndarray, colour: str, label: str) -> None:
    marker = "." if len(values) < 50 else ""
    axes.plot(values, color=colour, label=label, linewidth=1.3, marker=marker)


def _column(episodes: Tensor, name: str) -> np.ndarray:
    return episodes[:, COLUMNS.index(name)].double().cpu().numpy()
