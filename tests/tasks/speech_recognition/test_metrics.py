"""Errors against an independent alignment, torchmetrics and numpy; over processes against one."""

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import char_error_rate, word_error_rate

from resdomains_tasks.speech_recognition.metrics import (
    ErrorInterval,
    ErrorRate,
    Utterances,
    bootstrap,
    build_metrics,
    by_duration,
    by_speaker,
    by_utterance,
    characters,
    confusions,
    edits,
    tables,
    words,
)
from tests.pairs import in_two_processes

LETTERS = " abcdé"  # ids are places in it, so that no tokenizer is needed
Batch = tuple[Tensor, list[str], list[str], list[list[int]]]


def decode(ids: Any) -> str:
    return "".join(LETTERS[i] for i in ids)


def encode(text: str) -> list[int]:
    return [LETTERS.index(c) for c in text]


@cache
def pairs(count: int = 60) -> list[tuple[str, str]]:
    """References and what was heard, in words of two letters; some are empty."""
    source = random.Random(0)
    found = []
    for _ in range(count):
        said = [source.choice("abcd") + source.choice("aé") for _ in range(source.randint(0, 7))]
        heard = []
        for word in said:
            heard += [word] * source.choice([1, 1, 1, 1, 0, 2])
            if source.random() < 0.2:
                heard[-1:] = [source.choice("abcd") + "é"]
        found.append((" ".join(said), " ".join(heard)))
    return [*found, ("", "ab ab"), ("ab", ""), ("", "")]


def batch(places: list[int]) -> Batch:
    said, heard = [pairs()[i][0] for i in places], [pairs()[i][1] for i in places]
    return torch.tensor(places), said, heard, [encode(text) for text in heard]


def filled(metric: Metric, batches: list[list[int]]) -> Metric:
    for places in batches:
        metric.update(*batch(places))
    return metric


EVERY = list(range(len(pairs())))


