"""Pictures of several runs, each readable alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullLocator

from resdomains import schema
from resdomains.comparing.runs import STEP, RecordedRun
from resdomains.comparing.table import differing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which most colour-blind readers tell apart.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000", "#999999"),
)
_AXES = {
    schema.SAMPLES: "training samples",
    schema.FLOPS: "training FLOPs",
    schema.SECONDS: "training time, s",
    STEP: "optimizer steps",
}
_POINTS = 200


def figures(
    runs: Sequence[RecordedRun],
    table: pd.DataFrame,
    seeds: pd.DataFrame,
    *,
    x: str = schema.SAMPLES,
    y: str = schema.TRAIN_LOSS,
) -> dict[str, Figure]:
    """Return the figures that the runs have values for, by name.

    Args:
        runs: The runs.
        table: Their `run_table`.
        seeds: Their `seed_table`.
        x: Axis of the training curves.
        y: What the training curves show.
    """
    table, seeds = _with_kinds(table), _with_kinds(seeds)
    drawn = {
        "skill_over_compute": skill_over_compute(runs, table),
        "score_over_depth": score_over_depth(seeds),
        "score_by_kind": score_by_kind(seeds),
        "cost_over_depth": cost_over_depth(seeds),
        "residual_profile": residual_profile(runs, table),
        "lesions": lesions(runs, table),
        "score_over_cost": score_over_cost(seeds),
        "training_curves": training_curves(runs, table, x=x, y=y),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def skill_over_compute(runs: Sequence[RecordedRun], table: pd.DataFrame) -> Figure | None:
    """Draw validation skill over training FLOPs, one line a domain: the mean of its runs, with their range.

    Where a domain's runs differ in more than the seed, its line is their best setup's (highest mean skill).
    """
    groups: dict[str, list[RecordedRun]] = {}
    known = table[table["best_skill"].notna()]
    for domain, rows in known.groupby("task", sort=False):
        means = rows.groupby(_setup(rows), dropna=False)["best_skill"].mean()
        chosen = rows[_setup(rows) == means.idxmax()]
        groups[str(domain)] = [runs[int(i)] for i in chosen.index]
    groups = {
        domain: of for domain, of in groups.items() if _curves(of, schema.FLOPS, schema.VAL_SKILL)
    }
    if not groups:
        return None
    figure, ((axes,),) = _panels(1, 1, width=6.5, height=4.2)
    for (domain, of), colour in zip(groups.items(), _cycle(), strict=False):
        _draw_mean(axes, of, schema.FLOPS, schema.VAL_SKILL, colour, _count(domain, len(of)))
    axes.set(xlabel=_AXES[schema.FLOPS], ylabel="validation skill", xscale="log")
    axes.axhline(0, color="0.6", linewidth=0.8)
    _legend(axes)
    return figure


def score_over_depth(seeds: pd.DataFrame) -> Figure | None:
    """Draw the best validation score over depth, a panel each domain and a line each kind, with its seeds' spread.

    A dashed line is the score on the training data, where runs had it measured (`TrainScore`). With plain twins
    (`BranchOnly`) this is the figure of degradation (He et al. 2015, figure 1).
    """
    known = seeds[seeds["best_score"].notna()]
    panels = _of_several_depths(known)
    if not panels:
        return None
    colours = _colours(known["kind"])
    trained = known["train_score"].notna().any()
    figure, all_axes = _wrapped(len(panels))
    for axes, ((task, config), rows) in zip(all_axes, panels.items(), strict=True):
        for kind, line in rows.groupby("kind", sort=False):
            _draw_spread(axes, line, "best_score", colours[kind], str(kind), "-")
            if line["train_score"].notna().any():
                _draw_spread(axes, line, "train_score", colours[kind], f"{kind}, training", "--")
        title = "score: validation (best), training" if trained else "best validation score"
        axes.set(title=f"{task}\n{config}", ylabel=title)
        _depth_axis(axes, rows)
        _legend(axes)
    return figure


def score_by_kind(seeds: pd.DataFrame) -> Figure | None:
    """Draw the best validation score of each kind at one depth, a panel each domain, with its seeds' spread.

    A hollow point is the score on the training data. Domains of several depths are in `score_over_depth`.
    """
    known = seeds[seeds["best_score"].notna()]
    panels = {
        name: rows
        for name, rows in known.groupby(["task", "config"], sort=False)
        if rows["depth"].nunique() == 1 and rows["kind"].nunique() > 1
    }
    if not panels:
        return None
    kinds = sorted({kind for rows in panels.values() for kind in rows["kind"]}, reverse=True)
    colours = _colours(known["kind"])
    figure, all_axes = _wrapped(len(panels))
    for axes, ((task, config), rows) in zip(all_axes, panels.items(), strict=True):
        for _, row in rows.iterrows():
            kind = row["kind"]
            for name, fill in (("train_score", "white"), ("best_score", colours[kind])):
                spread = row[f"{name}_sd"]
                axes.errorbar(
                    row[name],
                    kinds.index(kind),
                    xerr=spread if spread == spread else None,
                    fmt="o",
                    color=colours[kind],
                    markerfacecolor=fill,
                    markersize=5,
                    capsize=2,
                )
        trained = rows["train_score"].notna().any()
        axes.set(
            title=f"{task}\n{config}, depth {_depth(rows['depth'].iloc[0])}",
            xlabel="score: validation (best), hollow: training"
            if trained
            else "best validation score",
        )
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set_ylim(-0.5, len(kinds) - 0.5)
    return figure


def cost_over_depth(seeds: pd.DataFrame) -> Figure | None:
    """Draw peak memory and the time of a sample over depth, a column each domain and a line each kind."""
    costs = {
        "peak_memory_mib": "peak memory, MiB",
        "milliseconds": "training time of a sample, ms",
    }
    known = seeds.assign(milliseconds=1000 / seeds["samples_per_second"])
    # To first order: the spread of 1/x is that of x, relative to it.
    spread = seeds["samples_per_second_sd"] / seeds["samples_per_second"]
    known["milliseconds_sd"] = known["milliseconds"] * spread
    panels = _of_several_depths(known[known[list(costs)].notna().any(axis=1)])
    if not panels:
        return None
    colours = _colours(known["kind"])
    figure, grid = _panels(len(costs), len(panels))
    for column, ((task, config), rows) in enumerate(panels.items()):
        for row, (name, title) in enumerate(costs.items()):
            axes = grid[row][column]
            for kind, line in rows[rows[name].notna()].groupby("kind", sort=False):
                _draw_spread(axes, line, name, colours[kind], str(kind), "-")
            if name == "milliseconds":
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.set(ylabel=title, title=f"{task}\n{config}" if row == 0 else "")
            _depth_axis(axes, rows)
            _legend(axes)
    return figure


def residual_profile(runs: Sequence[RecordedRun], table: pd.DataFrame) -> Figure | None:
    """Draw gradient norm and contribution of the blocks over relative depth, a column each domain.

    Gradient norms are relative to their mean over the blocks, so that domains share an axis. Lines are means of seeds.
    """
    measured = [i for i, run in enumerate(runs) if not run.profile.empty]
    rows = {
        name: title
        for name, title in (
            ("gradient_norm", "gradient norm / mean of blocks"),
            ("contribution", "branch / shortcut"),
        )
        if any(_has(runs[i].profile, name) for i in measured)
    }
    if not rows:
        return None
    kept = table.loc[measured]
    domains = list(dict.fromkeys(zip(kept["task"], kept["config"], strict=True)))
    colours = _colours(kept["kind"])
    figure, grid = _panels(len(rows), len(domains))
    for column, (task, config) in enumerate(domains):
        of = kept[(kept["task"] == task) & (kept["config"] == config)].sort_values("depth")
        shades = _shades(of["depth"])
        for row, (name, title) in enumerate(rows.items()):
            axes = grid[row][column]
            for (kind, depth), same in of.groupby(["kind", "depth"], dropna=False, sort=False):
                profiles = [runs[int(i)].profile for i in same.index]
                profiles = [p for p in profiles if _has(p, name) and len(p) == len(profiles[0])]
                if not profiles:
                    continue
                values = np.nanmean([p[name].to_numpy(float) for p in profiles], axis=0)
                if name == "gradient_norm":
                    values = values / np.nanmean(values)
                axes.plot(
                    profiles[0]["relative_depth"],
                    values,
                    color=colours[kind],
                    alpha=shades.get(depth, 1.0),
                    marker="o" if len(values) <= 60 else "",
                    markersize=3,
                    label=f"{kind}, depth {_depth(depth)}",
                )
            if not axes.lines:
                axes.set_axis_off()  # these runs had no such probe
                continue
            axes.set(title=f"{task}\n{config}", xlabel="relative depth", ylabel=title)
            if any(np.any(np.asarray(line.get_ydata(), float) > 0) for line in axes.lines):
                axes.set_yscale("log")
            _legend(axes)
    return figure


def lesions(runs: Sequence[RecordedRun], table: pd.DataFrame) -> Figure | None:
    """Draw the score without one block over its relative depth, and without k random ones over k, a column each domain.

    Lines are means over seeds and draws, with the range of all (Veit et al. 2016, figures 4 and 5).
    """
    cut = [i for i, run in enumerate(runs) if _has(run.removal, "score")]
    if not cut:
        return None
    kept = table.loc[cut]
    domains = list(kept.groupby(["task", "config"], sort=False))
    colours = _colours(kept["kind"])
    figure, grid = _panels(2, len(domains))
    for column, ((task, config), rows) in enumerate(domains):
        shades = _shades(rows["depth"])
        single, several = grid[0][column], grid[1][column]
        for (kind, depth), same in rows.groupby(["kind", "depth"], dropna=False):
            of = [runs[int(i)] for i in same.index]
            style: dict[str, Any] = {"color": colours[kind], "alpha": shades.get(depth, 1.0)}
            label = _count(f"{kind}, depth {_depth(depth)}", len(of))
            _draw_single_lesions(single, of, style, label)
            drawn = pd.concat([run.removal for run in of]).groupby("removed")["score"]
            _draw_range(several, drawn, style, label)
            whole = float(np.mean([run.removal["score_whole"].iloc[0] for run in of]))
            for axes in (single, several):
                axes.axhline(whole, linestyle="--", linewidth=1, **style)
        single.set(
            title=f"{task}\n{config}",
            xlabel="relative depth of the block removed",
            ylabel="score without it",
        )
        several.set(xlabel="random blocks removed, k", ylabel="score without them")
        several.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (single, several):
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            _legend(axes)
    return figure


def score_over_cost(seeds: pd.DataFrame) -> Figure | None:
    """Draw the best validation score against peak memory and against speed, a column each domain, a point each setup.

    The line joins the setups that no other beats in both (the Pareto front).
    """
    known = seeds[seeds["best_score"].notna()]
    costs = {
        "peak_memory_mib": ("peak memory, MiB", False),
        "samples_per_second": ("training samples/s", True),
    }
    domains = {
        name: rows for name, rows in known.groupby(["task", "config"], sort=False) if len(rows) > 1
    }
    if not domains:
        return None
    colours = _colours(known["kind"])
    figure, grid = _panels(2, len(domains))
    for column, ((task, config), rows) in enumerate(domains.items()):
        for row, (name, (title, more)) in enumerate(costs.items()):
            axes = grid[row][column]
            points = rows[rows[name].notna()]
            for kind, same in points.groupby("kind", sort=False):
                axes.plot(
                    same[name],
                    same["best_score"],
                    "o",
                    color=colours[kind],
                    markersize=5,
                    label=kind,
                )
                for _, point in same.iterrows():
                    axes.annotate(
                        _depth(point["depth"]),
                        (point[name], point["best_score"]),
                        xytext=(4, 3),
                        textcoords="offset points",
                        fontsize=7,
                        color="0.4",
                    )
            front = pareto_front(points[name], points["best_score"], more_is_better=more)
            axes.plot(*zip(*front, strict=True), color="0.7", linewidth=1, zorder=0)
            axes.set(xlabel=title, ylabel="best validation score")
            if row == 0:
                axes.set_title(f"{task}\n{config}")
            _legend(axes)
    return figure


def training_curves(
    runs: Sequence[RecordedRun], table: pd.DataFrame, *, x: str, y: str
) -> Figure | None:
    """Draw a logged value over an axis, a panel each domain, a line each setup: the mean of its seeds."""
    panels: dict[tuple[str, str], list[tuple[pd.Series[Any], list[RecordedRun]]]] = {}
    for (task, config), rows in table.groupby(["task", "config"], sort=False):
        ordered = rows.sort_values(["kind", "depth"])
        for _, same in ordered.groupby(_setup(ordered), dropna=False, sort=False):
            of = [runs[int(i)] for i in same.index]
            if _curves(of, x, y):
                panels.setdefault((str(task), str(config)), []).append((same.iloc[0], of))
    if not panels:
        return None
    colours = _colours(table["kind"])
    figure, all_axes = _wrapped(len(panels))
    for axes, ((task, config), lines) in zip(all_axes, panels.items(), strict=True):
        shades = _shades(first["depth"] for first, _ in lines)
        for first, of in lines:
            label = _count(f"{first['kind']}, depth {_depth(first['depth'])}", len(of))
            shade = shades.get(first["depth"], 1.0)
            _draw_mean(axes, of, x, y, colours[first["kind"]], label, shade)
        axes.set(title=f"{task}\n{config}", xlabel=_AXES.get(x, x), ylabel=y)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _legend(axes)
    return figure


def pareto_front(
    cost: Iterable[float], score: Iterable[float], *, more_is_better: bool
) -> list[tuple[float, float]]:
    """Return the points that no other point beats in both cost and score, by rising cost.

    Args:
        cost: One number a point.
        score: One number a point, higher is better.
        more_is_better: Whether a higher cost is the better one, as with speed.
    """
    front: list[tuple[float, float]] = []
    best = -math.inf
    for place, value in sorted(
        zip(cost, score, strict=True), key=lambda p: (-p[0] if more_is_better else p[0], -p[1])
    ):
        if value > best:
            best = value
            front.append((place, value))
    return sorted(front)


def _with_kinds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a `kind`: the merge, and network, coupling and memory where a domain's runs differ in them."""
    names = rows[["merge", *differing(rows)]].astype(object).fillna("?").astype(str)
    return rows.assign(kind=names.agg(", ".join, axis=1) if len(rows) else names["merge"])


