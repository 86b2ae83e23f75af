"""Which column of a table holds the text, and which the label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from resdomains.plugins import nearest

# In order of preference, in lower case.
_TEXT = (
    *("text", "sentence", "review", "content", "body", "message", "sms", "comment", "comment_text"),
    *("tweet", "utterance", "document", "description", "question", "query", "abstract", "title"),
    *("review_text", "reviewtext", "text_a"),
)
_LABEL = (
    *(
        "label",
        "labels",
        "class",
        "category",
        "categories",
        "target",
        "sentiment",
        "topic",
        "topics",
    ),
    *("tag", "tags", "gold_label", "intent", "emotion", "polarity", "rating", "stars"),
)
_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("#1 string", "#2 string"),
)
KNOWN = frozenset(
    [*_TEXT, *_LABEL, *(name for pair in _PAIRS for name in pair), "id", "idx", "index"]
)
"""Names that columns usually have, in lower case."""

_LOOKED_AT = 1000
"""Values of a column that are looked at where its name tells nothing."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are used.

    Args:
        text: Holds the text.
        pair: Holds the second text, where items are two texts.
        label: Hold the label, or for several columns of 0 and 1 one label each; none for tables to predict.
        guessed: How those were found that were not given; empty if all were.
    """

    text: str
    pair: str | None
    label: tuple[str, ...]
    guessed: str = ""


def find_column(given: str | int, columns: Sequence[str], argument: str, name: str) -> str:
    """Return the column that is given by its name or its number from 0.

    Args:
        given: Name or number.
        columns: The table's columns.
        argument: What messages call the choice.
        name: What messages call the table.

    Raises:
        ValueError: If the table has no such column; the message names those it has.
    """
    if str(given) in columns:
        return str(given)
    place = int(given) if isinstance(given, int) or given.isdecimal() else len(columns)
    if 0 <= place < len(columns):
        return columns[place]
    near = nearest(str(given), columns)
    hint = f" (did you mean {near!r}?)" if near is not None else ""
    raise ValueError(
        f"{argument}: {name} has no column {given!r}{hint}; it has {', '.join(map(repr, columns))}; "
        f"set --data.{argument} to one of them"
    )


def guess_text(
    columns: Sequence[str],
    values: Callable[[str], Sequence[Any]],
    name: str,
    taken: Sequence[str] = (),
) -> str:
    """Return the column that holds the text: by its name, or the one whose values are the longest strings.

    Args:
        columns: The table's columns.
        values: Gives a column's values.
        name: What messages call the table.
        taken: Columns that hold something else.

    Raises:
        ValueError: If no other column holds strings.
    """
    free = [column for column in columns if column not in taken]
    named = _by_name(free, _TEXT)
    if named is not None:
        return named
    lengths = {}
    for column in free:
        strings = [value for value in _some(values(column)) if isinstance(value, str)]
        if strings:
            lengths[column] = sum(map(len, strings)) / len(strings)
    if not lengths:
        raise ValueError(
            f"text: {name} has no column of text among {', '.join(map(repr, columns))}; set --data.text"
        )
    return max(lengths, key=lambda column: lengths[column])


def guess_label(
    columns: Sequence[str],
    values: Callable[[str], Sequence[Any]],
    name: str,
    taken: Sequence[str] = (),
) -> str:
    """Return the column that holds the label: by its name, or the only one with few values again and again.

    Args:
        columns: The table's columns.
        values: Gives a column's values.
        name: What messages call the table.
        taken: Columns that hold something else.

    Raises:
        ValueError: If none or several could be it; the message names them.
    """
    free = [column for column in columns if column not in taken]
    named = _by_name(free, _LABEL)
    if named is not None:
        return named
    if len(free) == 1:
        return free[0]
    few = []
    for column in free:
        looked = _some(values(column))
        stated = [repr(value) for value in looked if value is not None and value != ""]
        # A column that is mostly empty holds remarks.
        if len(stated) >= 0.9 * len(looked) and 1 < len(set(stated)) <= max(2, len(looked) / 4):
            few.append(column)
    if len(few) == 1:
        return few[0]
    could = f"{', '.join(map(repr, few))} could be it" if few else "none looks like one"
    raise ValueError(
        f"label: it is not clear which column of {name} holds the label, {could}; "
        f"set --data.label to one of {', '.join(map(repr, columns))}"
    )


def guess_pair(columns: Sequence[str]) -> tuple[str, str] | None:
    """Return two columns whose names say that items are two texts."""
    for pair in _PAIRS:
        first, second = (_by_name(columns, [name]) for name in pair)
        if first is not None and second is not None:
            return first, second
    return None


def _some(values: Sequence[Any]) -> Sequence[Any]:
    """Values from all over a column, which may be sorted by class."""
    return values[:: max(1, len(values) // _LOOKED_AT)]


def _by_name(columns: Sequence[str], names: Sequence[str]) -> str | None:
    for name in names:
        for column in columns:
            if column.strip().casefold() == name:
                return column
    return None
