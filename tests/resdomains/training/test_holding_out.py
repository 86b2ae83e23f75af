import hashlib
import random

import pytest

from resdomains.training.holding_out import check_fractions, held_out

NAMES = [f"{i}.wav" for i in range(40)]


def test_the_lowest_hashes_test_and_the_next_validate() -> None:
    chosen = held_out(NAMES, 0.1, 0.2)
    ranked = sorted(NAMES, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    expected = dict.fromkeys(ranked[:8], "test") | dict.fromkeys(ranked[8:12], "val")
    assert chosen == [expected.get(name, "train") for name in NAMES]


def test_neither_the_order_nor_a_repetition_changes_a_name() -> None:
    first = dict(zip(NAMES, held_out(NAMES, 0.1, 0.1), strict=True))
    mixed = [*NAMES, *NAMES[:15]]
    random.Random(0).shuffle(mixed)
    assert held_out(mixed, 0.1, 0.1) == [first[name] for name in mixed]


def test_shares_are_of_each_group_and_small_groups_are_in_every_split() -> None:
    groups = ["large"] * 34 + ["small"] * 3 + ["pair"] * 2 + ["single"]
    chosen = held_out(NAMES, 0.1, 0.1, groups=groups)
    assert sorted(chosen[34:37]) == ["test", "train", "val"]
    assert chosen[37:] == ["train"] * 3
    assert chosen[:34].count("val") == chosen[:34].count("test") == 3


def test_nothing_is_held_out_for_a_share_of_zero() -> None:
    assert set(held_out(NAMES, 0.0)) == {"train"}
    assert set(held_out(NAMES, 0.2)) == {"train", "val"}
    assert held_out([], 0.5, 0.1) == []


def test_names_may_hold_bytes_that_are_not_utf8() -> None:
    assert held_out(["\udcff.wav", "a.wav"], 0.5).count("val") == 1


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        (1.0, 0.0, r"val_fraction is a share and must lie in \[0, 1\), got 1.0"),
        (0.1, -0.1, "test_fraction is a share"),
        (0.5, 0.5, "val_fraction 0.5 and test_fraction 0.5 leave nothing to train on"),
    ],
)
def test_shares_that_leave_nothing_are_refused(val: float, test: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_fractions(val, test)
