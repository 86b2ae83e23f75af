"""What a recogniser spells: characters or pieces of words, as ids, id 0 being the blank of CTC."""

import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from resdomains.panics import as_value_error

from .normalization import SEPARATOR, Normalization, whole

BLANK = "<blank>"
_DAMAGED = "\ufffd"  # what programs write for what they could not read
_NAMED = 5


class Tokens(ABC):
    """How transcripts are cut into tokens."""

    @abstractmethod
    def train(self, texts: Iterable[str]) -> tokenizers.Tokenizer:
        """Return the tokenizer, learned on the training transcripts where it learns; equal texts give equal ones.

        Its JSON is what `Tokenizer` takes.

        Raises:
            ValueError: If the transcripts do not suffice.
        """


class Characters(Tokens):
    """A token for each character; words are separated by one of their own.

    Ids are 0 for the blank, then the characters, rising, the one between words among them.

    Args:
        alphabet: The characters; those of the training transcripts if not given.
        normalization: How transcripts are written; `Normalization()` if not given.

    Raises:
        ValueError: If the alphabet holds what no normalised transcript does, or a character twice.
    """

    def __init__(
        self, alphabet: str | None = None, normalization: Normalization | None = None
    ) -> None:
        self.normalization = normalization or Normalization()
        self.alphabet = alphabet
        if alphabet is not None:
            if not alphabet.strip():
                raise ValueError(f"alphabet must hold at least one character, got {alphabet!r}")
            for character in alphabet:
                if alphabet.count(character) > 1:
                    raise ValueError(
                        f"alphabet must hold each character once, got {_name(character)} more than once"
                    )
                if character != " " and self.normalization(character) != character:
                    raise ValueError(
                        f"alphabet holds {_name(character)}, which no normalised transcript does: it becomes "
                        f"{self.normalization(character)!r}"
                    )

    def train(self, texts: Iterable[str]) -> tokenizers.Tokenizer:
        """Collect the characters."""
        if self.alphabet is None:
            characters = _characters(map(self.normalization, texts))
        else:
            characters = set(self.alphabet) - {" "}
        tokens = [BLANK, *sorted(characters | {SEPARATOR})]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        return _tokenizer(models.BPE(vocabulary, []), "never", self.normalization)


class BytePairs(Tokens):
    """Pieces of words, learned by byte-pair encoding of the characters (Sennrich et al. 2016).

    Ids are 0 for the blank, then the characters of the training transcripts, then the pieces, the most frequent first;
    a word's first piece begins with the separator.

    Args:
        vocabulary: Number of ids, the blank included; fewer are used where the transcripts hold no more pieces that
            occur twice.
        normalization: How transcripts are written; `Normalization()` if not given.

    Raises:
        ValueError: If the vocabulary is too small.
    """

    def __init__(self, vocabulary: int = 512, normalization: Normalization | None = None) -> None:
        if vocabulary < 3:
            raise ValueError(f"vocabulary must be at least 3, got {vocabulary}")
        self.vocabulary = vocabulary
        self.normalization = normalization or Normalization()

    def train(self, texts: Iterable[str]) -> tokenizers.Tokenizer:
        """Learn the pieces."""
        # What programs could not read spells nothing.
        written = [self.normalization(text).replace(_DAMAGED, "") for text in texts]
        characters = _characters(written) | {SEPARATOR}
        if len(characters) >= self.vocabulary:
            raise ValueError(
                f"vocabulary must have room for the blank, the {len(characters):,} characters of the transcripts and "
                f"pieces of several, got {self.vocabulary:,}; take more, or characters as tokens"
            )
        learner = tokenizers.Tokenizer(models.BPE())
        learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            min_frequency=2,
            special_tokens=[BLANK],
            show_progress=False,
        )
        learner.train_from_iterator(written, trainer)
        # The trainer declares the blank a special token, which would be found in transcripts.
        learned = json.loads(learner.to_str())["model"]
        merges = [(first, second) for first, second in learned["merges"]]
        return _tokenizer(models.BPE(learned["vocab"], merges), "always", self.normalization)


