import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from resdomains_tasks.text_classification.tokens import (
    BytePairs,
    Bytes,
    Characters,
    Pretrained,
    Tokens,
    WordPiece,
    readable,
)

from .support import small_spec

TEXTS = [
    "The film is good, the plot is not.",
    "A plot about films about plots!",
    "Längere Sätze über gute Filme \U0001f600",
    "日本の映画",
] * 5
ALL: list[Tokens] = [
    Characters(),
    Bytes(),
    WordPiece(vocabulary=120),
    WordPiece(vocabulary=20, lowercase=False),
    BytePairs(vocabulary=300),
]


def name(tokens: Tokens) -> str:
    return f"{type(tokens).__name__}-{tokens.vocabulary}"


@pytest.mark.parametrize("tokens", ALL, ids=name)
def test_ids_lie_in_the_vocabulary_and_padding_is_zero(tokens: Tokens) -> None:
    tokenizer = tokens.train(iter(TEXTS))
    ids = set(tokenizer.get_vocab().values())
    assert max(ids) < tokens.vocabulary
    assert tokenizer.token_to_id("[PAD]") == 0
    assert tokenizer.token_to_id("[UNK]") == 1
    for text in [*TEXTS, "unseen \u0416 \x00 \U0001f984"]:
        found = tokenizer.encode(text).ids
        assert set(found) <= ids
        assert 0 not in found


@pytest.mark.parametrize("tokens", ALL, ids=name)
def test_the_json_is_all_of_the_tokenizer(tokens: Tokens) -> None:
    tokenizer = tokens.train(TEXTS)
    again = Tokenizer.from_str(tokenizer.to_str())
    for text in TEXTS:
        assert again.encode(text, "so").ids == tokenizer.encode(text, "so").ids


def test_learning_is_the_same_in_every_process_and_with_any_number_of_threads(
    tmp_path: Path,
) -> None:
    # Many words and characters that are equally frequent: ties everywhere.
    script = tmp_path / "learn.py"
    script.write_text(
        "import random\n"
        "from resdomains_tasks.text_classification.tokens import BytePairs, WordPiece\n"
        "r = random.Random(0)\n"
        "letters = 'abcdefghijkl\\u4e00\\u4e01\\u4e02\\u4e03'\n"
        "words = [''.join(r.choice(letters) for _ in range(5)) for _ in range(500)]\n"
        "texts = [' '.join(words), ''.join(map(chr, range(0x5000, 0x5200)))]\n"
        "print(WordPiece(300).train(texts).to_str(), BytePairs(400).train(texts).to_str())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "4")
    }
    assert len(found) == 1


def test_characters_are_numbered_as_the_alphabet_is() -> None:
    tokenizer = Characters(alphabet="ba ").train([])
    assert tokenizer.encode("ab\nA?").ids == [3, 2, 1, 3, 1]
    assert tokenizer.encode("a", "b").ids == [3, 1, 2]
    assert Characters(alphabet="a\n").train([]).encode("a\n\na").ids == [2, 3, 3, 2]
    assert Characters(alphabet="aB", lowercase=False).train([]).encode("AaB").ids == [1, 2, 3]


def test_vdcnns_alphabet_has_69_ids() -> None:
    tokens = Characters()
    assert tokens.vocabulary == 69
    assert max(tokens.train([]).get_vocab().values()) == 68


def test_bytes_are_the_utf8_of_a_text() -> None:
    tokenizer = Bytes().train([])
    for text in ("ASCII only", "äöü", "日本", "\x00\x01", "\U0001f600"):
        ids = tokenizer.encode(text).ids
        assert len(ids) == len(text.encode())
        assert 1 not in ids
        assert tokenizer.decode(ids) == text
    assert len({tuple(tokenizer.encode(chr(k)).ids) for k in range(128)}) == 128


def test_byte_pairs_know_every_text_and_give_it_back() -> None:
    tokenizer = BytePairs(vocabulary=300).train(TEXTS)
    for text in [*TEXTS, "\u0416\u0628 \U0001f984 never seen"]:
        ids = tokenizer.encode(text).ids
        assert tokenizer.token_to_id("[UNK]") not in ids
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("tokens", [WordPiece(120), BytePairs(300)], ids=name)
def test_pieces_stand_between_berts_tokens(tokens: Tokens) -> None:
    tokenizer = tokens.train(TEXTS)
    pair = tokenizer.encode("good", "plot")
    assert [pair.tokens[k] for k in (0, -1)] == ["[CLS]", "[SEP]"]
    assert pair.tokens.count("[SEP]") == 2
    first = pair.tokens.index("[SEP]") + 1
    assert pair.type_ids == [0] * first + [1] * (len(pair.ids) - first)


