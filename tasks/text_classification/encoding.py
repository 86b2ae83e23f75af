"""Texts to ids, once: flat arrays, cut to a length, kept in a cache by their content."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from resdomains.panics import as_value_error
from resdomains.training.caches import cache_folder, cached_tensors

from .tokens import readable
from .truncation import kept

# Changes whenever equal texts and tokenizers would be encoded otherwise than before.
_FORMAT = 2
_AT_ONCE = 2048  # texts, so that the tokenizer's own results, which are large, do not pile up
# Characters of a text that are read for each token that may stay; longer texts are cut before they are encoded.
_CHARACTERS = 64
_CACHE_BYTES = 4 * 2**30

_Item = str | tuple[str, str]


@dataclass(frozen=True)
class Encoded:
    """The ids of many items, one after another.

    Args:
        ids: (N,) int32.
        types: (N,) uint8, the text of a pair that each token is from; None for single texts.
        offsets: (n + 1,) where each item begins.
        cut: How many items were longer than allowed.
        blank: The items in which the tokenizer found nothing; each is one unknown token.
    """

    ids: Tensor
    types: Tensor | None
    offsets: Tensor
    cut: int
    blank: Tensor

    def padded(self, index: Tensor) -> dict[str, Tensor]:
        """Return items as `ids`, (B, T) or for pairs (B, 2, T), zero behind each end, and their `lengths` (B,)."""
        begins = self.offsets[index]
        lengths = self.offsets[index + 1] - begins
        steps = torch.arange(int(lengths.max()))
        inside = steps < lengths[:, None]
        places = torch.where(inside, begins[:, None] + steps, 0)
        ids = torch.where(inside, self.ids[places].long(), 0)
        if self.types is not None:
            ids = torch.stack((ids, torch.where(inside, self.types[places].long(), 0)), 1)
        return {"ids": ids, "lengths": lengths}

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name; the types are absent for single texts."""
        types = {} if self.types is None else {"types": self.types}
        return {
            "ids": self.ids,
            **types,
            "offsets": self.offsets,
            "cut": torch.tensor(self.cut),
            "blank": self.blank,
        }


