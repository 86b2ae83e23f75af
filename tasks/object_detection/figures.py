"""Pictures of how well objects are found, to be read without a caption."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from resdomains.classification.figures import confusion, drawable, plain, short

from .evaluation import AREAS
from .matching import IOU, THRESHOLDS
from .metrics import CLASS_COLUMNS

_BLUE, _ORANGE, _GREY = "tab:blue", "tab:orange", "0.6"
_NAMED_UP_TO = 10
_EXTREMES = 5
_MANY = 25
_SIZES = ("all", "below 32²", "32² to 96²", "above 96²")


def drawn(results: Mapping[str, Tensor], classes: Sequence[str], title: str) -> dict[str, Figure]:
    """Return all figures of a split.

    Args:
        results: As `CocoMetrics` computes them.
        classes: Class names.
        title: What the figures show.
    """
    table = results["classes"].double().cpu()
    threshold, best = (float(results[name]) for name in ("threshold", "f1"))
    said = "" if threshold != threshold else f", at score {threshold:.3g} and more"
    return {
        "precision_recall": precision_recall(
            results["precision_curve"], _column(table, "ap50"), classes, title
        ),
        "f1_over_threshold": f1_over_threshold(
            results["f1_curve"], threshold, best, classes, title
        ),
        "confusion": confusion(
            results["confusion"].cpu(),
            [*classes, "background"],
            f"{drawable(title)}\nat IoU {IOU}{said}",
        ),
        "ap_by_class": by_class(table, classes, title),
        "ap_by_size": by_size(results, table, title),
    }


def precision_recall(curves: Tensor, ap50: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Draw the precision at each recall at IoU 0.5, of each class and of their mean; of many some are named.

    Args:
        curves: (101, K) precision at recall 0, 0.01 ... 1; NaN for a class without objects.
        ap50: (K,) the mean of each.
        classes: Class names.
        title: What the figure shows.
    """
    mean = f"AP50 {float(ap50[~ap50.isnan()].mean()):.3f}"
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.subplots()
    recalls = torch.linspace(0, 1, len(curves)).tolist()
    _curves(axes, recalls, curves, ap50, classes, f"mean: {mean}", "AP50")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    figure.suptitle(
        f"What is found at IoU 0.5, and how much of it is right\n{drawable(title)}", fontsize=11
    )
    return figure


def f1_over_threshold(
    curves: Tensor, threshold: float, best: float, classes: Sequence[str], title: str
) -> Figure:
    """Draw F1 at IoU 0.5 over the threshold on the score, of each class and of their mean, and mark the best.

    Args:
        curves: (1001, K) at `matching.THRESHOLDS`; NaN for a class without objects.
        threshold: Where the mean is highest.
        best: The mean there.
        classes: Class names.
        title: What the figure shows.
    """
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.subplots()
    highest = curves.nan_to_num(-1).amax(0)
    highest[highest < 0] = torch.nan
    _curves(axes, THRESHOLDS.tolist(), curves, highest, classes, "mean", "highest F1")
    if threshold == threshold:
        axes.plot(threshold, best, "o", color=_ORANGE, markersize=8, zorder=5)
        right = threshold < 0.6
        axes.annotate(
            f"best: score {threshold:.3g}, F1 {best:.3f}",
            (threshold, best),
            xytext=(10 if right else -10, 10),
            textcoords="offset points",
            ha="left" if right else "right",
            fontweight="bold",
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2},
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.06), xlabel="threshold on the score", ylabel="F1")
    figure.suptitle(f"Where to put the threshold\n{drawable(title)}", fontsize=11)
    return figure