def test_wordpiece_is_what_the_greedy_longest_match_gives() -> None:
    tokenizer = WordPiece(vocabulary=120).train(TEXTS)
    pieces = set(tokenizer.get_vocab())
    for word in ("film", "films", "plotting", "aboutness"):
        wanted: list[str] = []
        rest = word
        while rest:
            prefix = "##" if wanted else ""
            fitting = [n for n in range(len(rest), 0, -1) if prefix + rest[:n] in pieces]
            if not fitting:
                wanted = ["[UNK]"]
                break
            wanted.append(prefix + rest[: fitting[0]])
            rest = rest[fitting[0] :]
        assert tokenizer.encode(word).tokens[1:-1] == wanted
    assert "film" in pieces
    # No piece but BERT's own tokens is found before words are split.
    assert sorted(tokenizer.get_added_tokens_decoder()) == [0, 1, 2, 3]


def test_frequent_characters_are_kept_where_the_vocabulary_is_small() -> None:
    tokenizer = WordPiece(vocabulary=8).train(["aaab bbba cccccc", "c d"])
    # Of `a` and `b`, equally frequent, the smaller.
    assert set(tokenizer.get_vocab()) == {
        *("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        *("a", "##a", "c", "##c"),
    }


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WordPiece(5), "vocabulary must be at least 6, got 5"),
        (lambda: BytePairs(259), "vocabulary must be at least 260, got 259"),
        (lambda: Characters(alphabet="aba"), "each character once, got 'a' more than once"),
        (lambda: Characters(alphabet=""), "at least one character"),
    ],
)
def test_what_cannot_be_is_refused_when_built(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ValueError, match=message):
        build()


def test_lone_surrogates_are_replaced_and_nothing_else() -> None:
    assert list(readable(["a\udc80b", "ä\x00\U0001f600\u202e"])) == ["a?b", "ä\x00\U0001f600\u202e"]


@pytest.mark.parametrize("tokens", ALL, ids=name)
def test_odd_texts_can_be_learned_from(tokens: Tokens) -> None:
    odd: Iterable[str] = ["", "\udc80", "\x00", "  ", "\u202e\u0627\u0644", "a" * 10_000]
    assert tokens.train(iter(odd)).encode("a").ids


def published(folder: Path, gap: bool = False) -> Tokenizer:
    """A tokenizer as transformers saves one."""
    lexicon = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4, "film": 9 if gap else 5}
    tokenizer = Tokenizer(models.WordLevel(lexicon, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"})
    )
    return tokenizer


def test_a_published_tokenizer_is_taken_without_its_padding_and_truncation(tmp_path: Path) -> None:
    published(tmp_path)
    tokens = Pretrained(str(tmp_path))
    assert tokens.vocabulary == 6
    assert tokens.train(["ignored"]).encode("good film good film good").ids == [2, 4, 5, 4, 5, 4, 3]


def test_a_vocabulary_with_gaps_counts_to_its_largest_id(tmp_path: Path) -> None:
    published(tmp_path, gap=True)
    assert Pretrained(str(tmp_path)).vocabulary == 10
    assert Pretrained(str(tmp_path), vocabulary=16).vocabulary == 16
    with pytest.raises(ValueError, match=r"at least the 10 ids of the tokenizer of .*, got 6"):
        Pretrained(str(tmp_path), vocabulary=6)


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"folder {tmp_path} holds no tokenizer"):
        Pretrained(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match=str(tmp_path)):
        Pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="is a file; give the folder"):
        Pretrained(str(tmp_path / "tokenizer.json"))


def test_a_runs_checkpoint_gives_its_tokenizer_and_its_vocabulary(tmp_path: Path) -> None:
    spec = small_spec(vocabulary=12)
    path = tmp_path / "best.ckpt"
    said = {"format": 1, "recipe": None, "spec": spec.plain()}
    torch.save({"resdomains": said, "state_dict": {}}, path)
    tokens = Pretrained(str(path))
    assert tokens.train([]).to_str() == spec.tokenizer
    assert tokens.vocabulary == 12
    for spec_said in ({"classes": ["a", "b"]}, {**spec.plain(), "tokenizer": "{}"}):
        said["spec"] = spec_said
        torch.save({"resdomains": said, "state_dict": {}}, path)
        with pytest.raises(ValueError, match=r"source: .*best.ckpt holds no tokenizer of texts"):
            Pretrained(str(path))


def test_a_hub_id_that_cannot_be_had_is_named() -> None:
    with pytest.raises(ValueError, match="nobody/nothing is no folder"):
        Pretrained("nobody/nothing")
