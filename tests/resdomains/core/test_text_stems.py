from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch

from resdomains.core import (
    CharacterStem,
    LayerNorm,
    NGramStem,
    Place,
    ResNet1d,
    ResNet2d,
    Stem,
    Table,
    WordNGramStem,
)
from resdomains.core.activations import ReLU
from resdomains.core.norms import BatchNorm

LETTERS, SPACES = "abcdefg", " .,"


def encode(*texts: str) -> torch.Tensor:
    """Ids, the letters from 3 to 9 and three ids between words, texts padded with a letter."""
    size = max(map(len, texts))
    return torch.tensor([[(SPACES + LETTERS).index(c) for c in t.ljust(size, "a")] for t in texts])


def build(vocabulary: int = 7, width: int = 5, **options: object) -> NGramStem:
    place = Place(vocabulary, width, BatchNorm, ReLU, dims=1)
    stem = NGramStem(place, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(stem.get_parameter("grams.weight"))
    return stem.eval()


def vectors(stem: Stem, ids: torch.Tensor) -> torch.Tensor:
    """``(B, L, D)``."""
    y: torch.Tensor = stem(stem.read(ids))
    return y.squeeze(2).mT


def test_a_position_has_the_sum_of_the_vectors_of_the_n_grams_that_end_there() -> None:
    torch.manual_seed(0)
    stem = build(orders=(1, 2, 3), buckets=4096)
    parts = {n: build(orders=(n,), buckets=4096) for n in (1, 2, 3)}
    for part in parts.values():
        part.load_state_dict(stem.state_dict())
    ids = torch.randint(0, 7, (4, 9))
    torch.testing.assert_close(vectors(stem, ids), sum(vectors(p, ids) for p in parts.values()))
    torch.testing.assert_close(vectors(parts[1], ids), stem.get_parameter("grams.weight")[ids])
    for n in (2, 3):
        of_gram: dict[tuple[int, ...], torch.Tensor] = {}
        every = torch.tensor(list(product(range(7), repeat=n)))
        for gram, vector in zip(every.tolist(), vectors(parts[n], every)[:, n - 1], strict=True):
            of_gram[tuple(gram)] = vector
        for row, sums in zip(ids.tolist(), vectors(parts[n], ids), strict=True):
            assert not sums[: n - 1].any()
            for end in range(n - 1, 9):
                torch.testing.assert_close(sums[end], of_gram[tuple(row[end - n + 1 : end + 1])])
        # By chance some of 7^3 = 343 n-grams share one of 4096 buckets: 14 are expected to.
        assert len({tuple(vector.tolist()) for vector in of_gram.values()}) > 0.9 * len(of_gram)


def test_n_grams_of_two_lengths_and_orders_of_ids_differ() -> None:
    torch.manual_seed(0)
    bigrams, trigrams = build(orders=(2,)), build(orders=(3,))
    trigrams.load_state_dict(bigrams.state_dict())
    ids = torch.tensor([[0, 0, 0, 1, 2, 2, 1]])
    two, three = vectors(bigrams, ids)[0], vectors(trigrams, ids)[0]
    assert torch.equal(two[1], two[2])
    assert not torch.equal(two[2], three[2])
    assert not torch.equal(two[4], two[6])  # (1, 2) and (2, 1)


def test_n_grams_never_met_change_nothing() -> None:
    stem = NGramStem(Place(7, 5, BatchNorm, ReLU, dims=1), orders=(1, 2), buckets=64)
    ids = torch.randint(0, 7, (2, 6))
    torch.testing.assert_close(vectors(stem, ids), stem.get_parameter("grams.weight")[ids])


def test_vectors_of_ids_start_as_spread_as_asked_and_others_at_zero() -> None:
    torch.manual_seed(0)
    for std in (0.0, 0.1, 2.0):
        place = Place(1000, 8, BatchNorm, ReLU, dims=1)
        weight = NGramStem(place, buckets=64, std=std).get_parameter("grams.weight").detach()
        assert abs(float(weight[:1000].std()) - std) < 0.05 * std + 1e-9
        assert not weight[1000:].any()


def test_with_letters_only_runs_within_a_word_and_its_neighbours_count() -> None:
    torch.manual_seed(0)
    ids = encode(".ab cd,  e bad.a")
    for n in (1, 2, 3, 4, 5):
        anywhere = build(10, orders=(n,))
        within = build(10, orders=(n,), letters=(3, 9))
        within.load_state_dict(anywhere.state_dict())
        expected = vectors(anywhere, ids)[0].detach().clone()
        for end, row in enumerate(expected):
            inner = ids[0, max(end - n + 2, 0) : end].tolist()
            if any(number < 3 for number in inner):
                row.zero_()
        torch.testing.assert_close(vectors(within, ids)[0], expected)


def words_of(text: str, **options: object) -> torch.Tensor:
    """What a stem of words makes of a text, ``(L, D)``."""
    torch.manual_seed(0)
    place = Place(10, 5, BatchNorm, ReLU, dims=1)
    stem = WordNGramStem(place, letters=(3, 9), **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(stem.get_parameter("grams.weight"))
    return vectors(stem.eval(), encode(text))[0]


def test_a_word_has_one_vector_wherever_it_stands_and_where_it_ends() -> None:
    found = words_of("bad .bad, a bad", orders=(1,))
    ends = [2, 7, 10, 14]
    assert found.abs().sum(1).nonzero().flatten().tolist() == ends
    assert torch.equal(found[2], found[7])
    assert torch.equal(found[2], found[14])
    assert not torch.equal(found[2], found[10])


@pytest.mark.parametrize("other", ["dab", "bd", "baad", "abd", "b", "bada"])
def test_other_words_have_other_vectors(other: str) -> None:
    assert not torch.equal(words_of("bad", orders=(1,))[-1], words_of(other, orders=(1,))[-1])


def test_words_of_an_alphabet_hardly_share_vectors() -> None:
    texts = [" ".join("".join(word) for word in product("abcde", repeat=n)) for n in (1, 2, 3, 4)]
    rows = torch.cat([words_of(text, orders=(1,), buckets=2**20) for text in texts])
    rows = rows[rows.any(1)]
    assert len(rows) == 5 + 25 + 125 + 625
    # By chance 0.3 of the 780 words meet another.
    assert len({tuple(row.tolist()) for row in rows}) > 775


def test_runs_of_words_count_what_stands_between_for_nothing_and_their_order_for_much() -> None:
    close, apart = words_of("ab cd e", orders=(2,)), words_of(",ab.  cd ,e.", orders=(2,))
    assert close.abs().sum(1).nonzero().flatten().tolist() == [4, 6]
    assert torch.equal(close[[4, 6]], apart[[7, 10]])
    assert not torch.equal(close[4], words_of("cd ab", orders=(2,))[-1])
    assert not torch.equal(close[4], words_of("abcd", orders=(1, 2))[-1])
    # Beside the words themselves, each run of two and of three of them.
    three = words_of("ab cd e", orders=(1, 2, 3))
    sums = sum(words_of("ab cd e", orders=(n,)) for n in (1, 2, 3))
    torch.testing.assert_close(three, sums)
    assert words_of("ab cd e", orders=(3,)).any(1).nonzero().flatten().tolist() == [6]


def test_a_text_without_words_is_zero() -> None:
    assert not words_of(" ., .").any()


@pytest.mark.parametrize(
    "stem",
    [
        partial(NGramStem, orders=(1, 2, 4), buckets=128),
        partial(WordNGramStem, letters=(3, 9), orders=(1, 2), buckets=128),
    ],
)
def test_a_text_alone_is_the_text_in_a_batch(stem: Callable[[Place], Stem]) -> None:
    torch.manual_seed(0)
    network = ResNet1d((2,), (6,), 10, stem=stem, norm=LayerNorm)
    torch.nn.init.normal_(network.get_parameter("stem.grams.weight"))
    # Padding is a letter, with which the last word would go on.
    ids = encode("ab. cdc a", "b ac")
    together = network.eval()(ids, torch.tensor([9, 4])).maps[-1]
    torch.testing.assert_close(network(ids[1:, :4]).maps[-1][0], together[1, :, :4])


def test_dropout_keeps_the_expected_sum_and_works_in_training_only() -> None:
    torch.manual_seed(0)
    stem = build(orders=(1, 2), buckets=64, gram_dropout=0.5, dropout=0.25)
    ids = torch.randint(0, 7, (1, 4))
    expected = vectors(stem, ids)
    stem.train()
    drawn = vectors(stem, ids.expand(20000, -1))
    torch.testing.assert_close(drawn.mean(0, keepdim=True), expected, rtol=0, atol=0.15)
    # Of a position's two n-grams none is left with chance 1/4, and then all numbers are zero.
    assert abs(float((drawn[:, 2] == 0).all(1).float().mean()) - 0.25) < 0.02
    assert not stem.eval().training
    assert torch.equal(vectors(stem, ids), expected)


def test_training_without_dropout_sums_what_evaluation_sums() -> None:
    torch.manual_seed(0)
    stem = build(orders=(1, 3), buckets=64)
    ids = torch.randint(0, 7, (3, 9))
    expected = vectors(stem, ids)
    found = vectors(stem.train(), ids)
    torch.testing.assert_close(found, expected)
    weight = stem.get_parameter("grams.weight")
    wanted = torch.autograd.grad(expected.square().sum(), weight)
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), weight), wanted)


