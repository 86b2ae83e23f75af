import hashlib
import random
from collections import Counter

import pytest

from resdomains_tasks.text_classification.splits import HashSplit, RandomSplit, Splitting
from resdomains_tasks.text_classification.texts import Texts


def texts(names: list[str], targets: list[str], pairs: list[str] | None = None) -> Texts:
    return Texts(names, pairs, targets, [f"a:{i}" for i in range(len(names))])


MANY = texts([f"text {i} 🙂" for i in range(1000)], ["ab"[i % 4 == 0] for i in range(1000)])


def test_tenths_by_hash_are_the_published_rule() -> None:
    expected = []
    for text in MANY.texts:
        residue = int(hashlib.md5(text.encode("utf-8")).hexdigest(), 16) % 10
        expected.append("train" if residue < 8 else "val" if residue == 8 else "test")
    assert HashSplit(0.1, 0.1).split(MANY, with_test=True) == expected
    assert HashSplit(0.1, 0.1).split(MANY, with_test=False) == [
        split if split == "val" else "train" for split in expected
    ]


def test_shares_by_hash_are_in_thousandths() -> None:
    counts = Counter(HashSplit(0.125, 0.25).split(MANY, with_test=True))
    assert 90 < counts["val"] < 160
    assert 210 < counts["test"] < 290
    with pytest.raises(ValueError, match=r"val and test must be whole thousandths, got 0\.3333"):
        HashSplit(0.3333, 0.1)


def test_each_class_is_held_out_in_its_share() -> None:
    counts = Counter(
        zip(RandomSplit(0.2, 0.1).split(MANY, with_test=True), MANY.targets, strict=True)
    )
    assert counts == {
        ("train", "a"): 525,
        ("val", "a"): 150,
        ("test", "a"): 75,
        ("train", "b"): 175,
        ("val", "b"): 50,
        ("test", "b"): 25,
    }
    assert set(RandomSplit(0.2, 0.1).split(MANY, with_test=False)) == {"train", "val"}


@pytest.mark.parametrize("split", [RandomSplit(0.2, 0.2), HashSplit(0.2, 0.2)])
def test_a_split_depends_on_the_text_and_not_on_its_place(split: Splitting) -> None:
    order = random.Random(0).sample(range(1000), 1000)
    mixed = texts([MANY.texts[i] for i in order], [str(MANY.targets[i]) for i in order])
    before, after = split.split(MANY, with_test=True), split.split(mixed, with_test=True)
    assert after == [before[i] for i in order]


@pytest.mark.parametrize("split", [RandomSplit(0.3, 0.3), HashSplit(0.3, 0.3)])
def test_equal_texts_are_on_one_side(split: Splitting) -> None:
    names = [f"text {i % 40}" for i in range(200)]
    found = split.split(texts(names, ["ab"[i % 3 == 0] for i in range(200)]), with_test=True)
    assert len(set(zip(names, found, strict=True))) == 40
    assert set(found) == {"train", "val", "test"}
    if isinstance(split, RandomSplit):
        # Repeated texts count once.
        uneven = split.split(texts(["0"] * 100 + names[1:40], ["a"] * 139), with_test=True)
        assert Counter(uneven[99:]) == {"train": 16, "val": 12, "test": 12}
    pairs = [str(i) for i in range(200)]
    paired = split.split(texts(["a"] * 200, ["a"] * 200, pairs), with_test=True)
    assert len(set(paired)) == 3


def test_another_seed_holds_out_other_texts() -> None:
    assert RandomSplit(seed=0).split(MANY, with_test=True) != RandomSplit(seed=1).split(
        MANY, with_test=True
    )


def test_a_small_class_shows_up_in_every_split() -> None:
    small = texts([str(i) for i in range(3)], ["a"] * 3)
    assert sorted(RandomSplit(0.1, 0.1).split(small, with_test=True)) == ["test", "train", "val"]
    assert set(RandomSplit(0.0, 0.0).split(small, with_test=True)) == {"train"}


def test_shares_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"val 0\.5 and test 0\.5 leave nothing to train on"):
        RandomSplit(0.5, 0.5)
    with pytest.raises(ValueError, match=r"test is a share of the texts in \[0, 1\), got 1"):
        HashSplit(0.0, 1)