def fewest(reference: str | list[str], hypothesis: str | list[str]) -> int:
    """The edit distance, by the textbook's table."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0], table[0] = range(len(reference) + 1), range(len(hypothesis) + 1)
    for i, a in enumerate(reference, 1):
        for j, b in enumerate(hypothesis, 1):
            table[i, j] = min(
                table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b)
            )
    return int(table[-1, -1])


def test_edits_are_the_fewest_and_make_the_hypothesis() -> None:
    for said, heard in pairs():
        for reference, hypothesis in ((said, heard), (said.split(), heard.split())):
            found = edits(reference, hypothesis)
            assert sum(found) == fewest(reference, hypothesis)
            assert len(reference) - found.deletions + found.insertions == len(hypothesis)
    assert edits("abc", "axc") == (1, 0, 0)
    assert edits(["ab", "b"], ["b"]) == (0, 1, 0)
    assert edits([], ["b", "b"]) == (0, 0, 2)


def test_error_rates_are_those_of_torchmetrics() -> None:
    said, heard = zip(*pairs(), strict=True)
    for units, peer in ((words, word_error_rate), (characters, char_error_rate)):
        metric = filled(ErrorRate(units), [EVERY[:20], EVERY[20:21], EVERY[21:]])
        assert float(metric.compute()) == pytest.approx(float(peer(list(heard), list(said))))


def test_more_may_be_wrong_than_there_is_and_empty_references_only_add_errors() -> None:
    metric = ErrorRate(words)
    index = torch.tensor([0])
    metric.update(index, [""], ["a b c"], [[1, 2, 3]])
    assert metric.compute() == 3
    metric.update(index, ["a b"], ["a c"], [[1, 3]])
    assert metric.compute() == 2
    empty = ErrorRate(words)
    empty.update(index, [""], [""], [[]])
    assert empty.compute() == 0


def test_the_interval_is_that_of_splits_drawn_with_replacement() -> None:
    source = np.random.default_rng(5)
    lengths = source.integers(0, 12, 200)
    errors = source.binomial(lengths, 0.15) + source.binomial(1, 0.05, 200)
    drawn = source.integers(0, 200, (20_000, 200))
    rates = errors[drawn].sum(1) / lengths[drawn].sum(1)
    expected = np.quantile(rates, (0.025, 0.975))
    found = bootstrap(torch.tensor(np.stack((errors, lengths), 1)))
    # A percentile of 1000 draws varies by 0.12 standard deviations here or less.
    assert np.abs(found.numpy() - expected).max() < 0.35 * rates.std()
    assert found[0] < errors.sum() / lengths.sum() < found[1]


def test_the_interval_is_the_same_in_every_run_and_order() -> None:
    forth = filled(ErrorInterval(words), [EVERY[:9], EVERY[9:]]).compute()
    assert torch.equal(filled(ErrorInterval(words), [EVERY[::-1]]).compute(), forth)
    assert not torch.equal(filled(ErrorInterval(characters), [EVERY]).compute(), forth)


def test_intervals_of_few_utterances() -> None:
    assert bootstrap(torch.empty(0, 2, dtype=torch.long)).isnan().all()
    assert bootstrap(torch.tensor([[1, 4]])).tolist() == [0.25, 0.25]
    # Of two, both ends come up in every fourth draw.
    assert bootstrap(torch.tensor([[0, 4], [4, 4]])).tolist() == [0.0, 1.0]
    assert bootstrap(torch.tensor([[3, 0]])).tolist() == [3.0, 3.0]


def test_utterances_are_in_order_with_their_edits_and_ids() -> None:
    order = EVERY[::-1]
    rows = filled(Utterances(), [order[:30], order[30:]]).compute()
    assert rows[:, 0].tolist() == EVERY
    for row, (said, heard) in zip(rows.tolist(), pairs(), strict=True):
        facts = dict(zip(Utterances.FACTS, row, strict=False))
        assert (facts["substitutions"], facts["deletions"], facts["insertions"]) == edits(
            said.split(), heard.split()
        )
        assert facts["character_substitutions"] == edits(said, heard).substitutions
        assert facts["character_deletions"] == edits(said, heard).deletions
        assert facts["character_insertions"] == edits(said, heard).insertions
        assert (facts["words"], facts["characters"]) == (len(said.split()), len(said))
        ids = row[len(facts) :]
        assert decode(i for i in ids if i >= 0) == heard
        assert ids == encode(heard) + [-1] * (len(ids) - len(heard))
    assert filled(Utterances(), [[]]).compute().shape == (0, len(Utterances.FACTS))


def test_a_metric_begins_anew_after_an_epoch() -> None:
    for metric in build_metrics().values():
        expected = filled(metric, [EVERY[:20]]).compute()
        metric.reset()
        assert torch.equal(filled(metric, [EVERY[:20]]).compute(), expected)


# The batches of two processes; the last may leave one without any.
SHARES = [
    ([EVERY[::2]], [EVERY[1:20:2], EVERY[21::2]]),
    ([EVERY[:4], EVERY[4:]], []),
    ([], [EVERY]),
]


def work(rank: int) -> list[dict[str, Any]]:
    return [
        {name: filled(m, share[rank]).compute() for name, m in build_metrics().items()}
        for share in SHARES
    ]


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    alone = {name: filled(m, [EVERY]).compute() for name, m in build_metrics().items()}
    for rank in in_two_processes(work, tmp_path):
        for found in rank:
            assert found.keys() == alone.keys()
            for name, value in alone.items():
                assert torch.equal(found[name], value), name


def describe(index: int) -> dict[str, Any]:
    return {
        "source": f"s{index}",
        "reference": pairs()[index][0],
        "speaker": "xyz"[index % 3],
        "seconds": 0.5 * (index % 8),
    }


def rows(**known: Any) -> list[dict[str, Any]]:
    computed = filled(Utterances(), [EVERY]).compute()
    return by_utterance(computed, lambda index: describe(index) | known, decode)


def test_the_worst_utterances_come_first() -> None:
    found = rows()
    assert {(row["source"], row["reference"], row["hypothesis"]) for row in found} == {
        (f"s{i}", *pair) for i, pair in enumerate(pairs())
    }
    errors = [fewest(row["reference"].split(), row["hypothesis"].split()) for row in found]
    assert [row["substitutions"] + row["deletions"] + row["insertions"] for row in found] == errors
    assert errors == sorted(errors, reverse=True)
    for row, wrong in zip(found, errors, strict=True):
        assert row["wer"] == wrong / max(len(row["reference"].split()), 1)
        letters = fewest(row["reference"], row["hypothesis"])
        assert row["cer"] == letters / max(len(row["reference"]), 1)
    keys = [(wrong, row["wer"]) for row, wrong in zip(found, errors, strict=True)]
    assert keys == sorted(keys, reverse=True)
    assert all(row.keys() == found[0].keys() for row in found)


def test_each_speaker_has_the_errors_of_all_their_utterances() -> None:
    found = by_speaker(rows())
    assert sorted(row["speaker"] for row in found) == ["x", "y", "z"]
    for row in found:
        own = [pair for i, pair in enumerate(pairs()) if "xyz"[i % 3] == row["speaker"]]
        said, heard = (list(texts) for texts in zip(*own, strict=True))
        assert row["utterances"] == len(own)
        assert row["wer"] == pytest.approx(float(word_error_rate(heard, said)))
        assert row["cer"] == pytest.approx(float(char_error_rate(heard, said)))
    rates = [row["wer"] for row in found]
    assert rates == sorted(rates, reverse=True)
    assert by_speaker(rows(speaker=None)) == []


def test_durations_are_grouped_in_about_equal_numbers_and_ties_stay_together() -> None:
    found = by_duration(rows(), bins=4)
    assert [(row["shortest"], row["longest"]) for row in found] == [
        (0.0, 0.5),
        (1.0, 1.5),
        (2.0, 2.5),
        (3.0, 3.5),
    ]
    assert sum(row["utterances"] for row in found) == len(EVERY)
    assert max(row["utterances"] for row in found) < 1.2 * len(EVERY) / 4
    (one,) = by_duration(rows(seconds=2.0))
    assert (one["shortest"], one["longest"], one["utterances"]) == (2.0, 2.0, len(EVERY))
    assert len(by_duration(rows()[:2])) <= 2
    assert by_duration(rows(seconds=None)) == []


def test_confused_words_are_counted() -> None:
    found = confusions([("a b c", "a x c"), ("b", "x"), ("a b", "b"), ("", "y"), ("a", "a")])
    assert [(row["reference"], row["hypothesis"], row["count"]) for row in found] == [
        ("b", "x", 2),
        ("", "y", 1),
        ("a", "", 1),
    ]
    total = sum(fewest(said.split(), heard.split()) for said, heard in pairs())
    assert sum(row["count"] for row in confusions(pairs())) == total


def test_tables_hold_what_the_data_say() -> None:
    computed = filled(Utterances(), [EVERY]).compute()
    found = tables(computed, describe, decode)
    assert list(found) == ["utterances", "speakers", "durations", "confusions"]
    bare = tables(computed, lambda index: {}, decode)
    assert list(bare) == ["utterances"]
    assert bare["utterances"][0]["source"].startswith("sample ")
    for name, table in found.items():
        assert all(row.keys() == table[0].keys() for row in table), name