def test_texts_without_any_n_gram_train_on() -> None:
    place = Place(10, 5, BatchNorm, ReLU, dims=1)
    stem = WordNGramStem(place, letters=(3, 9), buckets=64)
    y = vectors(stem, encode(" . ,", ".,,."))
    assert not y.any()
    (gradient,) = torch.autograd.grad(y.sum(), list(stem.parameters()))
    assert not gradient.any()


@pytest.mark.parametrize(
    "stem",
    [
        CharacterStem,
        partial(NGramStem, orders=(1, 2, 4), buckets=128, gram_dropout=0.3),
        partial(WordNGramStem, letters=(3, 9), orders=(1, 2), buckets=128),
    ],
)
def test_a_sparse_gradient_is_the_dense_one(stem: Callable[[Place], Stem]) -> None:
    torch.manual_seed(0)
    built = stem(Place(10, 5, BatchNorm, ReLU, dims=1))
    (table,) = (module for module in built.modules() if isinstance(module, Table))
    found = []
    for sparse in (False, True):
        table.sparse = sparse
        torch.manual_seed(1)
        y = vectors(built, encode("ab. cdc a", "b ac")).exp().square().sum()
        (gradient,) = torch.autograd.grad(y, table.weight)
        assert gradient.is_sparse == sparse
        found.append(gradient.to_dense())
    assert found[0].any()
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orders": ()}, r"orders: expected different numbers from 1.*got \[\]"),
        ({"orders": (0, 1)}, r"orders: expected different numbers from 1.*got \[0, 1\]"),
        ({"orders": (2, 2)}, r"orders: expected different numbers.*got \[2, 2\]"),
        ({"buckets": 0}, "buckets: expected at least 1, got 0"),
        ({"gram_dropout": 1.0}, r"gram_dropout: expected a chance in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout: expected a chance in \[0, 1\), got -0.1"),
        ({"std": -1.0}, "std: expected a standard deviation of at least 0, got -1.0"),
        ({"letters": (3, 7)}, r"letters: .* from 0 to 6 .*in_channels=7\), got \[3, 7\]"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"letters": (4, 2)},
            r"letters: expected the first and the last id.*from 0 to 9.*\[4, 2\]",
        ),
        ({"letters": (2, 10)}, r"letters:.*built with in_channels=10\), got \[2, 10\]"),
        ({"letters": (-1, 3)}, r"letters: .*got \[-1, 3\]"),
        ({"orders": (0,)}, r"orders: expected different numbers from 1.*got \[0\]"),
        ({"buckets": 0}, "buckets: expected at least 1, got 0"),
        ({"gram_dropout": -0.1}, r"gram_dropout: expected a chance in \[0, 1\), got -0.1"),
        ({"dropout": 1.0}, r"dropout: expected a chance in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_options_of_words_are_named(options: dict[str, object], message: str) -> None:
    place = Place(10, 5, BatchNorm, ReLU, dims=1)
    with pytest.raises(ValueError, match=message):
        WordNGramStem(place, **{"letters": (2, 9), **options})  # type: ignore[arg-type]


def test_n_grams_have_one_axis() -> None:
    with pytest.raises(ValueError, match="stem=NGramStem reads one axis of text"):
        ResNet2d(stem=NGramStem)
    with pytest.raises(ValueError, match="stem=WordNGramStem reads one axis of text"):
        ResNet2d(stem=partial(WordNGramStem, letters=(0, 1)))