class Tokenizer:
    """Turns transcripts into ids and back.

    Args:
        json: JSON of a `tokenizers.Tokenizer` as `Tokens.train` gives it.

    Attributes:
        json: The same.
        size: Number of ids, the blank (0) included.
        pieces: The tokens by id.

    Raises:
        ValueError: If it is none, or one that cannot spell for CTC.
    """

    def __init__(self, json: str) -> None:
        with as_value_error("tokenizer is no JSON of the `tokenizers` library"):
            self._tokenizer = tokenizers.Tokenizer.from_str(json)
            # Both would change transcripts behind our back.
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        self.json = json
        by_id = {number: token for token, number in self._tokenizer.get_vocab().items()}
        self.size = len(by_id)
        if sorted(by_id) != list(range(self.size)) or by_id.get(0) != BLANK or self.size < 2:
            raise ValueError(
                f"tokenizer must number its tokens from 0 without gaps, the blank {BLANK} first, got {self.size} "
                f"tokens, {by_id.get(0)!r} first"
            )
        self.pieces = [by_id[number] for number in range(self.size)]
        model = self._tokenizer.model
        if not isinstance(model, models.BPE) or model.dropout:
            raise ValueError(
                f"tokenizer must cut texts by byte-pair encoding without dropout, got {type(model).__name__}"
                + (f" with dropout {model.dropout}" if isinstance(model, models.BPE) else "")
            )
        if self._tokenizer.get_added_tokens_decoder():
            raise ValueError(
                "tokenizer must have no added tokens: they would be found in transcripts"
            )
        self._characters = {piece for piece in self.pieces[1:] if len(piece) == 1}
        # So that one that contradicts itself shows here.
        self.encode(" ".join(sorted(self._characters - {SEPARATOR})))

    def normalise(self, text: str) -> str:
        """Return how a transcript is written: the reference to which hypotheses are compared.

        Raises:
            ValueError: If the tokenizer fails at it.
        """
        text = whole(text)
        normalizer = self._tokenizer.normalizer
        with as_value_error("tokenizer cannot normalise a text"):
            return text if normalizer is None else normalizer.normalize_str(text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a transcript, normalised or not; `decode` gives the normalised one back.

        Raises:
            ValueError: If it holds characters that are no tokens, by name.
        """
        text = self.normalise(text)
        unknown = [c for c in dict.fromkeys(text) if c != " " and c not in self._characters]
        if unknown:
            named = ", ".join(map(_name, unknown[:_NAMED]))
            more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
            raise ValueError(
                f"no token spells {named}{more}; replace or remove such characters by the normalization of the "
                "tokens, or name them in the alphabet"
            )
        with as_value_error("tokenizer cannot encode a text"):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if 0 in ids or self.decode(ids) != text:
            raise ValueError(
                f"tokenizer contradicts itself: {text[:60]!r} comes back as {self.decode(ids)[:60]!r}"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text that ids spell, with single blanks between words.

        Args:
            ids: Ids without blanks of CTC.
        """
        spelled = "".join(self.pieces[number] for number in ids)
        return " ".join(spelled.replace(SEPARATOR, " ").split())

    def check(self, ids: Tensor) -> None:
        """Refuse ids that a transcript cannot have: torch's CTC loss returns a number for them.

        Raises:
            ValueError: If one is not in 1 to size - 1.
        """
        wrong = ids[(ids < 1) | (ids >= self.size)]
        if len(wrong):
            raise ValueError(
                f"ids of transcripts must be in 1 to {self.size - 1}, got {int(wrong[0])}"
            )


def _tokenizer(
    model: models.BPE, prepend: str, normalization: Normalization
) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalization.normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SEPARATOR, prepend_scheme=prepend)
    tokenizer.decoder = decoders.Metaspace(SEPARATOR, prepend_scheme=prepend)
    return tokenizer


def _characters(texts: Iterable[str]) -> set[str]:
    """All characters of normalised texts but blanks.

    Raises:
        ValueError: If there are none.
    """
    found: set[str] = set()
    for text in texts:
        found.update(text)
    found -= {" ", _DAMAGED}
    if not found:
        raise ValueError("the training transcripts are empty: there is nothing to learn to spell")
    return found


def _name(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X} {unicodedata.name(character, 'without a name')})"
