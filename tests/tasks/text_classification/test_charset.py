import codecs

import pytest

from resdomains_tasks.text_classification.charset import damaged, decode

GERMAN = "text,label\nschöne Grüße aus Köln,gut\n“übel”,schlecht\n"
RUSSIAN = "text\tlabel\nпривет как дела\tда\nочень плохо сегодня\tнет\n" * 5  # noqa: RUF001


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_an_encoding_is_detected(encoding: str) -> None:
    text, _ = decode(GERMAN.encode(encoding), "a.csv")
    assert text == GERMAN


def test_both_byte_orders_are_told_by_their_mark() -> None:
    assert decode(codecs.BOM_UTF16_BE + "añb".encode("utf-16-be"), "a")[0] == "añb"
    assert decode(codecs.BOM_UTF16_LE + "añb".encode("utf-16-le"), "a")[0] == "añb"


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "shift_jis", "gb18030"])
def test_other_alphabets_are_detected_from_their_letters(encoding: str) -> None:
    text = {
        "shift_jis": "今日はとても良い天気ですね、散歩に行きましょう\n" * 5,
        "gb18030": "你好世界，今天天气很好，我们去公园散步吧\n" * 5,  # noqa: RUF001
    }.get(encoding, RUSSIAN)
    assert decode(text.encode(encoding), "a")[0] == text


def test_what_is_given_is_not_detected() -> None:
    assert decode("é".encode("latin-1"), "a", "latin-1") == ("é", "latin-1")
    assert decode("é".encode(), "a", "latin-1")[0] == "Ã©"


def test_a_byte_that_is_not_utf_8_damages_its_own_line_alone() -> None:
    lines = ["ä,x", "ö,y", "ü,z"]
    data = "\n".join(lines).encode().replace("ö".encode(), b"\xff")
    text, encoding = decode(data, "a.csv")
    assert encoding == "utf-8"
    assert [damaged(line) for line in text.split("\n")] == [False, True, False]


def test_emoji_are_not_damage() -> None:
    assert not damaged("🙂 مرحبا")
    assert damaged("\ud83d")


@pytest.mark.parametrize(
    ("data", "text"), [(b"a\r\nb\r\n", "a\nb\n"), (b"a\rb\r", "a\nb\n"), (b"a\rb\n", "a\rb\n")]
)
def test_line_ends_become_newlines(data: bytes, text: str) -> None:
    assert decode(data, "a")[0] == text


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (b"a", "utf9", "encoding: 'utf9' is not known; take a name such as"),
        (b"a", "zlib", "encoding: 'zlib' is not known"),
        (b"\x00\xd8a", "utf-16", r"a\.csv: not utf-16 .*give the right one, or leave it out"),
        (b"\xff\xfea", None, r"a\.csv: not utf-16 .*set --data\.encoding"),
    ],
)
def test_what_cannot_be_decoded_is_refused(data: bytes, encoding: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(data, "a.csv", encoding)