class Encoder:
    """Turns texts into ids by a tokenizer's JSON.

    Args:
        tokenizer: JSON of a `tokenizers.Tokenizer`.
        max_length: Tokens of an item, the special ones included, at most.
        truncation: What is kept of a longer one: `head`, `tail` or `both`.

    Attributes:
        vocabulary: Number of ids that may occur.

    Raises:
        ValueError: If the JSON is no tokenizer's, or the length leaves no room for a text.
    """

    def __init__(self, tokenizer: str, max_length: int, truncation: str) -> None:
        with as_value_error("tokenizer is no JSON of the `tokenizers` library"):
            self._tokenizer = Tokenizer.from_str(tokenizer)
            # Both would change items behind our back.
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        with as_value_error("tokenizer's JSON contradicts itself"):
            # Single texts, pairs and unknown characters, so that a wrong one shows here.
            trials = self._tokenizer.encode_batch(["a\uffff", ("a", "a")])
            ids = [*self._tokenizer.get_vocab().values(), *trials[0].ids, *trials[1].ids]
            self.vocabulary = 1 + max(ids, default=0)
            for trial in trials:
                np.array(trial.ids, np.int32), np.array(trial.type_ids, np.uint8)
        self._json, self.max_length, self.truncation = tokenizer, max_length, truncation
        # An item of a text without tokens becomes this one.
        self._unknown = next(
            (
                i
                for name in ("[UNK]", "<unk>")
                if (i := self._tokenizer.token_to_id(name)) is not None
            ),
            0,
        )
        special = self._tokenizer.num_special_tokens_to_add(False)
        if max_length <= special:
            raise ValueError(
                f"max_length must leave room beside {special} special tokens, got {max_length}; "
                f"take at least {special + 1}"
            )

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Encode single texts, or pairs."""
        ids: list[NDArray[np.int32]] = []
        types: list[NDArray[np.uint8]] = []
        blank: list[int] = []
        cut = 0
        for number, (item, kinds, was_cut) in enumerate(self._items(texts, pairs)):
            if not len(item):
                blank.append(number)
                item, kinds = np.array([self._unknown], np.int32), np.zeros(1, np.uint8)
            ids.append(item)
            types.append(kinds)
            cut += was_cut
        lengths = torch.tensor([0, *map(len, ids)])
        return Encoded(
            torch.from_numpy(np.concatenate(ids)) if ids else torch.zeros(0, dtype=torch.int32),
            None
            if pairs is None
            else torch.from_numpy(np.concatenate(types))
            if types
            else torch.zeros(0, dtype=torch.uint8),
            lengths.cumsum(0),
            cut,
            torch.tensor(blank, dtype=torch.long),
        )

    def cached(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, folder: Path | None = None
    ) -> Encoded:
        """Encode, or take what was encoded of equal texts by an equal encoder before.

        A cache that cannot be read or written is said once and done without.

        Args:
            texts: The texts.
            pairs: The second texts.
            folder: Where results are kept; `cache_folder("text")` if None.
        """
        path = (folder or cache_folder("text")) / f"{self._key(texts, pairs)}.safetensors"
        held = cached_tensors(
            path,
            lambda: self.encode(texts, pairs).tensors(),
            what="encoded texts",
            limit=_CACHE_BYTES,
        )
        return Encoded(
            held["ids"], held.get("types"), held["offsets"], int(held["cut"]), held["blank"]
        )

    def _key(self, texts: Sequence[str], pairs: Sequence[str] | None) -> str:
        digest = hashlib.sha256()
        how = (str(_FORMAT), tokenizers.__version__, str(self.max_length), self.truncation)
        for part in (*how, self._json):
            digest.update(f"{len(part)}:{part}".encode())
        for column in (texts, pairs):
            digest.update(f"[{column if column is None else len(column)}]".encode())
            for text in column or ():
                data = text.encode("utf-8", "surrogatepass")
                digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()

    def _items(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8], bool]]:
        """Yield the ids of each item, the text that each token is from, and whether any was cut."""
        for begin in range(0, len(texts), _AT_ONCE):
            first = list(readable(texts[begin : begin + _AT_ONCE]))
            second = None if pairs is None else list(readable(pairs[begin : begin + _AT_ONCE]))
            whole: list[_Item] = [*first] if second is None else [*zip(first, second, strict=True)]
            short = [self._shorten(item) for item in whole]
            for item, shortened, encoding in zip(whole, short, self._tokenize(short), strict=True):
                places = self._kept(encoding)
                if shortened != item and not self._far(encoding, places, shortened):
                    (encoding,) = self._tokenize([item])
                    places, shortened = self._kept(encoding), item
                ids = np.array(encoding.ids, np.int32)
                kinds = np.array(encoding.type_ids, np.uint8)
                yield ids[places], kinds[places], len(places) < len(ids) or shortened != item

    def _tokenize(self, inputs: Sequence[_Item]) -> list[Encoding]:
        with as_value_error("tokenizer cannot encode a text"):
            found: list[Encoding] = self._tokenizer.encode_batch(inputs)
            return found

    def _kept(self, encoding: Encoding) -> NDArray[np.int64]:
        if len(encoding) <= self.max_length:
            return np.arange(len(encoding))
        owners = np.array([-1 if s is None else s for s in encoding.sequence_ids])
        return kept(owners, self.max_length, self.truncation)

    def _shorten(self, item: _Item) -> _Item:
        """Take the middle out of texts that are so long that nobody would wait for all of their tokens."""
        longest = _CHARACTERS * self.max_length

        def ends(text: str) -> str:
            return text if len(text) <= 2 * longest else text[:longest] + "\n" + text[-longest:]

        return ends(item) if isinstance(item, str) else (ends(item[0]), ends(item[1]))

    def _far(self, encoding: Encoding, places: NDArray[np.int64], item: _Item) -> bool:
        """Whether the tokens that stay are far from where texts were shortened, so that they are the whole texts'."""
        near = _CHARACTERS * self.max_length // 2  # half of what is left at an end
        if len(places) == len(encoding):
            return False
        sizes = [len(item)] if isinstance(item, str) else [len(text) for text in item]
        owners, offsets = encoding.sequence_ids, encoding.offsets
        for place in places:
            owner, (begin, end) = owners[place], offsets[place]
            if owner is None or sizes[owner] <= 4 * near:
                continue
            if near < end and begin < sizes[owner] - near:
                return False
        return True
