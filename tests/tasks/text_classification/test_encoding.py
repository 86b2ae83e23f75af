import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from resdomains_tasks.text_classification import encoding
from resdomains_tasks.text_classification.encoding import Encoded, Encoder
from resdomains_tasks.text_classification.tokens import (
    BytePairs,
    Bytes,
    Characters,
    Tokens,
    WordPiece,
)

TEXTS = ["The film is good.", "A plot about films, about plots!", "so", "not bad at all " * 9]
KINDS: list[Tokens] = [Characters(), Bytes(), WordPiece(vocabulary=120), BytePairs(vocabulary=300)]


def name(tokens: Tokens) -> str:
    return type(tokens).__name__


def tokenizer(tokens: Tokens | None = None) -> Tokenizer:
    return (tokens or WordPiece(vocabulary=120)).train(TEXTS)


def encoder(tokens: Tokens | None = None, length: int = 64, keep: str = "head") -> Encoder:
    return Encoder(tokenizer(tokens).to_str(), length, keep)


def items(encoded: Encoded) -> list[list[int]]:
    ids, places = encoded.ids.tolist(), encoded.offsets.tolist()
    return [ids[begin:end] for begin, end in itertools.pairwise(places)]


def same(one: Encoded, other: Encoded) -> bool:
    return all(
        a is b if a is None or b is None else torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


@pytest.mark.parametrize("tokens", KINDS, ids=name)
def test_ids_are_the_tokenizers_own(tokens: Tokens) -> None:
    encoded = encoder(tokens, 500).encode(TEXTS)
    assert items(encoded) == [tokenizer(tokens).encode(text).ids for text in TEXTS]
    assert encoded.cut == 0
    assert encoded.types is None
    assert encoded.ids.dtype == torch.int32


def test_pairs_name_the_text_of_each_token() -> None:
    encoded = encoder().encode(TEXTS[:2], TEXTS[1:3])
    wanted = [tokenizer().encode(*pair) for pair in itertools.pairwise(TEXTS[:3])]
    assert items(encoded) == [found.ids for found in wanted]
    assert encoded.types is not None
    assert encoded.types.tolist() == [t for found in wanted for t in found.type_ids]


@pytest.mark.parametrize("keep", ["head", "tail", "both"])
def test_longer_items_are_cut_and_counted(keep: str) -> None:
    encoded = encoder(length=8, keep=keep).encode(TEXTS)
    whole = items(encoder(length=500).encode(TEXTS))
    assert encoded.cut == sum(len(ids) > 8 for ids in whole) == 2
    for ids, all_ids in zip(items(encoded), whole, strict=True):
        inside, room = all_ids[1:-1], 6
        if len(inside) > room:
            ends = {
                "head": inside[:6],
                "tail": inside[-6:],
                "both": inside[:3] + inside[-3:],
            }
            inside = ends[keep]
        assert ids == [all_ids[0], *inside, all_ids[-1]]


def test_a_batch_is_padded_with_zeros() -> None:
    encoded = encoder().encode(TEXTS)
    index = torch.tensor([2, 0])
    batch = encoded.padded(index)
    assert batch["lengths"].tolist() == [len(items(encoded)[k]) for k in (2, 0)]
    for row, length, k in zip(batch["ids"], batch["lengths"], index, strict=True):
        assert row[:length].tolist() == items(encoded)[k]
        assert not row[length:].any()
    pair = encoder().encode(TEXTS, TEXTS[::-1]).padded(index)
    assert pair["ids"].shape == (2, 2, int(pair["lengths"].max()))
    assert set(pair["ids"][:, 1].flatten().tolist()) == {0, 1}


@pytest.mark.parametrize("tokens", KINDS, ids=name)
@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "\n\n", "\x00", "\x07\x1b\x7f", "\ufeff", "\udc80"),
        "\u202e\u0645\u0631\u062d\u0628\u0627",
        "\U0001f468\u200d\U0001f469",
    ],
)
def test_odd_texts_become_at_least_one_known_id(tokens: Tokens, text: str) -> None:
    encoded = encoder(tokens).encode([TEXTS[0], text, TEXTS[1]])
    assert (encoded.offsets.diff() >= 1).all()
    assert int(encoded.ids.min()) >= 0
    assert int(encoded.ids.max()) < tokens.vocabulary
    assert items(encoded)[::2] == items(encoder(tokens).encode(TEXTS[:2]))


def test_a_text_without_tokens_is_one_unknown_and_named() -> None:
    encoded = encoder(Characters()).encode(["a", "", "b", ""])
    assert items(encoded)[1] == items(encoded)[3] == [1]
    assert encoded.blank.tolist() == [1, 3]


def test_no_texts_give_no_ids() -> None:
    assert encoder().encode([]).offsets.tolist() == [0]
    assert encoder().encode([], []).types is not None


