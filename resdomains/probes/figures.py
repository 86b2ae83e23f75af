"""Pictures of what probes found, each readable without a caption."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from resdomains.probes.blocks import Block
from resdomains.probes.probe import Columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_DEPTH = "relative depth: blocks passed / all {count} blocks"
_TIMES = ("tab:blue", "tab:orange", "tab:red")


def _axes(count: int, width: float = 5.5) -> "tuple[Figure, list[Axes]]":
    figure = Figure(figsize=(width * count, 4.2), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        one.grid(alpha=0.3)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _over_depth(axes: "Axes", blocks: Sequence[Block], values: Sequence[Any], **style: Any) -> None:
    points = [
        (b.relative_depth, v)
        for b, v in zip(blocks, values, strict=True)
        if v is not None and v == v
    ]
    few = len(points) <= 60
    style = {"marker": "o" if few else "", "markersize": 4, **style}
    axes.plot([x for x, _ in points], [y for _, y in points], **style)
    axes.set(xlabel=_DEPTH.format(count=len(blocks)), xlim=(0, 1.03))


def _scale(axes: "Axes", values: Sequence[Any]) -> None:
    """A logarithmic scale for values that differ by more than a factor of ten, else one from zero."""
    known = [v for v in values if v is not None and v > 0]
    if not known:
        return
    if max(known) > 10 * min(known):
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.08 * max(known))


def _reference(axes: "Axes", value: float, label: str) -> None:
    """A dashed line, where it lies within what is shown."""
    low, high = axes.get_ylim()
    if low <= value <= high:
        axes.axhline(value, color="0.4", linestyle="--", linewidth=1, label=label)
        axes.legend(frameon=False)


def gradients(
    blocks: Sequence[Block], history: Sequence[tuple[int, Sequence[float]]], trained: bool
) -> Figure:
    """Draw the gradient norm over depth at up to three times, and first / last over time.

    Args:
        blocks: The network's blocks.
        history: Optimizer steps and norms of each measurement.
        trained: Whether this is one measurement of a finished run, so that there is no time to show.
    """
    figure, panels = _axes(1 if trained or len(history) < 2 else 2)
    chosen = sorted({0, len(history) // 2, len(history) - 1})
    for place, colour in zip(chosen, _TIMES, strict=False):
        step, norms = history[place]
        label = (
            "finished run" if trained else f"after {step:,} steps" if step else "before training"
        )
        _over_depth(panels[0], blocks, norms, color=colour, label=label)
    _scale(panels[0], [norm for place in chosen for norm in history[place][1]])
    panels[0].set(
        title="Gradient of each block", ylabel="gradient norm of the block's parameters, L2"
    )
    panels[0].legend(frameon=False)
    if len(panels) > 1:
        ratios = [(step, n[0] / n[-1]) for step, n in history if n[-1] > 0]
        panels[1].plot([s for s, _ in ratios], [r for _, r in ratios], color="tab:blue")
        _scale(panels[1], [r for _, r in ratios])
        _reference(panels[1], 1.0, "even")
        panels[1].set(
            title="Gradient, first block over last",
            xlabel="optimizer steps",
            ylabel="ratio of gradient norms",
        )
        panels[1].xaxis.set_major_locator(MaxNLocator(6))
        panels[1].xaxis.set_major_formatter(EngFormatter())
    return figure


def contribution(blocks: Sequence[Block], columns: Columns) -> Figure:
    """Draw branch over shortcut, and the response's standard deviation, over depth."""
    ratios, deviations = columns["contribution"], columns["response_std"]
    if all(ratio is None for ratio in ratios):
        figure, [right] = _axes(1)
    else:
        figure, [left, right] = _axes(2)
        _over_depth(left, blocks, ratios, color="tab:blue")
        _scale(left, ratios)
        _reference(left, 1.0, "branch as large as shortcut")
        left.set(
            title="What each branch adds to its shortcut",
            ylabel="norm of branch / norm of shortcut",
        )
    _over_depth(right, blocks, deviations, color="tab:blue")
    _scale(right, deviations)
    right.set(title="Response of each branch", ylabel="standard deviation of the branch's output")
    return figure


def gain(blocks: Sequence[Block], columns: Columns) -> Figure:
    """Draw the composite gain over depth."""
    figure, [axes] = _axes(1, 7)
    _over_depth(axes, blocks, columns["gain"], color="tab:blue")
    _scale(axes, columns["gain"])
    _reference(axes, 1.0, "identity")
    axes.set(
        title="What reaches the output of a change at each depth",
        ylabel="gain: RMS change at the output\nper RMS change after the block",
    )
    return figure


def lesion(
    blocks: Sequence[Block],
    columns: Columns,
    baseline: float,
    chance: float | None,
    removals: Mapping[int, tuple[float, float, float]],
) -> Figure:
    """Draw the score without each block, and without k random ones.

    Args:
        blocks: The network's blocks.
        columns: The score without each block, and what its lesion is.
        baseline: The score of the whole network.
        chance: The score of guessing.
        removals: For each number of removed blocks the mean, lowest and highest score.
    """
    figure, panels = _axes(2 if removals else 1)
    scores, kinds = columns["score_without"], columns["lesion"]
    _over_depth(panels[0], blocks, scores, color="0.7", marker="", linewidth=1)
    for kind, marker, colour, label in (
        ("keeps the shape", "o", "tab:blue", "block removed"),
        ("changes the shape", "D", "tab:orange", "branch of a shape-changing block removed"),
    ):
        chosen = [score if k == kind else None for score, k in zip(scores, kinds, strict=True)]
        if any(score is not None for score in chosen):
            style = {"color": colour, "marker": marker, "markersize": 5, "linestyle": ""}
            _over_depth(panels[0], blocks, chosen, **style, label=label)
    impossible = [
        b.relative_depth for b, k in zip(blocks, kinds, strict=True) if k == "no shortcut"
    ]
    if impossible:
        # On the axis, since there is no score that they could stand at.
        panels[0].plot(
            impossible,
            [0.0] * len(impossible),
            "x",
            color="tab:red",
            transform=panels[0].get_xaxis_transform(),
            clip_on=False,
            label="no shortcut: cannot be removed, no score",
        )
    panels[0].set(title="Score without one block")
    if removals:
        ks = list(removals)
        means, lows, highs = zip(*removals.values(), strict=True)
        panels[1].fill_between(ks, lows, highs, color="tab:blue", alpha=0.2, label="all draws")
        panels[1].plot([0, *ks], [baseline, *means], "o-", color="tab:blue", label="mean")
        keeping = sum(kind == "keeps the shape" for kind in kinds)
        panels[1].set(
            title="Score without k random blocks",
            xlabel=f"blocks removed, of {keeping} that keep the shape",
        )
        panels[1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for axes in panels:
        axes.axhline(baseline, color="0.3", linestyle="--", linewidth=1, label="whole network")
        if chance is not None:
            axes.axhline(chance, color="0.3", linestyle=":", linewidth=1, label="guessing")
        axes.set(ylabel="validation score", ylim=(-0.02, 1.02))
        axes.legend(frameon=False, fontsize="small")
    return figure
