"""Errors of words and of characters. Each metric is exact over a whole split and over all processes.

What is compared are normalised transcripts. Words are what blanks part; characters are Unicode's code points, blanks
between words among them. Errors are the fewest substitutions, deletions and insertions that make the hypothesis of the
reference. An empty reference has no words, and what is heard in it are insertions, which count.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import Metric

from resdomains.classification import Exact, Gathered

_RESAMPLES = 1000
_BINS = 5

Units = Callable[[str], Sequence[str]]


class Edits(NamedTuple):
    """What makes a hypothesis of a reference."""

    substitutions: int
    deletions: int
    insertions: int


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Edits:
    """Return the fewest edits that make the hypothesis of the reference; of several ways, the one rapidfuzz finds."""
    counts = Counter(edit.tag for edit in Levenshtein.editops(reference, hypothesis))
    return Edits(counts["replace"], counts["delete"], counts["insert"])


def words(text: str) -> Sequence[str]:
    """Return the words of a text."""
    return text.split()


def characters(text: str) -> Sequence[str]:
    """Return the characters of a text."""
    return text


class ErrorRate(Exact):
    """The sum of all utterances' errors over the sum of their words or characters; it may exceed 1.

    Args:
        units: `words` or `characters`.
    """

    higher_is_better = False
    sums: Tensor

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.units = units
        self.add_state("sums", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(
        self,
        index: Tensor,
        references: Sequence[str],
        hypotheses: Sequence[str],
        ids: Sequence[Sequence[int]],
    ) -> None:
        """Take what `Utterances` takes."""
        counts = [_errors(self.units, *pair) for pair in zip(references, hypotheses, strict=True)]
        self.sums += torch.tensor(counts, dtype=torch.long).view(-1, 2).sum(0).to(self.sums.device)

    def compute(self) -> Tensor:
        """Return a number of at least 0; of references that are all empty, the number of insertions."""
        return self.sums[0] / self.sums[1].clamp(min=1)


class _Numbers(Gathered):
    """Whole numbers in a row, which derived metrics make and read; those of all processes follow one another."""

    numbers: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.keep("numbers", torch.empty(0, dtype=torch.long))

    def add(self, numbers: Iterable[int]) -> None:
        """Take some more."""
        self.numbers.append(torch.tensor(list(numbers), dtype=torch.long, device=self.device))

    def all(self) -> Tensor:
        """Return them, on the CPU."""
        return self.kept("numbers").cpu()


class ErrorInterval(_Numbers):
    """The 95 % confidence interval of an error rate, by the bootstrap over utterances (Bisani and Ney 2004).

    It is the range from the 2.5th to the 97.5th percentile of the rates of 1000 splits of as many utterances, drawn
    from the split with replacement; draws are the same in every run. Utterances of one speaker are taken to be
    independent, so that it is too narrow where speakers are few.

    Args:
        units: `words` or `characters`.
    """

    def __init__(self, units: Units) -> None:
        super().__init__()
        self.units = units

    def update(
        self,
        index: Tensor,
        references: Sequence[str],
        hypotheses: Sequence[str],
        ids: Sequence[Sequence[int]],
    ) -> None:
        """Take what `Utterances` takes."""
        for pair in zip(references, hypotheses, strict=True):
            self.add(_errors(self.units, *pair))

    def compute(self) -> Tensor:
        """Return (2,): the interval's ends; NaN without utterances."""
        return bootstrap(self.all().view(-1, 2))


def bootstrap(utterances: Tensor) -> Tensor:
    """Return the ends of the 95 % interval of sum(errors) / sum(lengths), (2,), as `ErrorInterval` says.

    Args:
        utterances: (N, 2) each one's errors, and its words or characters; their order does not matter.
    """
    if not len(utterances):
        return torch.full((2,), torch.nan)
    # How often each kind of utterance is drawn: a draw for each kind, of which there are few, not for each utterance.
    kinds, counts = np.unique(utterances.numpy(), axis=0, return_counts=True)
    random = np.random.default_rng(0)
    drawn = random.multinomial(len(utterances), counts / len(utterances), size=_RESAMPLES)
    errors, lengths = (drawn @ kinds).T
    ends = np.quantile(errors / np.maximum(lengths, 1), (0.025, 0.975))
    return torch.from_numpy(ends).float()


def _errors(units: Units, reference: str, hypothesis: str) -> tuple[int, int]:
    """Return how much is wrong, and of how much."""
    expected = units(reference)
    return Levenshtein.distance(expected, units(hypothesis)), len(expected)


class Utterances(_Numbers):
    """What was heard of each utterance, and its errors."""

    FACTS = (
        "index",
        "substitutions",
        "deletions",
        "insertions",
        "words",
        "character_substitutions",
        "character_deletions",
        "character_insertions",
        "characters",
    )

    def update(
        self,
        index: Tensor,
        references: Sequence[str],
        hypotheses: Sequence[str],
        ids: Sequence[Sequence[int]],
    ) -> None:
        """Take the utterances of a batch.

        Args:
            index: (B,) their numbers in the split.
            references: What was said, normalised.
            hypotheses: What was heard, as text.
            ids: The same as ids, none of which is negative.
        """
        for i, reference, hypothesis, own in zip(
            index.tolist(), references, hypotheses, ids, strict=True
        ):
            self.add((i, *_compared(reference, hypothesis), len(own), *own))

    def compute(self) -> Tensor:
        """Return a row for each utterance, by its number: `FACTS`, then the hypothesis's ids with -1 behind them."""
        numbers = self.all()
        facts = len(self.FACTS)
        rows = []
        place = 0
        while place < len(numbers):
            ids = place + facts + 1
            end = ids + int(numbers[ids - 1])
            rows.append(torch.cat((numbers[place : ids - 1], numbers[ids:end])))
            place = end
        if not rows:
            return torch.empty(0, facts, dtype=torch.long)
        rows.sort(key=lambda row: int(row[0]))
        return pad_sequence(rows, batch_first=True, padding_value=-1)