def words(count: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    lexicon = ["film", "plot", "good", "unremarkable", "is", "a", "12", "über", "日本", "so,", "\n"]
    return " ".join(draw.choice(lexicon) for _ in range(count))


@pytest.mark.parametrize("tokens", KINDS, ids=name)
@pytest.mark.parametrize("keep", ["head", "tail", "both"])
@pytest.mark.parametrize(
    "text",
    [
        words(2000),
        words(50) + " " * 5000 + words(50, 1),
        words(900) + " \t" * 5000,
        "\x00" * 3000 + words(900),
        "x" * 9000,
        "so " + "x" * 9000 + " good",
        words(3) + " " * 5000,
        words(10) + "\n" + "日本" * 4000 + "!" + words(9),
    ],
    ids=["words", "gap", "tail", "nul", "letters", "long word", "few", "unspaced"],
)
def test_a_shortened_text_is_encoded_as_the_whole(
    tokens: Tokens, keep: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = encoder(tokens, 16, keep)
    found = [short.encode([text]), short.encode([text, "so"], ["good", text])]
    monkeypatch.setattr(encoding, "_CHARACTERS", 10**6)
    whole = [short.encode([text]), short.encode([text, "so"], ["good", text])]
    for one, other in zip(found, whole, strict=True):
        assert same(one, other)


def test_ten_megabytes_take_a_moment() -> None:
    text = (words(100_000) * 30)[:10_000_000]
    begin = time.perf_counter()
    assert encoder(length=256).encode([text]).cut == 1
    # Measured: 0.1 s; all of it would take half a minute.
    assert time.perf_counter() - begin < 5


def damaged(change: Callable[[dict[str, object]], object]) -> str:
    plain = json.loads(tokenizer().to_str())
    change(plain)
    return json.dumps(plain)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{}",
        "not json",
        '{"version": "1.0"}',
        damaged(lambda plain: plain.update(model={"type": "Shell", "command": "ls"})),
        damaged(lambda plain: plain["model"].update(vocab={})),  # type: ignore[attr-defined]
        damaged(lambda plain: plain["model"].update(unk_token="?")),  # type: ignore[attr-defined]
        # This one makes the library panic, not raise.
        damaged(lambda plain: plain["post_processor"].update(special_tokens={})),  # type: ignore[attr-defined]
    ],
)
def test_a_broken_tokenizer_is_one_clear_error(broken: str) -> None:
    with pytest.raises(ValueError, match="tokenizer"):
        Encoder(broken, 16, "head")


def test_a_tokenizer_says_how_many_ids_may_occur() -> None:
    assert encoder().vocabulary <= 120
    assert (
        Encoder(
            damaged(lambda plain: plain["model"]["vocab"].update(late=5000)),  # type: ignore[index]
            16,
            "head",
        ).vocabulary
        == 5001
    )


def test_padding_and_truncation_of_the_json_do_not_count() -> None:
    padded = tokenizer()
    padded.enable_padding(length=50)
    padded.enable_truncation(3)
    assert same(Encoder(padded.to_str(), 64, "head").encode(TEXTS), encoder().encode(TEXTS))


def test_no_room_beside_special_tokens_is_refused_when_built() -> None:
    with pytest.raises(ValueError, match="max_length must leave room beside 2 special tokens"):
        encoder(length=2)


def test_what_was_encoded_is_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encoder().cached(TEXTS, folder=tmp_path)
    pairs = encoder().cached(TEXTS, TEXTS[::-1], folder=tmp_path)
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("encoded again"))
    assert same(encoder().cached(TEXTS, folder=tmp_path), first)
    assert same(encoder().cached(TEXTS, TEXTS[::-1], folder=tmp_path), pairs)


def test_whatever_changes_the_ids_changes_the_place_in_the_cache(tmp_path: Path) -> None:
    for build, texts, pairs in (
        (encoder(), TEXTS, None),
        (encoder(length=32), TEXTS, None),
        (encoder(keep="tail"), TEXTS, None),
        (encoder(Bytes()), TEXTS, None),
        (encoder(), TEXTS[::-1], None),
        (encoder(), [*TEXTS[:2], TEXTS[2] + TEXTS[3], ""], None),
        (encoder(), ["\udc80"], None),
        (encoder(), ["\udc81"], None),
        (encoder(), TEXTS[:2], TEXTS[2:]),
        (encoder(), [], []),
        (encoder(), [], None),
    ):
        build.cached(texts, pairs, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 11


def test_a_file_that_cannot_be_used_is_said_and_done_without(tmp_path: Path) -> None:
    wanted = encoder().cached(TEXTS, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=f"{path.name} cannot be read and is made anew"):
        assert same(encoder().cached(TEXTS, folder=tmp_path), wanted)
    with pytest.warns(UserWarning, match="encoded texts are not kept for the next run"):
        assert same(encoder().cached(TEXTS, folder=path), wanted)
