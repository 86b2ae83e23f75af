import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from resdomains_tasks.speech_recognition.normalization import Normalization
from resdomains_tasks.speech_recognition.tokens import BytePairs, Characters, Tokenizer, Tokens

AN4 = Path(__file__).resolve().parents[4] / "shared" / "data" / "an4_mini" / "asr"
TEXTS = [
    "The film's good, the plot is not.",
    "A plot about the films' plots: 3 of 10!",
    "cafe\u0301 au lait, caf\u00e9 cr\u00e8me",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u65e5\u672c\u306e\u6620\u753b \U0001f600 \U0001f44d\U0001f3fd",
    "",
    "r e p e a t",
]
ALL: list[Tokens] = [
    Characters(),
    Characters(normalization=Normalization(form="NFC", case="keep", remove="")),
    BytePairs(vocabulary=80),
    BytePairs(vocabulary=400, normalization=Normalization(case="keep")),
]


def built(tokens: Tokens, texts: list[str] = TEXTS) -> Tokenizer:
    return Tokenizer(tokens.train(iter(texts)).to_str())


@pytest.mark.parametrize("tokens", ALL, ids=lambda tokens: type(tokens).__name__)
def test_ids_give_the_normalised_transcript_back(tokens: Tokens) -> None:
    tokenizer = built(tokens)
    words = " ".join(TEXTS).split()
    generator = random.Random(0)
    made = [" ".join(generator.choices(words, k=generator.randrange(40))) for _ in range(200)]
    for text in [*TEXTS, *made, "the plots " * 20_000, "plot" * 20_000]:
        reference = tokenizer.normalise(text)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == reference
        assert tokenizer.encode(reference) == ids
        assert all(0 < number < tokenizer.size for number in ids)
    assert tokenizer.encode(" \u200f") == []
    assert tokenizer.decode([]) == ""


@pytest.mark.skipif(not AN4.is_dir(), reason="needs ../shared/data/an4_mini")
@pytest.mark.parametrize("tokens", [Characters(), BytePairs(vocabulary=40)])
def test_real_transcripts_come_back(tokens: Tokens) -> None:
    manifests = [AN4 / "an4_train.json", AN4 / "an4_val.json"]
    train, val = (
        [json.loads(line)["text"] for line in path.read_text().splitlines()] for path in manifests
    )
    tokenizer = built(tokens, train)
    assert len(train) > 20
    for text in [*train, *(t for t in val if not set(t) - set("".join(train)))]:
        assert tokenizer.decode(tokenizer.encode(text)) == text.lower()
    if isinstance(tokens, Characters):
        assert tokenizer.pieces[1:] == sorted({*"".join(train).lower()} - {" "} | {"\u2581"})


def test_characters_are_numbered_in_their_order_after_the_blank() -> None:
    tokenizer = built(Characters(), ["Yes no, yes"])
    assert tokenizer.pieces == ["<blank>", "e", "n", "o", "s", "y", "\u2581"]
    assert tokenizer.size == 7
    assert tokenizer.encode("yes no") == [5, 1, 4, 6, 2, 3]
    # A network may put separators anywhere.
    assert tokenizer.decode([6, 5, 1, 4, 6, 6, 2, 3, 6]) == "yes no"


def test_an_alphabet_does_not_depend_on_the_transcripts() -> None:
    tokens = Characters(alphabet="zab '")
    assert built(tokens, []).pieces == ["<blank>", "'", "a", "b", "z", "\u2581"]
    assert tokens.train(["quite"]).to_str() == tokens.train([]).to_str()


def test_pieces_are_made_of_what_is_frequent_and_words_keep_their_begin() -> None:
    tokenizer = built(BytePairs(vocabulary=14), ["yes no yes no yes", "yes"])
    assert tokenizer.pieces[0] == "<blank>"
    assert {"\u2581yes", "\u2581no"} <= set(tokenizer.pieces)
    assert [tokenizer.pieces[i] for i in tokenizer.encode("no yes")] == ["\u2581no", "\u2581yes"]
    assert max(len(tokenizer.encode(word)) for word in ("yes", "no")) == 1
    # A pair that occurs once is no piece, whatever room there is.
    assert built(BytePairs(vocabulary=100), ["ab"]).size == 4


def test_the_name_of_the_blank_is_an_ordinary_transcript() -> None:
    keep = Normalization(remove="")
    for tokens in (Characters(normalization=keep), BytePairs(20, normalization=keep)):
        tokenizer = built(tokens, ["<blank>", "blank <blank>"])
        assert tokenizer.decode(tokenizer.encode("<blank> blank")) == "<blank> blank"
        assert 0 not in tokenizer.encode("<blank> blank")


@pytest.mark.parametrize("tokens", [Characters(), BytePairs(vocabulary=40)])
def test_unknown_characters_are_named(tokens: Tokens) -> None:
    tokenizer = built(tokens, ["yes no"] * 3)
    with pytest.raises(
        ValueError, match=r"no token spells '\u20ac' \(U\+20AC EURO SIGN\); replace"
    ):
        tokenizer.encode("yes \u20ac")
    with pytest.raises(ValueError, match=r"spells 'p' .*, 'v' \(U.* and 5 more;"):
        tokenizer.encode("pptquvwxabc")
    with pytest.raises(ValueError, match=r"'\ufffd' \(U\+FFFD REPLACEMENT CHARACTER\)"):
        tokenizer.encode("yes \ud800")
    with pytest.raises(ValueError, match=r"U\+E000 without a name"):
        tokenizer.encode("\ue000")


