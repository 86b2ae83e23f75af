"""Times of words against enumeration of all paths."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchaudio.functional import forced_align

from resdomains_tasks.speech_recognition import alignment
from resdomains_tasks.speech_recognition.alignment import word_times
from resdomains_tasks.speech_recognition.decoding import Greedy, PrefixBeam
from resdomains_tasks.speech_recognition.tokens import BytePairs, Characters, Tokenizer

TOKENIZER = Tokenizer(Characters("ab").train([]).to_str())  # the blank, a, b, ▁


def along(path: list[int], size: int, sureness: float = 0.7) -> Tensor:
    probabilities = torch.full((len(path), size), (1 - sureness) / (size - 1))
    probabilities[torch.arange(len(path)), torch.tensor(path)] = sureness
    return probabilities.log()


def test_words_have_the_times_of_their_tokens() -> None:
    path = [0, 1, 1, 0, 1, 3, 3, 0, 0, 2, 0, 0]
    log_probs = along(path, 4)
    log_probs[4] = torch.tensor([0.3, 0.4, 0.2, 0.1]).log()
    words = word_times(log_probs, [1, 1, 3, 2], TOKENIZER, 0.02)
    assert [(word["word"], word["start"], word["end"]) for word in words] == [
        ("aa", 0.02, 0.1),
        ("b", 0.18, 0.2),
    ]
    # The first token's two frames count once.
    assert words[0]["probability"] == pytest.approx(math.sqrt(0.7 * 0.4))
    assert words[1]["probability"] == pytest.approx(0.7)


def test_times_are_those_of_the_most_probable_of_all_paths() -> None:
    generator = torch.Generator().manual_seed(0)
    for ids in ([1, 2], [1, 1], [2, 3, 1], [1, 3, 3, 1], [3, 1]):
        log_probs = torch.randn(7, 4, generator=generator).log_softmax(-1)
        paths = [
            path
            for path in itertools.product(range(4), repeat=7)
            if [token for token, _ in itertools.groupby(path) if token] == ids
        ]
        best = max(paths, key=lambda path: sum(log_probs[t, c].item() for t, c in enumerate(path)))
        expected, gone = [], True
        frame = 0
        for token, run in itertools.groupby(best):
            length = len(list(run))
            if token == 3:
                gone = True
            elif token:
                if gone:
                    expected.append([frame, frame + length])
                expected[-1][1] = frame + length
                gone = False
            frame += length
        found = word_times(log_probs, ids, TOKENIZER, 1.0)
        assert [[word["start"], word["end"]] for word in found] == expected


@pytest.mark.parametrize("decoder", [Greedy(), PrefixBeam()])
def test_words_are_those_of_the_text_in_order_and_within_the_recording(
    decoder: Greedy | PrefixBeam,
) -> None:
    texts = ["one two three", "seven eleven", "three one"] * 3
    for tokens in (Characters(), BytePairs(30)):
        tokenizer = Tokenizer(tokens.train(texts).to_str())
        decoder.bind(tokenizer)
        for seed in range(10):
            generator = torch.Generator().manual_seed(seed)
            log_probs = (2 * torch.randn(60, tokenizer.size, generator=generator)).log_softmax(-1)
            (ids,) = decoder.decode(log_probs[None], torch.tensor([60]))
            words = word_times(log_probs, ids, tokenizer, 0.04)
            assert " ".join(word["word"] for word in words) == tokenizer.decode(ids)
            times = [time for word in words for time in (word["start"], word["end"])]
            assert times == sorted(times)
            assert all(0.0 <= time <= 60 * 0.04 for time in times)
            assert all(0.0 < word["probability"] <= 1.0 for word in words)


def test_a_long_recording_in_pieces_is_aligned_as_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7000, 4, generator=generator)
    logits[:, 0] += 4
    for frame in range(5, 7000, 9):
        logits[frame, 0] -= 5
        logits[frame, 1 + frame % 3] += 4
    log_probs = logits.log_softmax(-1)
    decoder = PrefixBeam(width=4)
    decoder.bind(TOKENIZER)
    (ids,) = decoder.decode(log_probs[None], torch.tensor([7000]))
    # Not all tokens are those of the best path of frames.
    assert ids != Greedy().decode(log_probs[None], torch.tensor([7000]))[0]
    path = forced_align(log_probs[None], torch.tensor([ids]))[0][0].tolist()
    expected, gone, frame = [], True, 0
    for token, run in itertools.groupby(path):
        if token in (1, 2) and gone:
            expected.append(frame)
        gone = token == 3 or (gone and not token)
        frame += len(list(run))
    lengths = []

    def aligned(log_probs: Tensor, *inputs: Any, **options: Any) -> Any:
        lengths.append(log_probs.shape[1])
        return forced_align(log_probs, *inputs, **options)

    monkeypatch.setattr(alignment, "forced_align", aligned)
    found = word_times(log_probs, ids, TOKENIZER, 1.0)
    assert [word["start"] for word in found] == expected
    assert max(lengths) < 2100
    assert sum(lengths) == 7000


def test_a_long_recording_is_not_cut_where_tokens_are_uncertain() -> None:
    path = [0] * 2100
    for frame, token in ((10, 1), (1990, 3), (2010, 3), (2050, 1)):
        path[frame] = token
    log_probs = along(path, 4)
    log_probs[1998] = torch.tensor([0.5, 0.05, 0.4, 0.05]).log()
    # Greedy decoding, which hears no b, could be cut right behind it.
    found = word_times(log_probs, [1, 3, 2, 3, 1], TOKENIZER, 1.0)
    assert [(word["word"], word["start"]) for word in found] == [
        ("a", 10),
        ("b", 1998),
        ("a", 2050),
    ]


def test_without_tokens_or_room_for_them_there_are_no_words() -> None:
    assert word_times(along([0, 0, 0], 4), [], TOKENIZER, 0.02) == []
    assert word_times(torch.empty(0, 4), [], TOKENIZER, 0.02) == []
    assert word_times(along([0, 0, 0], 4), [3], TOKENIZER, 0.02) == []  # a pause is no word
    assert word_times(along([1, 1], 4), [1, 1], TOKENIZER, 0.02) == []
    assert word_times(torch.empty(0, 4), [1], TOKENIZER, 0.02) == []
    (word,) = word_times(along([1], 4), [1], TOKENIZER, 0.02)
    assert (word["start"], word["end"]) == (0.0, 0.02)


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_where_no_path_is_possible_words_still_have_times(value: float) -> None:
    (word,) = word_times(torch.full((3, 4), value), [1, 2], TOKENIZER, 0.02)
    assert (word["word"], word["probability"]) == ("ab", 0.0)
