"""Which tokens of an item that is too long are kept."""

import numpy as np
from numpy.typing import NDArray

KEEP = ("head", "tail", "both")


def kept(texts: NDArray[np.int64], longest: int, keep: str) -> NDArray[np.int64]:
    """Choose the tokens of an item that stay, in order.

    Special tokens stay. What they leave of `longest` is shared between the texts of a pair such that the longer one is
    cut first. Of a text's n tokens the first m stay (`head`), the last m (`tail`), or the first m - m // 2 and the
    last m // 2 (`both`: Sun et al. 2019).

    Args:
        texts: (T,) the number of the text that each token is from, 0 or 1; -1 for special tokens.
        longest: Tokens that may stay.
        keep: `head`, `tail` or `both`.

    Returns:
        The places of the tokens that stay, rising; (longest,) if there are so many.

    Raises:
        ValueError: If the special tokens alone are too many, or `keep` is none of the three.
    """
    if keep not in KEEP:
        raise ValueError(f"truncation must be one of {', '.join(KEEP)}, got {keep!r}")
    if len(texts) <= longest:
        return np.arange(len(texts))
    special = np.flatnonzero(texts < 0)
    room = longest - len(special)
    if room < 1:
        raise ValueError(
            f"max_length {longest} leaves no room beside {len(special)} special tokens; "
            f"take at least {len(special) + 1}"
        )
    places = [np.flatnonzero(texts == number) for number in (0, 1)]
    counts = _shared(len(places[0]), len(places[1]), room)
    chosen = [_ends(p, count, keep) for p, count in zip(places, counts, strict=True)]
    return np.sort(np.concatenate([special, *chosen]))


def _shared(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text stay when the longer one is cut first."""
    half = room // 2
    if second <= half:
        return room - second, second
    if first <= room - half:
        return first, room - first
    return room - half, half


def _ends(places: NDArray[np.int64], count: int, keep: str) -> NDArray[np.int64]:
    """The first, the last, or the first and last of the places."""
    if keep == "head":
        return places[:count]
    tail = count if keep == "tail" else count // 2
    return np.concatenate([places[: count - tail], places[len(places) - tail :]])