@pytest.mark.parametrize("tokens", [Characters(), BytePairs(vocabulary=40)])
def test_damaged_characters_are_never_learned(tokens: Tokens) -> None:
    tokenizer = built(tokens, ["yes n\ufffd no", "yes \udc80 no"])
    assert "\ufffd" not in "".join(tokenizer.pieces)


def test_ids_that_no_transcript_has_are_refused() -> None:
    tokenizer = built(Characters(), ["ab"])
    tokenizer.check(torch.tensor([1, 2, 3]))
    tokenizer.check(torch.zeros(0, dtype=torch.long))
    for wrong in (0, 4, -1):
        with pytest.raises(ValueError, match=f"must be in 1 to 3, got {wrong}"):
            tokenizer.check(torch.tensor([[1, wrong]]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Characters(alphabet=" "), "alphabet must hold at least one character"),
        (lambda: Characters(alphabet="abA"), r"alphabet holds 'A' .*it becomes 'a'"),
        (lambda: Characters(alphabet="ab,"), r"alphabet holds ',' .*it becomes ''"),
        (lambda: Characters(alphabet="aba"), r"got 'a' \(U\+0061 LATIN SMALL LETTER A\) more than"),
        (lambda: BytePairs(vocabulary=2), "vocabulary must be at least 3, got 2"),
        (lambda: BytePairs(vocabulary=4).train(["yes"]), "the 4 characters .* got 4; take more"),
        (lambda: BytePairs().train(["", "..."]), "training transcripts are empty"),
        (lambda: Characters().train([]), "training transcripts are empty"),
    ],
)
def test_what_cannot_spell_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def altered(change: Callable[[Any], None]) -> str:
    plain = json.loads(Characters().train(["yes no"]).to_str())
    change(plain)
    return json.dumps(plain)


def set_model(name: str, value: Any) -> Callable[[Any], None]:
    return lambda plain: plain["model"].update({name: value})


def added(plain: Any) -> None:
    plain["added_tokens"].append(
        {
            "id": 1,
            "content": "e",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    )


def word_level(plain: Any) -> None:
    plain["model"] = {
        "type": "WordLevel",
        "vocab": plain["model"]["vocab"],
        "unk_token": "<blank>",
    }


def regex(pattern: str) -> Callable[[Any], None]:
    step = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "x"}
    return lambda plain: plain.update(normalizer=step)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON of the `tokenizers` library"),
        ("{}", "no JSON of the `tokenizers` library"),
        ("[" * 10_000, "no JSON of the `tokenizers` library"),
        ("\ud800", "no JSON of the `tokenizers` library"),
        (altered(set_model("merges", ["y q"])), "no JSON of the `tokenizers` library"),
        (altered(regex("(")), "no JSON of the `tokenizers` library"),
        (altered(set_model("vocab", {})), "got 0 tokens"),
        (altered(set_model("vocab", {"<blank>": 0, "a": 2})), "without gaps"),
        (altered(set_model("vocab", {"a": 0, "<blank>": 1})), "the blank <blank> first"),
        (altered(set_model("vocab", {"<blank>": 0, "a": 1})), "contradicts itself|no token spells"),
        (altered(set_model("dropout", 0.5)), "without dropout, got BPE with dropout 0.5"),
        (altered(word_level), "got WordLevel"),
        (altered(added), "no added tokens"),
        (altered(regex("e")), "no token spells 'x'"),
        (altered(lambda plain: plain.update(pre_tokenizer=None)), "contradicts itself"),
    ],
)
def test_broken_and_hostile_tokenizers_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokenizer(text).encode("yes no")


def test_what_a_tokenizer_adds_to_texts_is_left_out() -> None:
    plain = tokenizers.Tokenizer.from_str(Characters().train(["yes no"]).to_str())
    ids = plain.encode("yes").ids
    plain.enable_truncation(2)
    plain.enable_padding(length=9)
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<blank> $A", special_tokens=[("<blank>", 0)]
    )
    assert Tokenizer(plain.to_str()).encode("yes") == ids


def test_learning_is_the_same_in_every_process_and_with_any_number_of_threads(
    tmp_path: Path,
) -> None:
    # Many words and characters that are equally frequent: ties everywhere.
    script = tmp_path / "learn.py"
    script.write_text(
        "import random\n"
        "from resdomains_tasks.speech_recognition.tokens import BytePairs, Characters\n"
        "r = random.Random(0)\n"
        "words = [''.join(r.choice('abcdefghijkl') for _ in range(5)) for _ in range(500)]\n"
        "texts = [' '.join(words)] * 2 + [''.join(map(chr, range(0x5000, 0x5200)))]\n"
        "print(Characters().train(texts).to_str(), BytePairs(900).train(texts).to_str())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "1", "3")
    }
    assert len(found) == 1
    assert len(found.pop()) > 10_000
