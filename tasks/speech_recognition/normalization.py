"""How transcripts are written before they become tokens: one spelling for what sounds alike."""

from collections.abc import Mapping
from typing import Literal

from tokenizers import Regex, normalizers
from tokenizers.normalizers import Normalizer

# Stands for the blank between words in tokens, as in SentencePiece, so it is a blank in texts too.
SEPARATOR = "\u2581"
# All punctuation but the apostrophe, which is part of words, and the signs that are read aloud.
PUNCTUATION = r"[\p{P}&&[^'%&@#]]"
# Soft hyphens, byte order marks, marks of direction; but the joiners spell words in some scripts.
_INVISIBLE = r"[\p{Cf}&&[^\u200c\u200d]]"
_BLANKS = rf"[\s\p{{Cc}}{SEPARATOR}]+"
# The right single quotation mark is how the apostrophe is printed.
_REPLACE = {"\u2019": "'"}


class Normalization:
    """Writes a transcript in one way: form, case, replacements, removals, then single blanks between words.

    Invisible characters go, white space and control characters are blanks. Normalising twice is as once. It is done by
    `tokenizers`, and kept in the tokenizer's JSON.

    Args:
        form: Unicode's `NFC`, which composes accents, or `NFKC`, which also makes full-width letters, ligatures and
            superscripts plain ones.
        case: `lower` makes all letters small; `keep` leaves them.
        replace: What is written instead of some strings, in order, after form and case: `{"&": " and "}`. The printed
            apostrophe (U+2019) becomes ' if not given.
        remove: Regular expression (Oniguruma) of what becomes a blank, after the replacements: all punctuation but
            ' % & @ # if not given; an empty one removes nothing.

    Raises:
        ValueError: If a value cannot be used, or a replacement could never apply or would apply twice.
    """

    def __init__(
        self,
        form: Literal["NFC", "NFKC"] = "NFKC",
        case: Literal["lower", "keep"] = "lower",
        replace: Mapping[str, str] | None = None,
        remove: str = PUNCTUATION,
    ) -> None:
        if form not in ("NFC", "NFKC"):
            raise ValueError(f"form must be 'NFC' or 'NFKC', got {form!r}")
        if case not in ("lower", "keep"):
            raise ValueError(f"case must be 'lower' or 'keep', got {case!r}")
        self.form, self.case, self.remove = form, case, remove
        self.replace = dict(_REPLACE if replace is None else replace)
        unicode_form = normalizers.NFC() if form == "NFC" else normalizers.NFKC()
        # Small letters of some capitals are no longer in the form.
        spelling: list[Normalizer] = [normalizers.Replace(Regex(_INVISIBLE), ""), unicode_form]
        if case == "lower":
            spelling += [normalizers.Lowercase(), unicode_form]
        self._check_replacements(normalizers.Sequence(spelling))
        replaced = [normalizers.Replace(old, new) for old, new in self.replace.items()]
        removed = [normalizers.Replace(_regex(remove), " ")] if remove else []
        blanks = [normalizers.Replace(Regex(_BLANKS), " "), normalizers.Strip()]
        self.normalizer = normalizers.Sequence([*spelling, *replaced, *removed, *blanks])
        """The same as `tokenizers` does it."""

    def __call__(self, text: str) -> str:
        """Return the text as it is normalised."""
        found: str = self.normalizer.normalize_str(whole(text))
        return found

    def _check_replacements(self, spelling: Normalizer) -> None:
        for old, new in self.replace.items():
            for what, text in (("is to be replaced", old), ("replaces", new)):
                spelled = spelling.normalize_str(whole(text))
                if spelled != text:
                    raise ValueError(
                        f"replace: {text!r} {what}, but is spelled {spelled!r} by form {self.form} and case "
                        f"{self.case!r}; write it so"
                    )
            if not old:
                raise ValueError("replace: an empty string cannot be replaced")
            again = [other for other in self.replace if other in new]
            if again:
                raise ValueError(
                    f"replace: {new!r}, which replaces {old!r}, holds {again[0]!r}, which is replaced itself; "
                    "normalising twice would not be as once"
                )


def whole(text: str) -> str:
    """Return the text with U+FFFD for lone surrogates, which have no UTF-8 and which `tokenizers` refuses."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _regex(pattern: str) -> Regex:
    try:
        return Regex(pattern)
    except Exception as error:  # `tokenizers` raises nothing narrower
        raise ValueError(
            f"remove must be a regular expression, got {pattern!r}: {error}; write [ as \\["
        ) from error