def by_class(table: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Draw each class's average precision as a bar, at IoU 0.5 as a mark, the best class first.

    Args:
        table: (K, 11), of `CLASS_COLUMNS`.
        classes: Class names.
        title: What the figure shows.
    """
    ap, ap50 = (_column(table, name).nan_to_num(-1) for name in ("ap", "ap50"))
    objects = _column(table, "objects").long().tolist()
    order = ap.argsort(descending=True, stable=True).tolist()
    shown = order if len(order) <= 2 * _MANY else order[:_MANY] + order[-_MANY:]
    figure = Figure(figsize=(7.6, 1.9 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    axes.barh(
        range(len(shown)),
        ap[shown].clamp(min=0).tolist(),
        color=_BLUE,
        alpha=0.45,
        label="AP (IoU 0.5 to 0.95)",
    )
    known = [(y, k) for y, k in enumerate(shown) if objects[k]]
    axes.plot(
        [float(ap50[k]) for _, k in known],
        [y for y, _ in known],
        "|",
        color=_ORANGE,
        markersize=11,
        markeredgewidth=2.5,
        label="AP50",
    )
    for y, k in enumerate(shown):
        said = f"{ap[k]:.3f}  ({objects[k]:,})" if objects[k] else "no object to find"
        axes.text(1.03, y, said, va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [short(classes[k], 24) for k in shown], fontsize=9)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.24), xlabel="average precision; at the right AP and the number of objects")
    axes.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.42, 1.0), fontsize=9)
    axes.margins(y=0.02)
    plain(axes, bars=True)
    some = "" if shown == order else f" (the best and the worst {_MANY})"
    figure.suptitle(f"How well each class is found{some}\n{drawable(title)}", fontsize=11)
    return figure


def by_size(results: Mapping[str, Tensor], table: Tensor, title: str) -> Figure:
    """Draw average precision and recall by the objects' area, with a dot for each class.

    Args:
        results: Of COCO's numbers, `ap` and `ar100`, and those by area.
        table: (K, 11), of `CLASS_COLUMNS`.
        title: What the figure shows.
    """
    names = ("ap", *(f"ap_{area}" for area in AREAS[1:]))
    recalls = ("ar100", *(f"ar_{area}" for area in AREAS[1:]))
    figure = Figure(figsize=(7.0, 4.4), layout="constrained")
    axes = figure.subplots()
    labels = list(_SIZES)
    for shift, kind, meaning, colour, keys in (
        (-0.2, "AP", "AP", _BLUE, names),
        (0.2, "AR", "AR: recall of the best 100", _ORANGE, recalls),
    ):
        for x, key in enumerate(keys):
            value = float(results[key])
            labels[x] += f"\n{kind} " + ("none" if value != value else f"{value:.3f}")
            height = 0.0 if value != value else value
            label = None if x else meaning
            axes.bar(x + shift, height, 0.38, color=colour, alpha=0.5, label=label)
    for x, name in enumerate(names):
        values = _column(table, name)
        values = values[~values.isnan()]
        spread = torch.arange(1, len(values) + 1) / (len(values) + 1) - 0.5
        places = x - 0.2 + 0.3 * spread
        label = None if x else "AP of a class"
        axes.plot(places.tolist(), values.tolist(), ".", color="0.25", markersize=5, label=label)
    axes.set_xticks(range(len(names)), labels)
    axes.set(ylim=(0, 1.08), xlabel="objects by area in pixels²")
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
    plain(axes)
    axes.grid(visible=False, axis="x")
    figure.suptitle(f"How well objects of each size are found\n{drawable(title)}", fontsize=11)
    return figure


def _curves(
    axes: Axes,
    x: Sequence[float],
    curves: Tensor,
    ranking: Tensor,
    classes: Sequence[str],
    mean: str,
    of: str,
) -> None:
    """Draw (X, K) curves and their mean; of more than ten the best and the worst five by (K,) are named."""
    curves, ranking = curves.double().cpu(), ranking.double().cpu()
    known = (~ranking.isnan()).nonzero().flatten().tolist()
    order = sorted(known, key=lambda k: -float(ranking[k]))
    few = len(order) <= _NAMED_UP_TO
    named = order if few else order[:_EXTREMES] + order[-_EXTREMES:]
    for k in order:
        if k not in named:
            axes.plot(x, curves[:, k].tolist(), color=_GREY, linewidth=0.6, alpha=0.6)
    for number, k in enumerate(named):
        label = f"{short(classes[k], 20)}: {float(ranking[k]):.3f}"
        axes.plot(x, curves[:, k].tolist(), color=f"C{number}", linewidth=1.2, label=label)
    if known:
        axes.plot(x, curves[:, known].mean(1).tolist(), color="black", linewidth=2.5, label=mean)
    else:
        axes.text(0.5, 0.5, "no object to find", transform=axes.transAxes, ha="center")
        return
    heading = (
        of if few else f"{of}, best and worst {_EXTREMES}\nof {len(order)} classes (grey: others)"
    )
    axes.legend(
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        fontsize=9,
        title=heading,
        title_fontsize=9,
        alignment="left",
    )
    plain(axes)


def _column(table: Tensor, name: str) -> Tensor:
    return table[:, CLASS_COLUMNS.index(name)]
