"""From a file's bytes to characters, whatever its encoding."""

import re

_MARKS = (
    # UTF-32's little-endian mark begins with UTF-16's.
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
# charset-normalizer takes seconds for some megabytes; lines of pure ASCII tell it nothing.
_LOOKED_AT = 200_000
# What Western European texts use of cp1252 beyond ASCII: the letters but for eth and thorn, ligatures, and signs
# (quotes, dashes, dots, currencies).
_WESTERN = frozenset(range(0xC0, 0x100)) - frozenset(b"\xd0\xd7\xde\xf0\xf7\xfe") | frozenset(
    b"\x80\x82\x84\x85\x8c\x91\x92\x93\x94\x95\x96\x97\x9c\xa0\xa1\xa3\xa5\xa7\xa9\xab\xad\xae\xb0\xb4\xb7\xbb\xbf"
)


def decode(data: bytes, name: str, encoding: str | None = None) -> tuple[str, str]:
    """Decode a file.

    A byte-order mark decides, then zeros (UTF-16), then whether the bytes are UTF-8; only of other files is the
    encoding guessed from the characters. Where single bytes of a file cannot be decoded they become lone surrogates
    (`damaged` finds them), so that one broken line does not cost the others.

    Args:
        data: The bytes.
        name: What messages call the file.
        encoding: The encoding, if it is known.

    Returns:
        The characters without a byte-order mark, all line ends as newlines, and the encoding's name.

    Raises:
        ValueError: If the encoding is unknown, or the bytes are not in it.
    """
    chosen = encoding if encoding is not None else _detect(data, name)
    try:
        text = data.decode(chosen, errors="surrogateescape")
    except LookupError as error:
        raise ValueError(
            f"encoding: {chosen!r} is not known; take a name such as utf-8, utf-16, latin-1 or cp1252, "
            "or leave it out and it is detected"
        ) from error
    except UnicodeError as error:
        advice = (
            "give the right one, or leave it out and it is detected"
            if encoding
            else "set --data.encoding"
        )
        raise ValueError(f"{name}: not {chosen} ({error}); {advice}") from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    return (text if "\n" in text else text.replace("\r", "\n")), chosen


def damaged(text: str) -> bool:
    """Say whether characters are in the text that no encoding has: bytes that `decode` could not read."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def _detect(data: bytes, name: str) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    if 0 in data[:_LOOKED_AT]:
        # Half of the bytes of most texts in UTF-16 are zero, all at even or all at odd places.
        part = data[:_LOOKED_AT]
        even, odd = part[0::2].count(0), part[1::2].count(0)
        if max(even, odd) > len(part) / 6 and min(even, odd) < max(even, odd) / 10:
            return "utf-16-le" if odd > even else "utf-16-be"
    try:
        data.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", errors="surrogateescape")
    # In other encodings hardly a line follows the rules of UTF-8 by chance.
    beyond = [damaged(line) for line in text.split("\n") if not line.isascii()]
    if beyond.count(False) >= beyond.count(True):
        return "utf-8"
    sample = b"\n".join(x for x in data.splitlines() if not x.isascii())[:_LOOKED_AT]
    if _western(sample):
        return "cp1252"
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name}: not utf-8; set --data.encoding, or pip install 'resdomains[text]' to have it detected"
        ) from error
    best = from_bytes(
        sample, cp_exclusion=["utf_16_be", "utf_16_le", "utf_32_be", "utf_32_le", "utf_7"]
    ).best()
    if best is None:
        raise ValueError(
            f"{name}: the encoding was not recognised; set --data.encoding to its name, such as cp1252"
        )
    return best.encoding


def _western(data: bytes) -> bool:
    """Say whether the bytes are a Western European text in cp1252.

    Of a few accented letters charset-normalizer makes those of any other encoding of a byte a letter as readily.
    """
    beyond = [byte for byte in data if byte > 127]
    if len(beyond) > 0.25 * len(data):
        return False
    return _WESTERN.issuperset(beyond)
