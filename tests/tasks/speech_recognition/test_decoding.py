"""Decoders against enumeration of all paths, and against texts whose probability is known."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.nn import functional as F

from resdomains_tasks.speech_recognition.decoding import Decoder, Greedy, PrefixBeam
from resdomains_tasks.speech_recognition.tokens import BytePairs, Characters, Tokenizer

EVERYTHING = 100_000


def spelling(alphabet: str) -> Tokenizer:
    return Tokenizer(Characters(alphabet).train([]).to_str())


def noise(*shape: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * spread).log_softmax(-1)


def collapsed(path: tuple[int, ...] | list[int]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token]


def heard(decoder: Decoder, log_probs: Tensor) -> list[int]:
    return decoder.decode(log_probs[None], torch.tensor([len(log_probs)]))[0]


def bound(tokenizer: Tokenizer, **options: object) -> PrefixBeam:
    decoder = PrefixBeam(**options)  # type: ignore[arg-type]
    decoder.bind(tokenizer)
    return decoder


def every_text(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """The log-probability of each text, summed over all of its paths."""
    texts: dict[tuple[int, ...], float] = {}
    rows = log_probs.double().tolist()
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(rows)):
        probability = math.exp(sum(row[token] for row, token in zip(rows, path, strict=True)))
        text = tuple(collapsed(path))
        texts[text] = texts.get(text, 0.0) + probability
    return {text: math.log(probability) for text, probability in texts.items()}


def most_probable(texts: dict[tuple[int, ...], float]) -> tuple[int, ...]:
    return max(texts, key=texts.__getitem__)


def log_probability(log_probs: Tensor, ids: list[int]) -> float:
    loss = F.ctc_loss(
        log_probs.double()[:, None],
        torch.tensor([ids], dtype=torch.long),
        torch.tensor([len(log_probs)]),
        torch.tensor([len(ids)]),
        reduction="sum",
    )
    return -float(loss)


def spoken(text: list[int], tokens: int, seed: int) -> Tensor:
    """What a trained network gives: peaks for tokens, sometimes two frames long or unsure, blanks between."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6 * len(text) + 4, tokens, generator=generator)
    logits[:, 0] += 6
    for place, token in enumerate(text):
        frame = 6 * place + 2 + int(torch.randint(3, (), generator=generator))
        for at in range(frame, frame + 1 + place % 2):
            logits[at, 0] -= 5
            logits[at, token] += 2 + 3 * torch.rand((), generator=generator)
    return logits.log_softmax(-1)


def test_greedy_is_the_best_path_without_repeats_and_blanks() -> None:
    log_probs, frames = noise(30, 25, 4), torch.randint(0, 26, (30,))
    expected = [
        collapsed(own[:count].argmax(1).tolist())
        for own, count in zip(log_probs, frames.tolist(), strict=True)
    ]
    assert Greedy().decode(log_probs, frames) == expected
    assert Greedy().decode(torch.empty(0, 5, 4), torch.empty(0, dtype=torch.long)) == []


def test_prefix_beam_equals_enumeration_when_nothing_is_dropped() -> None:
    tokenizer = spelling("ab")
    decoder = bound(tokenizer, width=EVERYTHING, min_probability=0.0)
    for seed in range(30):
        log_probs = noise(1 + seed % 5, tokenizer.size, spread=0.3 + seed % 4, seed=seed)
        texts = every_text(log_probs)
        assert heard(decoder, log_probs) == list(most_probable(texts))


def plain_search(log_probs: Tensor, width: int) -> list[int]:
    """Prefix beam search as in the paper, over a dictionary of texts."""
    # Probabilities of the paths that end with a blank, and with the last token.
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (1.0, 0.0)}
    for row in log_probs.double().exp().tolist():
        grown: dict[tuple[int, ...], list[float]] = {}
        for text, (blank, token) in beam.items():
            own = grown.setdefault(text, [0.0, 0.0])
            own[0] += (blank + token) * row[0]
            if text:
                own[1] += token * row[text[-1]]
            for added in range(1, len(row)):
                before = blank if text and text[-1] == added else blank + token
                grown.setdefault((*text, added), [0.0, 0.0])[1] += before * row[added]
        best = sorted(grown, key=lambda text: -sum(grown[text]))[:width]
        beam = {text: (grown[text][0], grown[text][1]) for text in best}
    return list(most_probable({text: sum(ends) for text, ends in beam.items()}))


@pytest.mark.parametrize("width", [1, 2, 3, 6])
def test_prefix_beam_keeps_what_the_paper_keeps(width: int) -> None:
    tokenizer = spelling("ab")
    decoder = bound(tokenizer, width=width, min_probability=0.0)
    for seed in range(60):
        log_probs = noise(14, tokenizer.size, spread=0.7, seed=seed)
        assert heard(decoder, log_probs) == plain_search(log_probs, width)


def test_prefix_beam_finds_the_text_that_many_paths_share() -> None:
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    log_probs = torch.cat((log_probs, torch.full((2, 1), -math.inf)), 1)
    assert heard(Greedy(), log_probs) == []  # 0.36 against 0.64 of a, aa, a- and -a
    assert heard(bound(spelling("a"), width=2), log_probs) == [1]


@pytest.mark.parametrize("width", [4, 16])
def test_prefix_beam_is_never_less_probable_than_greedy(width: int) -> None:
    tokenizer = spelling("abcdefghijklmnopqrstuvwxyz'")
    decoder = bound(tokenizer, width=width)
    better = 0
    for seed in range(40):
        text = [1 + (7 * seed + 5 * i * i) % (tokenizer.size - 1) for i in range(12)]
        log_probs = spoken(text, tokenizer.size, seed)
        gained = log_probability(log_probs, heard(decoder, log_probs)) - log_probability(
            log_probs, heard(Greedy(), log_probs)
        )
        assert gained > -1e-9
        better += gained > 1e-9
    assert better > 0


