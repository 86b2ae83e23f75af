import pytest

from resdomains_tasks.text_classification.columns import (
    find_column,
    guess_label,
    guess_pair,
    guess_text,
)

TABLE = {
    "id": [str(i) for i in range(40)],
    "verdict": ["up" if i % 3 else "down" for i in range(40)],
    "words": [f"a sentence of some length, the {i}th" for i in range(40)],
}


def test_a_column_is_given_by_name_or_number() -> None:
    assert find_column("words", list(TABLE), "text", "t.csv") == "words"
    assert find_column(2, list(TABLE), "text", "t.csv") == "words"
    assert find_column("2", list(TABLE), "text", "t.csv") == "words"
    assert find_column("2", ["1", "2", "3"], "text", "t.csv") == "2"


@pytest.mark.parametrize("given", ["word", 3, -1, "3"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(given: str | int) -> None:
    with pytest.raises(
        ValueError, match=r"text: t\.csv has no column .*; it has 'id', 'verdict', 'words'; set"
    ) as caught:
        find_column(given, list(TABLE), "text", "t.csv")
    assert ("did you mean 'words'?" in str(caught.value)) == (given == "word")


def test_columns_are_guessed_by_name_first() -> None:
    table = {"a": ["x" * 50] * 4, "Text": ["b"] * 4, "LABEL": ["1", "2", "3", "4"], "c": ["y"] * 4}
    assert guess_text(list(table), table.__getitem__, "t") == "Text"
    assert guess_label(list(table), table.__getitem__, "t") == "LABEL"


def test_columns_are_guessed_by_what_they_hold() -> None:
    assert guess_text(list(TABLE), TABLE.__getitem__, "t") == "words"
    assert guess_label(list(TABLE), TABLE.__getitem__, "t", ["words"]) == "verdict"


def test_columns_that_are_sorted_or_mostly_empty_are_seen_as_such() -> None:
    table = {
        "v1": ["ham"] * 3000 + ["spam"] * 500,
        "v2": [f"message {i}" for i in range(3500)],
        "2": ["PS"] * 10 + ["ok"] * 10 + [""] * 3480,
    }
    assert guess_label(list(table), table.__getitem__, "t", ["v2"]) == "v1"


def test_the_other_one_of_two_columns_is_the_label() -> None:
    table = {"0": ["a b", "c d"], "1": ["x", "y"]}
    assert guess_label(list(table), table.__getitem__, "t", ["0"]) == "1"


def test_what_is_not_clear_is_not_guessed() -> None:
    table = TABLE | {"colour": ["red", "blue"] * 20}
    with pytest.raises(
        ValueError,
        match=r"label: it is not clear .* 'verdict', 'colour' could be it; set --data\.label",
    ):
        guess_label(list(table), table.__getitem__, "t", ["words"])
    table = {"id": TABLE["id"], "number": TABLE["id"], "words": TABLE["words"]}
    with pytest.raises(ValueError, match="none looks like one"):
        guess_label(list(table), table.__getitem__, "t", ["words"])
    numbers: dict[str, list[int]] = {"a": [1], "b": [2]}
    with pytest.raises(ValueError, match=r"no column of text among 'a', 'b'; set --data\.text"):
        guess_text(list(numbers), numbers.__getitem__, "t")


def test_pairs_are_known_by_their_names_alone() -> None:
    assert guess_pair(["label", "Hypothesis", "premise"]) == ("premise", "Hypothesis")
    assert guess_pair(["text", "label", "comment"]) is None
