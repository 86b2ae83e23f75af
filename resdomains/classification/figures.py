"""Pictures of what a classifier gets right and wrong, to be read without a caption."""

from collections.abc import Sequence
from functools import cache

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from resdomains.classification.labels import Labels
from resdomains.classification.metrics import best_threshold, f1_at, precision_recall_f1

_MATRIX_UP_TO = 30
_PAIRS = 25
_FEW = 10
_BLUE, _ORANGE, _GREEN, _GREY = "tab:blue", "tab:orange", "tab:green", "0.55"
_POINTS = 2000


def confusion(counts: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Draw the confusion matrix; of more than 30 classes, the pairs that are confused most.

    Args:
        counts: (K, K), rows are true classes.
        classes: Class names.
        title: What the figure shows.
    """
    if len(classes) > _MATRIX_UP_TO:
        return _confused_pairs(counts, classes, title)
    count = len(classes)
    side = max(4.5, 0.55 * count + 1.5)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    # Square-root shading: a class that is confused in 1 % of its samples should still show.
    image = axes.imshow(share.sqrt().numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    for i in range(count):
        for j in range(count):
            number = int(counts[i, j])
            if number:
                axes.text(
                    j,
                    i,
                    f"{number:,}",
                    ha="center",
                    va="center",
                    fontsize=9 if number < 10_000 else 7,
                    color="white" if share[i, j] > 0.3 else "black",
                    fontweight="bold" if i == j else "normal",
                )
    names = [short(name) for name in classes]
    slanted = max(len(name) for name in names) > 3
    axes.set_xticks(
        range(count), names, rotation=45 if slanted else 0, ha="right" if slanted else "center"
    )
    axes.set_yticks(range(count), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"Which classes are confused\n{title}", fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(
        image, ax=axes, shrink=0.7, ticks=[s**0.5 for s in (0, 0.01, 0.05, 0.2, 0.5, 1)]
    )
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return figure


def _confused_pairs(counts: Tensor, classes: Sequence[str], title: str) -> Figure:
    wrong = counts.clone().fill_diagonal_(0)
    numbers, places = wrong.flatten().topk(min(_PAIRS, wrong.numel()))
    pairs = [
        (int(n), int(p) // len(classes), int(p) % len(classes))
        for n, p in zip(numbers, places, strict=True)
        if n
    ]
    figure = Figure(figsize=(8, 1.6 + 0.26 * max(len(pairs), 1)), layout="constrained")
    axes = figure.subplots()
    of_class = counts.sum(1)
    for y, (number, true, _) in enumerate(pairs):
        axes.barh(y, number, color=_BLUE)
        axes.text(number, y, f" {number} of {int(of_class[true])}", va="center", fontsize=8)
    axes.set_yticks(
        range(len(pairs)),
        [f"{short(classes[t], 24)} → {short(classes[p], 24)}" for _, t, p in pairs],
        fontsize=8,
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.set(xlabel="samples of the first class that were taken for the second")
    plain(axes, bars=True)
    figure.suptitle(f"The pairs of classes that are confused most\n{title}", fontsize=11)
    return figure


def reliability(sums: Tensor, error: float, title: str) -> Figure:
    """Draw how often predictions of each confidence are right, and how many there are.

    Args:
        sums: (3, bins): samples, the sums of their confidences, and the right answers among them.
        error: The expected calibration error.
        title: What the figure shows.
    """
    figure = Figure(figsize=(5.2, 5.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    count, confidence, correct = sums.double()
    filled = count > 0
    x, y = (confidence / count)[filled].tolist(), (correct / count)[filled].tolist()
    bins = sums.shape[1]
    edges = [i / bins for i in range(bins)]
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    upper.text(0.03, 0.97, "right more often than it says", va="top", fontsize=8, color="0.4")
    upper.text(0.97, 0.03, "right less often than it says", ha="right", fontsize=8, color="0.4")
    many = (count >= _FEW)[filled].tolist()
    for a, b, solid in zip(x, y, many, strict=True):
        upper.plot([a, a], [a, b], color=_ORANGE, linewidth=3, alpha=0.5 if solid else 0.2)
        upper.plot(
            a, b, "o", color=_BLUE, markersize=6, markerfacecolor=_BLUE if solid else "white"
        )
    if not all(many):
        upper.text(
            0.97,
            0.09,
            f"hollow: fewer than {_FEW} predictions",
            ha="right",
            fontsize=8,
            color="0.4",
        )
    upper.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    upper.set_title(
        f"Is its confidence deserved? Calibration error {error:.3f}\n{title}", fontsize=11
    )
    lower.bar(
        edges,
        count.tolist(),
        width=1 / bins,
        align="edge",
        color=_BLUE,
        edgecolor="white",
        linewidth=0.5,
    )
    lower.set_yscale("symlog", linthresh=10)
    lower.set(xlabel="confidence of the prediction", ylabel="predictions")
    for axes in (upper, lower):
        plain(axes)
    return figure


def average_precision(scores: Tensor, labels: Labels, title: str) -> Figure:
    """Draw each label's average precision beside what a random order reaches.

    Args:
        scores: (K,), NaN for a label that no sample has.
        labels: Names and prevalence.
        title: What the figure shows.
    """
    order = torch.argsort(torch.nan_to_num(scores, nan=-1.0), descending=True).tolist()
    shown = order if len(order) <= 2 * _PAIRS else order[:_PAIRS] + order[-_PAIRS:]
    prevalence = labels.prevalence or [0.0] * len(labels.classes)
    figure = Figure(figsize=(7, 1.8 + 0.26 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for y, k in enumerate(shown):
        score = float(scores[k])
        known = score == score
        axes.barh(y, score if known else 0.0, color=_BLUE)
        axes.plot([prevalence[k]] * 2, [y - 0.4, y + 0.4], color=_ORANGE, linewidth=2)
        said = f" {score:.2f}" if known else " no sample has it"
        axes.text(score if known else 0.0, y, said, va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [short(labels.classes[k], 24) for k in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.08), xlabel="average precision (orange: what a random order reaches)")
    some = "" if shown == order else f" (the best and the worst {_PAIRS})"
    figure.suptitle(f"How well each label is found{some}\n{title}", fontsize=11)
    plain(axes, bars=True)
    return figure


def f1_over_threshold(curve: Tensor, threshold: float, what: str, title: str) -> Figure:
    """Draw F1 over the threshold, and mark the one in use, 0.5, and the best if it is another.

    Args:
        curve: (2, M): thresholds, falling, and F1, as `F1Curve` computes them.
        threshold: The one in use.
        what: What the probability is of, such as a class name.
        title: What the figure shows.
    """
    curve = curve.double().cpu()
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    step = -(-curve.shape[1] // _POINTS)
    xs, ys = curve[0, ::step].tolist(), curve[1, ::step].tolist()
    axes.plot([*xs, 0.0], [*ys, float(curve[1, -1])], color=_BLUE, drawstyle="steps-post")
    best = float(best_threshold(curve))
    marks = [(threshold, "in use", "o", _ORANGE), (0.5, "one half", "s", _GREY)]
    if abs(best - threshold) > 1e-6:
        marks.append((best, "best of this split", "D", _GREEN))
    for x, name, marker, colour in marks:
        y = float(f1_at(curve, torch.tensor(x, dtype=torch.float64)))
        label = f"{name}: threshold {x:.3g}, F1 {y:.3f}"
        axes.plot(x, y, marker, color=colour, label=label, markersize=7, linestyle="none")
    axes.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="F1")
    axes.set_xlabel(f"threshold on the probability of {short(what, 40)}")
    axes.legend(frameon=False, loc="lower center", fontsize=9)
    plain(axes)
    figure.suptitle(f"Where to put the threshold\n{title}", fontsize=11)
    return figure


def per_class(outcomes: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Draw each class's F1 as a bar, with precision and recall as marks, the best class first.

    Args:
        outcomes: (3, K) counts of found, named in error and missed, as `Outcomes` computes them.
        classes: Class names.
        title: What the figure shows.
    """
    precision, recall, f1 = precision_recall_f1(outcomes).tolist()
    support = (outcomes[0] + outcomes[2]).tolist()
    order = sorted(range(len(classes)), key=lambda k: -f1[k])
    shown = order if len(order) <= 2 * _PAIRS else order[:_PAIRS] + order[-_PAIRS:]
    figure = Figure(figsize=(7.6, 2.0 + 0.3 * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [f1[k] for k in shown], color=_BLUE, alpha=0.35, label="F1")
    axes.plot([precision[k] for k in shown], places, ">", color=_BLUE, label="precision")
    axes.plot([recall[k] for k in shown], places, "<", color=_ORANGE, label="recall")
    for y, k in enumerate(shown):
        said = f"{f1[k]:.2f}  ({support[k]:,})" if support[k] else "no sample has it"
        axes.text(1.03, y, said, va="center", fontsize=8)
    axes.set_yticks(places, [short(classes[k], 24) for k in shown], fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.22), xlabel="share; at the right F1 and the number of samples")
    axes.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0), fontsize=9)
    some = "" if shown == order else f" (the best and the worst {_PAIRS})"
    figure.suptitle(f"How well each class is told{some}\n{title}", fontsize=11)
    plain(axes, bars=True)
    return figure


def plain(axes: Axes, bars: bool = False) -> None:
    """Leave only what is read: a light grid and two spines."""
    axes.grid(alpha=0.25, axis="x" if bars else "both")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def short(name: str, longest: int = 16) -> str:
    """Cut a name that is too long for its place, and make what cannot be drawn a box."""
    return drawable(name if len(name) <= longest else name[: longest - 1] + "…")


def drawable(text: str) -> str:
    """Make control characters blanks and characters that the font lacks boxes, and keep `$` from being a formula."""
    known = _glyphs()
    one_line = "".join(c if c.isprintable() else " " for c in text)
    return "".join(c if ord(c) in known else "□" for c in one_line).replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    """The characters that matplotlib's own font has; for others it would warn at every drawing."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
