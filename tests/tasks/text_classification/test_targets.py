import math
from typing import Any

import pytest

from resdomains_tasks.text_classification.targets import (
    class_list,
    class_name,
    guess_kind,
    has_class,
    in_order,
    number,
)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("pos", "pos"),
        (" pos ", "pos"),
        ("0", "0"),
        ("1.0", "1.0"),
        ("true", "true"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (1.0, "1"),
        (0.5, "0.5"),
        (["pos"], "pos"),
        ("🙂", "🙂"),
    ],
)
def test_labels_become_names(value: Any, name: str) -> None:
    assert class_name(value) == name


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "the label is missing"),
        (None, "the label is missing"),
        (math.nan, "the label is missing"),
        ("  ", "the label is empty"),
        ("a\0", "the label holds a NUL"),
        ("a\udcff", "the label holds bytes that are not"),
        (["a", "b"], r"must name one class, got \['a', 'b'\]"),
        ({"a": 1}, "must name one class"),
    ],
)
def test_what_names_no_class_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        class_name(value)


def test_numbers_of_named_classes_become_the_names() -> None:
    names = ["neg", "pos"]
    assert [class_name(x, names) for x in (0, 1, "pos")] == ["neg", "pos", "pos"]
    assert class_list([1, 0], names=names) == ["pos", "neg"]
    with pytest.raises(ValueError, match=r"missing \(-1\)"):
        class_name(-1, names)
    with pytest.raises(ValueError, match="one of 2 classes, got 2"):
        class_name(2, names)


@pytest.mark.parametrize(
    ("value", "separator", "names"),
    [
        ("a|b", "|", ["a", "b"]),
        (" b | a |", "|", ["b", "a"]),
        ("a|a", "|", ["a"]),
        ("", "|", []),
        ("a|b", None, ["a|b"]),
        (["x", 1, True], None, ["x", "1", "true"]),
        ([], None, []),
        ("", None, []),
        (3, None, ["3"]),
    ],
)
def test_several_labels(value: Any, separator: str | None, names: list[str]) -> None:
    assert class_list(value, separator) == names


def test_missing_labels_are_not_none_of_them() -> None:
    with pytest.raises(ValueError, match="missing"):
        class_list(None)
    with pytest.raises(ValueError, match="missing"):
        class_list(["a", None])


def test_numbers() -> None:
    assert [number(x) for x in ("1.5", 2, " -3e2 ", 0.25)] == [1.5, 2.0, -300.0, 0.25]
    wrong: list[Any] = ["x", "nan", math.inf, [1], 10**400, "1,5"]
    for value in wrong:
        with pytest.raises(ValueError, match="must be a number, got"):
            number(value)
    for missing in ("", None):
        with pytest.raises(ValueError, match="missing"):
            number(missing)


def test_columns_of_yes_and_no() -> None:
    assert [has_class(x) for x in ("1", 0, True, "No", 1.0)] == [True, False, True, False, True]
    with pytest.raises(ValueError, match="must hold 0 or 1, got 'maybe'"):
        has_class("maybe")


def test_the_kind_follows_from_lists_and_separators_and_never_from_numbers() -> None:
    assert guess_kind(["0", "1", "1"], None, "label") == "single"
    assert guess_kind([["a"], ["b"]], None, "label") == "single"
    assert guess_kind([["a"], []], None, "label") == "multilabel"
    assert guess_kind(["a"], "|", "label") == "multilabel"
    assert guess_kind([i % 30 for i in range(100)], None, "label") == "single"


def test_labels_that_are_no_classes_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"30 different numbers, such as 0\.0; set --data\.kind regression"
    ):
        guess_kind([i % 30 / 4 for i in range(100)], None, "label")
    with pytest.raises(
        ValueError, match="label: column 'x': 100 of 100 labels differ, such as 'n0'"
    ):
        guess_kind([f"n{i}" for i in range(100)], None, "label: column 'x'")


def test_whole_numbers_are_ordered_by_size() -> None:
    assert in_order({"10", "9", "-1"}) == ["-1", "9", "10"]
    assert in_order({"b", "10", "9"}) == ["10", "9", "b"]
