"""Texts to ids, once: flat arrays, cut to a length, kept in a cache by their content."""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from .tokens import readable
from .truncation import kept

# Changes whenever equal texts and tokenizers would be encoded otherwise than before.
_FORMAT = 1
_AT_ONCE = 2048  # texts, so that the tokenizer's own results, which are large, do not pile up
# Characters of a text that are read for each token that may stay; longer texts are cut before they are encoded.
_CHARACTERS = 64
_CACHE_BYTES = 4 * 2**30


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


class Encoder:
    """Turns texts into ids by a tokenizer's JSON.

    Args:
        tokenizer: JSON of a `tokenizers.Tokenizer`.
        max_length: Tokens of an item, the special ones included, at most.
        truncation: What is kept of a longer one: `head`, `tail` or `both`.

    Raises:
        ValueError: If the JSON is no tokenizer's, or the length leaves no room for a text.
    """

    def __init__(self, tokenizer: str, max_length: int, truncation: str) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer)
        except Exception as error:  # what `tokenizers` raises is of type Exception itself
            raise ValueError(
                f"tokenizer is no JSON of the `tokenizers` library: {error}"
            ) from error
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
            folder: Where results are kept; `cache_folder()` if None.
        """
        path = (folder or cache_folder()) / f"{self._key(texts, pairs)}.safetensors"
        found = _load(path)
        if found is None:
            found = self.encode(texts, pairs)
            _save(found, path)
        return found

    def _key(self, texts: Sequence[str], pairs: Sequence[str] | None) -> str:
        digest = hashlib.sha256()
        for part in (str(_FORMAT), self._json, str(self.max_length), self.truncation):
            digest.update(f"{len(part)}:{part}".encode())
        for column in (texts, pairs or ()):
            digest.update(f"[{len(column)}]".encode())
            for text in column:
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
            short = [self._shorten(text) for text in first]
            short_pairs = None if second is None else [self._shorten(text) for text in second]
            inputs = short if short_pairs is None else list(zip(short, short_pairs, strict=True))
            for row, encoding in enumerate(self._tokenizer.encode_batch(inputs)):
                ids = np.array(encoding.ids, np.int32)
                kinds = np.array(encoding.type_ids, np.uint8)
                was_cut = len(short[row]) < len(first[row]) or (
                    second is not None
                    and short_pairs is not None
                    and len(short_pairs[row]) < len(second[row])
                )
                if len(ids) > self.max_length:
                    owners = np.array([-1 if s is None else s for s in encoding.sequence_ids])
                    places = kept(owners, self.max_length, self.truncation)
                    ids, kinds, was_cut = ids[places], kinds[places], True
                yield ids, kinds, was_cut

    def _shorten(self, text: str) -> str:
        """Cut a text that is so long that nobody would wait for its tokens; what stays has enough of them."""
        longest = _CHARACTERS * self.max_length
        if len(text) <= 2 * longest:
            return text
        return text[:longest] + "\n" + text[-longest:]


def cache_folder() -> Path:
    """Return the folder of encoded texts: `resdomains/text` in the user's cache (XDG_CACHE_HOME, or ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "resdomains" / "text"


def _load(path: Path) -> Encoded | None:
    try:
        if not path.is_file():
            return None
        held = load_file(path)
        os.utime(path)  # the oldest go first when the cache is full
        return Encoded(
            held["ids"], held.get("types"), held["offsets"], int(held["cut"]), held["blank"]
        )
    except (OSError, SafetensorError, KeyError) as error:
        warnings.warn(f"{path} cannot be read and is made anew: {error}", stacklevel=2)
        return None


def _save(encoded: Encoded, path: Path) -> None:
    held = {
        "ids": encoded.ids,
        "offsets": encoded.offsets,
        "cut": torch.tensor(encoded.cut),
        "blank": encoded.blank,
    }
    if encoded.types is not None:
        held["types"] = encoded.types
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            save_file(held, part)
            part.replace(path)
        _prune(path.parent, _CACHE_BYTES)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"encoded texts are not kept for the next run: {error}", stacklevel=2)


def _prune(folder: Path, limit: int) -> None:
    """Remove the files that were not used for longest until the rest fits."""
    files = sorted(folder.glob("*.safetensors"), key=lambda p: p.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > limit:
            file.unlink(missing_ok=True)