def _compared(reference: str, hypothesis: str) -> tuple[int, ...]:
    found: list[int] = []
    for units in (words, characters):
        expected = units(reference)
        found += (*edits(expected, units(hypothesis)), len(expected))
    return tuple(found)


def build_metrics() -> dict[str, Metric]:
    """Return the metrics of a split: error rates of words and characters, their intervals, and all utterances."""
    return {
        "wer": ErrorRate(words),
        "cer": ErrorRate(characters),
        "wer_interval": ErrorInterval(words),
        "cer_interval": ErrorInterval(characters),
        "utterances": Utterances(),
    }


Row = dict[str, Any]


def tables(
    utterances: Tensor,
    describe: Callable[[int], Mapping[str, Any]],
    decode: Callable[[Sequence[int]], str],
) -> dict[str, list[Row]]:
    """Return what was heard of each utterance, and by speaker, by duration and by word.

    Args:
        utterances: As `Utterances` computes them.
        describe: What is known of an utterance, of `source`, `reference`, `seconds` and `speaker`.
        decode: Makes text of ids.

    Returns:
        `utterances` as `by_utterance` returns them, `confusions`, and `speakers` and `durations` where the data say.
    """
    rows = by_utterance(utterances, describe, decode)
    found = {
        "utterances": rows,
        "speakers": by_speaker(rows),
        "durations": by_duration(rows),
        "confusions": confusions(
            (row["reference"], row["hypothesis"]) for row in rows if row["reference"] is not None
        ),
    }
    return {name: table for name, table in found.items() if table}


def by_utterance(
    utterances: Tensor,
    describe: Callable[[int], Mapping[str, Any]],
    decode: Callable[[Sequence[int]], str],
) -> list[Row]:
    """Return a row for each utterance, those with the most wrong words first, of equals those of the highest rate.

    Arguments are those of `tables`. A row holds `source`, `speaker`, `seconds`, `reference`, `hypothesis`, `wer`, the
    counts of its words' edits, `words`, `cer`, `character_errors` and `characters`, with None for what is not known.
    """
    rows = []
    for numbers in utterances.tolist():
        facts = dict(zip(Utterances.FACTS, numbers, strict=False))
        about = describe(facts["index"])
        wrong = sum(facts[name] for name in Edits._fields)
        character_errors = sum(facts[f"character_{name}"] for name in Edits._fields)
        rows.append(
            {
                "source": about.get("source", f"sample {facts['index']}"),
                "speaker": about.get("speaker"),
                "seconds": about.get("seconds"),
                "reference": about.get("reference"),
                "hypothesis": decode([i for i in numbers[len(facts) :] if i >= 0]),
                "wer": wrong / max(facts["words"], 1),
                **{name: facts[name] for name in Edits._fields},
                "words": facts["words"],
                "cer": character_errors / max(facts["characters"], 1),
                "character_errors": character_errors,
                "characters": facts["characters"],
            }
        )
    return sorted(rows, key=lambda row: (-_wrong(row), -row["wer"]))


def by_speaker(rows: Iterable[Row]) -> list[Row]:
    """Return the error rates of each speaker, the highest first; nothing where no speaker is known.

    Args:
        rows: As `by_utterance` returns them.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["speaker"] is not None:
            groups.setdefault(row["speaker"], []).append(row)
    found = [{"speaker": name, **_pooled(group)} for name, group in groups.items()]
    return sorted(found, key=lambda row: (-row["wer"], row["speaker"]))


def by_duration(rows: Iterable[Row], bins: int = _BINS) -> list[Row]:
    """Return the error rates of utterances from the shortest to the longest, in groups of about equal numbers.

    Utterances of equal duration stay together, so that there may be fewer groups.

    Args:
        rows: As `by_utterance` returns them.
        bins: How many groups.
    """
    known = sorted((row for row in rows if row["seconds"] is not None), key=_seconds)
    ends = sorted(
        {known[-(-len(known) * i // bins) - 1]["seconds"] for i in range(1, bins + 1)}
        if known
        else ()
    )
    groups: list[list[Row]] = [[] for _ in ends]
    for row in known:
        groups[bisect_left(ends, row["seconds"])].append(row)
    return [
        {"shortest": group[0]["seconds"], "longest": group[-1]["seconds"], **_pooled(group)}
        for group in groups
    ]


def _seconds(row: Row) -> float:
    return float(row["seconds"])


def _wrong(row: Row) -> int:
    return sum(row[name] for name in Edits._fields)


def _pooled(group: Sequence[Row]) -> Row:
    def total(name: str) -> int:
        return sum(row[name] for row in group)

    return {
        "utterances": len(group),
        "wer": sum(map(_wrong, group)) / max(total("words"), 1),
        **{name: total(name) for name in (*Edits._fields, "words")},
        "cer": total("character_errors") / max(total("characters"), 1),
    }


def confusions(pairs: Iterable[tuple[str, str]]) -> list[Row]:
    """Return the wrong words, the most frequent first: `reference`, `hypothesis` and `count`.

    An inserted word has an empty reference, a deleted one an empty hypothesis.

    Args:
        pairs: References and hypotheses.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for reference, hypothesis in pairs:
        said, heard = words(reference), words(hypothesis)
        for edit in Levenshtein.editops(said, heard):
            counts[
                "" if edit.tag == "insert" else said[edit.src_pos],
                "" if edit.tag == "delete" else heard[edit.dest_pos],
            ] += 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"reference": a, "hypothesis": b, "count": count} for (a, b), count in ranked]