def _of_several_depths(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """The rows by domain, of domains whose runs differ in depth."""
    known = rows[rows["depth"].notna()]
    return {
        (str(task), str(config)): of.sort_values("depth")
        for (task, config), of in known.groupby(["task", "config"], sort=False)
        if of["depth"].nunique() > 1
    }


def _depth_axis(axes: "Axes", rows: pd.DataFrame) -> None:
    axes.set(xlabel="depth", xscale="log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(rows["depth"].unique())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")


def _draw_spread(
    axes: "Axes", line: pd.DataFrame, name: str, colour: str, label: str, style: str
) -> None:
    """A mean over depth, with a standard deviation to both sides."""
    axes.errorbar(
        line["depth"],
        line[name],
        yerr=line[f"{name}_sd"].fillna(0),
        color=colour,
        linestyle=style,
        marker="o",
        markersize=4,
        capsize=2,
        label=label,
    )


def _draw_single_lesions(
    axes: "Axes", runs: Sequence[RecordedRun], style: Mapping[str, Any], label: str
) -> None:
    """Scores without one block; hollow where it changes the shape, missing where it cannot be removed."""
    profiles = [run.profile for run in runs if _has(run.profile, "score_without")]
    if not profiles:
        return
    every = pd.concat(profiles)
    _draw_range(axes, every.groupby("relative_depth")["score_without"], style, label)
    changing = every[every["lesion"] != "keeps the shape"]
    means = changing.groupby("relative_depth")["score_without"].mean()
    axes.plot(
        means.index,
        means,
        "o",
        markersize=4,
        color=style["color"],
        markerfacecolor="white",
        zorder=3,
    )


def _draw_range(axes: "Axes", values: Any, style: Mapping[str, Any], label: str) -> None:
    """Means of grouped values over their group, with the range of each."""
    means = values.mean()
    marker = "o" if len(means) <= 60 else ""
    axes.plot(means.index, means, marker=marker, markersize=4, linewidth=1.5, label=label, **style)
    band = {**style, "alpha": 0.15 * style["alpha"]}
    axes.fill_between(means.index, values.min(), values.max(), linewidth=0, **band)


def _curves(
    runs: Sequence[RecordedRun], x: str, y: str
) -> list[tuple["pd.Series[float]", "pd.Series[float]"]]:
    """Both columns of each run that has points of them."""
    found = []
    for run in runs:
        if x in run.history and y in run.history:
            rows = run.history[run.history[x].notna() & run.history[y].notna()].sort_values(x)
            if len(rows):
                found.append((rows[x], rows[y]))
    return found


def _draw_mean(
    axes: "Axes",
    runs: Sequence[RecordedRun],
    x: str,
    y: str,
    colour: str,
    label: str,
    shade: float = 1.0,
) -> None:
    """The mean of the runs where all have values, with the range of their values."""
    curves = _curves(runs, x, y)
    low, high = max(c[0].iloc[0] for c in curves), min(c[0].iloc[-1] for c in curves)
    if len(curves) == 1 or high <= low:
        for one, two in curves:
            marker = "o" if len(one) == 1 else ""
            axes.plot(
                one, two, color=colour, alpha=shade, linewidth=1.5, marker=marker, label=label
            )
            label = "_nolegend_"
        return
    grid = np.linspace(low, high, _POINTS)
    values = np.stack([np.interp(grid, one, two) for one, two in curves])
    axes.plot(grid, values.mean(0), color=colour, alpha=shade, linewidth=1.5, label=label)
    axes.fill_between(
        grid, values.min(0), values.max(0), color=colour, alpha=0.15 * shade, linewidth=0
    )


def _panels(
    rows: int, columns: int, width: float = 4.4, height: float = 3.4
) -> "tuple[Figure, list[list[Axes]]]":
    """A grid of panels; a single column is laid out as a row, so that a page shows it large."""
    across, down = (rows, 1) if columns == 1 else (columns, rows)
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).reshape(rows, columns)
    for axes in grid.flat:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, [list(row) for row in grid]


