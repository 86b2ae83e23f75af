import random

import pytest

from resdomains_tasks.speech_recognition.normalization import PUNCTUATION, Normalization, whole


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Don\u2019t  STOP\u2014twenty-one,\tplease!\n", "don't stop twenty one please"),
        ("100% of A&B @ #4", "100% of a&b @ #4"),
        ("cafe\u0301", "caf\u00e9"),
        ("\uff26\uff55\uff4c\uff4c \ufb01ne", "full fine"),
        ("\ufeffso\u00adft\u200f", "soft"),
        ("a\x00b\u2028c\u2581d", "a b c d"),
        ("\u0130", "i\u0307"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        (
            "\u05e9\u05dc\u05d5\u05dd, \u05e2\u05d5\u05dc\u05dd\u200f!",
            "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
        ),
        ("\U0001f600 5\u20ac", "\U0001f600 5\u20ac"),
        (" ", ""),
        ("", ""),
        ("...", ""),
    ],
)
def test_texts_that_sound_alike_are_written_alike(text: str, written: str) -> None:
    assert Normalization()(text) == written


def test_each_step_can_be_chosen() -> None:
    assert Normalization(form="NFC")("\uff26") == "\uff46"
    assert Normalization(case="keep")("A-b") == "A b"
    assert Normalization(remove="")("A-b.") == "a-b."
    assert Normalization(remove=r"[0-9]")("a1b") == "a b"
    # In order, and before removal.
    replaced = Normalization(replace={"dr.": "doctor", "&": " and ", "-": ""})
    assert replaced("Dr. R&B X-ray") == "doctor r and b xray"


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
@pytest.mark.parametrize("case", ["lower", "keep"])
def test_normalising_twice_is_as_once(form: str, case: str) -> None:
    normalization = Normalization(form=form, case=case)  # type: ignore[arg-type]
    generator = random.Random(0)
    ranges = [(0, 0x250), (0x300, 0x370), (0x1E00, 0x2100), (0x3000, 0x3100), (0xAC00, 0xFFFF)]
    for _ in range(3000):
        text = "".join(chr(generator.randrange(*generator.choice(ranges))) for _ in range(12))
        once = normalization(text)
        assert normalization(once) == once, ascii(text)
        assert once == " ".join(once.split(" "))
        assert once == once.strip()


def test_lone_surrogates_are_marked_as_damage() -> None:
    assert whole("a\ud800b") == "a\ufffdb"
    assert Normalization()("a\udc80") == "a\ufffd"
    assert whole("\U0001f600 \u05e9") == "\U0001f600 \u05e9"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "NFD"}, "form must be 'NFC' or 'NFKC', got 'NFD'"),
        ({"case": "upper"}, "case must be 'lower' or 'keep', got 'upper'"),
        ({"remove": "["}, "remove must be a regular expression, got '\\['"),
        ({"replace": {"": "a"}}, "an empty string cannot be replaced"),
        ({"replace": {"Dr.": "doctor"}}, "'Dr.' is to be replaced, but is spelled 'dr.'"),
        ({"replace": {"&": "AND"}}, "'AND' replaces, but is spelled 'and'"),
        ({"replace": {"a": "ba"}}, "holds 'a', which is replaced itself"),
        ({"replace": {"x": "y", "y": "z"}}, "'y', which replaces 'x', holds 'y'"),
    ],
)
def test_values_that_cannot_be_used_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Normalization(**arguments)  # type: ignore[arg-type]


def test_punctuation_spares_what_is_part_of_words_or_read_aloud() -> None:
    removed = Normalization(remove=PUNCTUATION)
    assert removed("'%&@#") == "'%&@#"
    assert removed("a.b,c;d:e!f?g(h)i[j]k{l}m\u201cn\u201do\u2026p/q\\r*s_t\u00bfu") == " ".join(
        "abcdefghijklmnopqrstu"
    )
