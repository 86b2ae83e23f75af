"""Pictures of what was heard, and of what was heard wrongly, to be read without a caption."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from resdomains.classification.figures import drawable, plain, short

_BLUE, _ORANGE, _GREEN, _GREY = "tab:blue", "tab:orange", "tab:green", "0.55"
_MANY = 25
_COLUMNS = 1200  # more are not seen, and would be drawn for nothing
_TOKENS = 30
_SHOWN = 0.1  # a token that never is more probable is not shown
_LINE_SECONDS, _LINES = 8.0, 6
_EMISSIONS = 20.0  # seconds
_SURE = 0.5
_LETTER = 0.085  # inches
_LEVELS = 3

Row = Mapping[str, Any]


def emissions(
    sound: Tensor,
    log_probs: Tensor,
    pieces: Sequence[str],
    words: Sequence[Row],
    reference: str,
    hypothesis: str,
    seconds: float,
    title: str,
) -> Figure:
    """Draw an utterance above each frame's probabilities of the tokens that occur; of a long one the beginning.

    Args:
        sound: Features (bands, frames) such as a log-mel spectrogram, or samples (L,).
        log_probs: (T, V) log-probabilities of its frames.
        pieces: The tokens, the blank first.
        words: Words with their times, as `word_times` returns them.
        reference: What was said.
        hypothesis: What was heard.
        seconds: How long the utterance is.
        title: What the figure shows.
    """
    whole, cut = seconds, ""
    if seconds > _EMISSIONS:
        seconds = _EMISSIONS
        cut = f" (the first {seconds:g} of {whole:.1f} seconds)"
        log_probs = log_probs[: max(1, round(len(log_probs) * seconds / whole))]
        words = [word for word in words if word["end"] <= seconds]
    shown = _occurring(log_probs)
    width = min(max(7.0, 1.5 + 1.1 * seconds), 20.0)
    lower = 0.6 + 0.21 * len(shown)
    said = _wrapped("said", reference, width) + _wrapped("heard", hypothesis, width)
    figure = Figure(figsize=(width, 2.6 + lower + 0.19 * len(said)), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1.9, lower), sharex=True)
    _draw_sound(above, sound, whole, 0.0, seconds)
    _draw_words(above, words, width, seconds)
    probabilities = _columns(log_probs[:, shown].float().exp().T)
    image = below.imshow(
        probabilities.numpy(),
        aspect="auto",
        cmap="Blues",
        vmin=0.0,
        vmax=1.0,
        interpolation="nearest",
        extent=(0.0, seconds, len(shown) - 0.5, -0.5),
    )
    below.set_yticks(
        range(len(shown)), ["blank" if i == 0 else short(pieces[i]) for i in shown], fontsize=8
    )
    below.tick_params(axis="y", length=0)
    _draw_bounds(below, words)
    below.set(xlim=(0.0, seconds), xlabel="seconds", ylabel="token")
    below.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=below, pad=0.01, ticks=[0, 0.5, 1], aspect=30)
    bar.set_label("probability")
    bar.outline.set_visible(False)
    unsure = " (red: less probable than 0.5)" if any(map(_unsure, words)) else ""
    heading = [f"What was heard, and when{cut}{unsure}", drawable(title), *said]
    figure.suptitle("\n".join(heading), fontsize=10, ha="left", x=0.02)
    return figure


def alignment(sound: Tensor, words: Sequence[Row], seconds: float, title: str) -> Figure:
    """Draw an utterance with each word at its time, in lines of some seconds; of a long one the beginning.

    Args:
        sound: Features (bands, frames) such as a log-mel spectrogram, or samples (L,).
        words: Words with their times and probabilities, as `word_times` returns them.
        seconds: How long the utterance is.
        title: What the figure shows.
    """
    count = min(max(1, -int(-seconds // _LINE_SECONDS)), _LINES)
    length = min(seconds, _LINE_SECONDS)
    covered = min(seconds, count * _LINE_SECONDS)
    width = 12.0 if seconds > 4 else 8.0
    figure = Figure(figsize=(width, 0.9 + 1.9 * count), layout="constrained")
    lines = figure.subplots(count, 1, squeeze=False)[:, 0]
    for number, axes in enumerate(lines):
        first, last = number * length, (number + 1) * length
        _draw_sound(axes, sound, seconds, first, min(last, seconds))
        here = [word for word in words if first <= (word["start"] + word["end"]) / 2 < last]
        _draw_words(axes, here, width, length)
        axes.set(xlim=(first, last))
    lines[-1].set_xlabel("seconds")
    cut = "" if covered >= seconds else f" (the first {covered:g} of {seconds:.1f} seconds)"
    unsure = " (red: less probable than 0.5)" if any(map(_unsure, words)) else ""
    heading = f"When each word was heard{cut}{unsure}"
    figure.suptitle(f"{heading}\n{drawable(title)}", fontsize=11)
    return figure


def error_rates(rows: Sequence[Row], by: Literal["speaker", "duration"], title: str) -> Figure:
    """Draw the word error rate of each speaker or duration, with what was substituted, deleted and inserted.

    Args:
        rows: As `by_speaker` or `by_duration` returns them.
        by: Which of them.
        title: What the figure shows.
    """
    some = ""
    if len(rows) > 2 * _MANY:
        rows = [*rows[:_MANY], *rows[-_MANY:]]
        some = f" (the worst and the best {_MANY})"
    figure = Figure(figsize=(7.6, 1.9 + 0.3 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    kinds = (("substitutions", _BLUE), ("deletions", _ORANGE), ("insertions", _GREEN))
    for y, row in enumerate(rows):
        left = 0.0
        for kind, colour in kinds:
            share = row[kind] / max(row["words"], 1)
            axes.barh(y, share, left=left, color=colour, label=None if y else kind)
            left += share
        many = f"{row['utterances']:,} utterance{'s' if row['utterances'] != 1 else ''}"
        words = f"{row['words']:,} word{'s' if row['words'] != 1 else ''}"
        axes.text(left, y, f" {100 * row['wer']:.1f} % of {words}, {many}", va="center", fontsize=8)
    largest = max((row["wer"] for row in rows), default=0.0) or 0.01
    names = [
        short(str(row["speaker"]), 24)
        if by == "speaker"
        else _span(row["shortest"], row["longest"])
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set(xlim=(0.0, 1.6 * largest), ylim=(len(rows) - 0.4, -0.6), xlabel="word error rate")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0), fontsize=9)
    what = "Who is understood worst" if by == "speaker" else "Are short or long utterances harder?"
    figure.suptitle(f"{what}{some}\n{drawable(title)}", fontsize=11)
    plain(axes, bars=True)
    return figure


def word_confusions(rows: Sequence[Row], title: str) -> Figure:
    """Draw how often words are substituted by others, deleted, and inserted.

    Args:
        rows: As `confusions` returns them, the most frequent first.
        title: What the figure shows.
    """
    shown = rows[:_MANY]
    figure = Figure(figsize=(7.6, 1.9 + 0.27 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    named: set[str] = set()
    names = []
    for y, row in enumerate(shown):
        said, heard = row["reference"], row["hypothesis"]
        kind, colour = "substituted", _BLUE
        name = f"{short(said, 22)} → {short(heard, 22)}"
        if not heard:
            kind, colour, name = "deleted", _ORANGE, short(said, 22)
        elif not said:
            kind, colour, name = "inserted", _GREEN, short(heard, 22)
        label = None if kind in named else kind
        named.add(kind)
        names.append(name)
        axes.barh(y, row["count"], color=colour, label=label)
        axes.text(row["count"], y, f" {row['count']:,}", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), names, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.margins(x=0.12)
    axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="how often")
    if named:
        axes.legend(
            frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1.0), fontsize=9
        )
    else:
        axes.text(0.5, 0.5, "no word is wrong", transform=axes.transAxes, ha="center")
        axes.set(xticks=[], yticks=[])
    total = sum(row["count"] for row in rows)
    rest = sum(row["count"] for row in rows[_MANY:])
    more = f" ({total - rest:,} of {total:,} errors)" if rest else ""
    figure.suptitle(f"Which words are wrong most often{more}\n{drawable(title)}", fontsize=11)
    plain(axes, bars=True)
    return figure


def _span(shortest: float, longest: float) -> str:
    if f"{shortest:.1f}" == f"{longest:.1f}":
        return f"{shortest:.1f} s"
    return f"{shortest:.1f} to {longest:.1f} s"


def _occurring(log_probs: Tensor) -> list[int]:
    """Return the blank and the tokens that become probable, by the time of their highest peaks."""
    highest = log_probs.float().exp().amax(0)
    highest[0] = 0.0
    likely = [i for i in highest.argsort(descending=True).tolist()[:_TOKENS] if highest[i] > _SHOWN]
    peak = log_probs.argmax(0)
    return [0, *sorted(likely, key=lambda i: int(peak[i]))]


def _columns(rows: Tensor) -> Tensor:
    """Shrink (bands, frames) to what a picture shows, keeping peaks."""
    if rows.shape[1] <= _COLUMNS:
        return rows
    return F.adaptive_max_pool1d(rows, _COLUMNS)


def _draw_sound(axes: Axes, sound: Tensor, seconds: float, first: float, last: float) -> None:
    """Draw features as a picture, or samples as a line, from `first` to `last` second."""
    sound = sound.detach().float().cpu()
    length = sound.shape[-1]
    begin = min(int(first / seconds * length), length - 1)
    end = max(round(last / seconds * length), begin + 1)
    part = sound[..., begin:end]
    if part.ndim == 2 and len(part) > 1:
        low, high = np.quantile(part.numpy(), (0.02, 0.995)).tolist()
        axes.imshow(
            _columns(part).numpy(),
            aspect="auto",
            origin="lower",
            cmap="Greys",
            vmin=low,
            vmax=max(high, low + 1e-6),
            interpolation="nearest",
            extent=(first, last, -0.5, len(part) - 0.5),
        )
        axes.set_ylabel("band")
    else:
        line = part.reshape(1, -1)
        upper, lower = _columns(line)[0], -_columns(-line)[0]
        times = torch.linspace(first, last, len(upper) + 1)[:-1]
        axes.fill_between(
            times.tolist(),
            lower.tolist(),
            upper.tolist(),
            color=_GREY,
            linewidth=0.6,
            edgecolor=_GREY,
        )
        axes.set_ylabel("amplitude")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_words(axes: Axes, words: Sequence[Row], width: float, seconds: float) -> None:
    """Mark words at their times, and write them above, on as many levels as are needed; of many, those that fit."""
    letter = _LETTER * seconds / max(width - 1.5, 1.0)
    ends = [float("-inf")] * _LEVELS
    times = [(word["start"], word["end"]) for word in words]
    areas = [[(a, 0.0), (b, 0.0), (b, 1.0), (a, 1.0)] for a, b in times]
    across = axes.get_xaxis_transform()
    tint = PolyCollection(areas, transform=across, color=_ORANGE, alpha=0.18, linewidth=0)
    axes.add_collection(tint, autolim=False)
    _draw_bounds(axes, words)
    for word in words:
        start, end = word["start"], word["end"]
        name = short(word["word"], 20)
        middle, half = (start + end) / 2, (len(name) + 1) * letter / 2
        for level in range(_LEVELS):
            if middle - half >= ends[level]:
                axes.annotate(
                    name,
                    (middle, 1.0),
                    xycoords=("data", "axes fraction"),
                    xytext=(0, 3 + 11 * level),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color="firebrick" if _unsure(word) else "black",
                )
                ends[level] = middle + half
                break


def _draw_bounds(axes: Axes, words: Sequence[Row]) -> None:
    """Draw a line where each word begins and ends, all in one: a line each is slow to lay out."""
    times = [time for word in words for time in (word["start"], word["end"])]
    lines = LineCollection(
        [[(time, 0.0), (time, 1.0)] for time in times],
        transform=axes.get_xaxis_transform(),
        color=_ORANGE,
        linewidth=0.6,
        alpha=0.7,
    )
    axes.add_collection(lines, autolim=False)


def _unsure(word: Row) -> bool:
    return float(word["probability"]) < _SURE


def _wrapped(name: str, text: str, width: float) -> list[str]:
    """Return the lines of a transcript, at most three."""
    lines = textwrap.wrap(drawable(text), int((width - 1.5) / _LETTER)) or ["(nothing)"]
    if len(lines) > 3:
        lines = [*lines[:2], lines[2] + " …"]
    return [f"{name}: {lines[0]}", *lines[1:]]