def _wrapped(count: int, most: int = 3) -> "tuple[Figure, list[Axes]]":
    """Panels in rows of `most`, so that a page shows them large enough to be read."""
    rows = math.ceil(count / most)
    figure, grid = _panels(rows, min(count, most))
    every = [axes for row in grid for axes in row]
    for axes in every[count:]:
        axes.set_axis_off()
    return figure, every[:count]


def _setup(rows: pd.DataFrame) -> "pd.Series[str]":
    """What tells setups apart; a run without a setup of its own stands alone."""
    return rows["setup"].where(rows["setup"].notna(), rows["run_id"])


def _colours(names: Iterable[str]) -> Mapping[str, str]:
    """A colour for each kind, the same in all panels."""
    return dict(zip(sorted(dict.fromkeys(names), key=str), _cycle(100), strict=False))


def _shades(depths: Iterable[float]) -> Mapping[float, float]:
    """How opaque the lines of a depth are: the deeper, the more."""
    known = sorted({depth for depth in depths if depth == depth})
    if len(known) < 2:
        return dict.fromkeys(known, 1.0)
    return {depth: 0.35 + 0.65 * i / (len(known) - 1) for i, depth in enumerate(known)}


def _cycle(count: int = len(_COLOURS)) -> Iterable[str]:
    return (_COLOURS * (count // len(_COLOURS) + 1))[: max(count, len(_COLOURS))]


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _has(profile: pd.DataFrame, name: str) -> bool:
    return name in profile and bool(profile[name].notna().any())


def _count(label: str, number: int) -> str:
    return label if number == 1 else f"{label} ({number} runs)"


def _depth(depth: float) -> str:
    return "?" if pd.isna(depth) else f"{int(depth)}"
