"""What tables hold for labels, as class names, several of them, or numbers."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from .tables import shown, text_fault

Kind = Literal["single", "multilabel", "regression"]


def class_name(value: Any, names: Sequence[str] | None = None) -> str:
    """Return a label as the name of a class.

    A name is text as it stands, without spaces around. Whatever the format, truth values are `true` and `false`, and
    whole numbers are written without a point, so that 1 and 1.0 are one class; in delimited text all is text.

    Args:
        value: What the table holds.
        names: The names of classes that the table gives by number.

    Raises:
        ValueError: If that names no class, with the reason.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)) or value == "":
        raise ValueError("the label is missing")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        whole = not isinstance(value, float) or value.is_integer()
        if names is None:
            return str(int(value) if whole else value)
        # The convention of `datasets` where labels are kept secret.
        if value == -1:
            raise ValueError("the label is missing (-1)")
        if not whole or not 0 <= value < len(names):
            raise ValueError(
                f"the label must be a number of one of {len(names)} classes, got {value}"
            )
        return names[int(value)]
    if not isinstance(value, str):
        raise ValueError(f"the label must name one class, got {shown(value)}")
    fault = text_fault(value, "label")
    if fault is not None:
        raise ValueError(fault)
    return value.strip()


def class_list(
    value: Any, separator: str | None = None, names: Sequence[str] | None = None
) -> list[str]:
    """Return labels as names of classes, each once; an empty text or list is a sample that has none.

    Args:
        value: What the table holds: a list, or text with names between separators.
        separator: Stands between two names; None if a text is one name.
        names: The names of classes that the table gives by number.

    Raises:
        ValueError: If a label names no class, with the reason.
    """
    if value is None:
        raise ValueError("the labels are missing")
    if isinstance(value, str):
        parts = value.split(separator) if separator is not None else [value]
        value = [part for part in parts if part.strip()]
    found = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(class_name(part, names) for part in found))


def number(value: Any) -> float:
    """Return a label as a number.

    Raises:
        ValueError: If it is none, or not finite, with the reason.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError("the label is missing")
    try:
        found = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"the label must be a number, got {shown(value)}")
    return found


def has_class(value: Any) -> bool:
    """Say whether a column that stands for one class says yes.

    Raises:
        ValueError: If it says neither 1, true, yes nor 0, false, no, with the reason.
    """
    said = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return said[class_name(value).casefold()]
    except KeyError as error:
        raise ValueError(f"a class's own column must hold 0 or 1, got {shown(value)}") from error


def guess_kind(values: Sequence[Any], separator: str | None, argument: str) -> Kind:
    """Find out whether samples have one class or several. Numbers are classes: to predict a number must be asked for.

    Args:
        values: The training labels.
        separator: Stands between two labels of a sample, if that was given.
        argument: How messages say where the labels are.

    Raises:
        ValueError: If the labels are no classes that can be learnt.
    """
    if separator is not None or any(isinstance(v, list) and len(v) != 1 for v in values):
        return "multilabel"
    found = {str(value[0] if isinstance(value, list) else value) for value in values}
    if len(found) > 20 and len(found) > len(values) / 2:
        raise ValueError(
            f"{argument}: {len(found):,} of {len(values):,} labels differ, such as {shown(values[0])}; is it the right "
            "column? Set --data.kind regression to predict a number, or single if these are classes"
        )
    if (
        len(found) > 20
        and all(map(_is_fraction_or_whole, found))
        and not all(map(_is_whole, found))
    ):
        raise ValueError(
            f"{argument}: the labels are {len(found):,} different numbers, such as {shown(values[0])}; set "
            "--data.kind regression to predict the number, or single to make each a class"
        )
    return "single"


def _is_fraction_or_whole(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_whole(text: str) -> bool:
    return _is_fraction_or_whole(text) and float(text).is_integer()


def in_order(names: set[str]) -> list[str]:
    """Return class names in order: whole numbers by size, else by the characters."""
    if all(name.removeprefix("-").isdecimal() and name.isascii() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
