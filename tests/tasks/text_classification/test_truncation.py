from collections.abc import Sequence

import numpy as np
import pytest

from resdomains_tasks.text_classification.truncation import kept


def stay(texts: Sequence[int], longest: int, keep: str) -> list[int]:
    places: list[int] = kept(np.array(texts), longest, keep).tolist()
    return places


# [CLS] a b c d e f [SEP]
SINGLE = [-1, 0, 0, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("keep", "longest", "places"),
    [
        ("head", 5, [0, 1, 2, 3, 7]),
        ("tail", 5, [0, 4, 5, 6, 7]),
        ("both", 5, [0, 1, 2, 6, 7]),
        ("both", 6, [0, 1, 2, 5, 6, 7]),
        ("both", 3, [0, 1, 7]),
        ("head", 8, list(range(8))),
        ("tail", 100, list(range(8))),
    ],
)
def test_special_tokens_and_the_wanted_ends_stay(
    keep: str, longest: int, places: list[int]
) -> None:
    assert stay(SINGLE, longest, keep) == places


@pytest.mark.parametrize("keep", ["head", "tail", "both"])
def test_of_a_pair_the_longer_text_is_cut_first(keep: str) -> None:
    for first in range(1, 12):
        for second in range(1, 12):
            pair = [-1] + [0] * first + [-1] + [1] * second + [-1]
            for longest in range(5, len(pair) + 2):
                owners = np.array(pair)[stay(pair, longest, keep)]
                left = [int((owners == k).sum()) for k in (0, 1)]
                # One token at a time from the longer, as transformers' `longest_first` does.
                wanted = [first, second]
                while sum(wanted) + 3 > longest:
                    wanted[wanted[1] > wanted[0]] -= 1
                assert sorted(left) == sorted(wanted)
                assert left[0] <= first
                assert left[1] <= second
                assert (owners == -1).sum() == 3


def test_no_room_beside_special_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_length 2 leaves no room beside 2 special tokens"):
        kept(np.array(SINGLE), 2, "head")
    with pytest.raises(ValueError, match="head, tail, both, got 'middle'"):
        kept(np.array(SINGLE), 4, "middle")