@pytest.mark.parametrize("decoder", [Greedy(), PrefixBeam(width=8)])
def test_a_text_depends_neither_on_the_batch_nor_on_what_lies_behind_its_frames(
    decoder: Decoder,
) -> None:
    tokenizer = spelling("abc")
    decoder.bind(tokenizer)
    log_probs, frames = noise(6, 40, tokenizer.size), torch.tensor([40, 31, 1, 0, 17, 25])
    together = decoder.decode(log_probs, frames)
    assert together[3] == []
    for own, count, ids in zip(log_probs, frames.tolist(), together, strict=True):
        assert heard(decoder, own[:count]) == ids


def test_tokens_that_are_too_improbable_are_not_appended() -> None:
    tokenizer = spelling("ab")
    log_probs = torch.tensor([[0.5, 0.3, 0.1, 0.1]]).log()
    open_to_all = bound(tokenizer, hotwords=["b"], bonus=9.0, min_probability=0.05)
    assert heard(open_to_all, log_probs) == [2]
    closed = bound(tokenizer, hotwords=["b"], bonus=9.0, min_probability=0.2)
    assert heard(closed, log_probs) == []
    # The most probable always is.
    even = torch.tensor([[0.2, 0.4, 0.2, 0.2]]).log()
    assert heard(bound(tokenizer, min_probability=0.9), even) == [1]


def bonus_of(
    text: tuple[int, ...], tokenizer: Tokenizer, hotwords: list[str], bonus: float
) -> float:
    spelled = "".join(tokenizer.pieces[token] for token in text)
    return sum(bonus * len(word) for word in spelled.split("▁") if word in hotwords)


@pytest.mark.parametrize("hotwords", [["ab"], ["ab", "aba"], ["b", "ab"], ["aa"]])
def test_hotwords_add_their_bonus_to_words_that_are_complete(hotwords: list[str]) -> None:
    tokenizer, bonus = spelling("ab"), 1.5
    decoder = bound(
        tokenizer, width=EVERYTHING, min_probability=0.0, hotwords=hotwords, bonus=bonus
    )
    changed = 0
    for seed in range(40):
        log_probs = noise(5, tokenizer.size, spread=1.0, seed=seed)
        texts = every_text(log_probs)
        raised = {
            text: value + bonus_of(text, tokenizer, hotwords, bonus)
            for text, value in texts.items()
        }
        best = most_probable(raised)
        assert heard(decoder, log_probs) == list(best)
        changed += best != most_probable(texts)
    assert changed > 0


def test_hotwords_are_spelled_as_the_vocabulary_spells_them() -> None:
    tokenizer = Tokenizer(BytePairs(40).train(["seven eleven seventeen heaven"] * 9).to_str())
    ids = tokenizer.encode("heaven seven")
    unsure = torch.full((4 * len(ids), tokenizer.size), -20.0)
    unsure[:, 0] = 0.0
    for place, token in enumerate(ids):
        unsure[4 * place, token] = -0.5
    log_probs = unsure.log_softmax(-1)
    assert heard(bound(tokenizer), log_probs) == []
    both = bound(tokenizer, hotwords=["Seven", " HEAVEN! "], bonus=3.0)
    assert tokenizer.decode(heard(both, log_probs)) == "heaven seven"
    assert (
        tokenizer.decode(heard(bound(tokenizer, hotwords=["seven"], bonus=3.0), log_probs))
        == "seven"
    )
    # A word that only begins as it does gets nothing.
    longer = bound(tokenizer, hotwords=["sevenseven", "heavenseven"], bonus=3.0)
    assert heard(longer, log_probs) == []


@pytest.mark.parametrize(
    ("hotword", "message"),
    [
        ("zoë", "'zoë' cannot be spelled with the vocabulary: no token spells 'o'"),
        ("...", "'...' is nothing after normalisation; give single words"),
        ("ab ba", r"'ab ba' is the words \['ab', 'ba'\] after normalisation; give single words"),
    ],
)
def test_a_hotword_that_cannot_be_used_is_refused_by_name(hotword: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bound(spelling("abz"), hotwords=["ab", hotword])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PrefixBeam(width=0), "width must be at least 1, got 0"),
        (lambda: PrefixBeam(bonus=-1.0), "bonus must be a finite number of at least 0, got -1.0"),
        (lambda: PrefixBeam(bonus=math.inf), "bonus must be a finite number"),
        (lambda: PrefixBeam(min_probability=1.0), "min_probability must be at least 0 and below 1"),
        (
            lambda: PrefixBeam(hotwords="seven"),
            "hotwords must be a list of words, got the text 'seven'",
        ),
    ],
)
def test_wrong_options_are_refused(make: Callable[[], Decoder], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_cannot_be_decoded_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call bind"):
        heard(PrefixBeam(), noise(3, 4))
    with pytest.raises(ValueError, match="log_probs holds NaN"):
        heard(bound(spelling("ab")), torch.full((3, 4), torch.nan))


def test_probabilities_of_exactly_zero_are_paths_that_do_not_exist() -> None:
    path = [0, 1, 1, 0, 1, 2, 2]
    certain = F.one_hot(torch.tensor(path), 4).float().log()
    assert heard(bound(spelling("ab"), hotwords=["b"]), certain) == [1, 1, 2]


def test_options_are_read_from_yaml() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Decoder, "decoder")
    options = {
        "class_path": f"{PrefixBeam.__module__}.PrefixBeam",
        "init_args": {"hotwords": ["a"]},
    }
    made = parser.instantiate(parser.parse_object({"decoder": options})).decoder
    assert isinstance(made, PrefixBeam)
    assert made.hotwords == ["a"]
