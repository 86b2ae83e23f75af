"""What `predict` is given: texts themselves, tables of them, folders of tables, standard input."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from resdomains.training import BadSample

from .spec import TextSpec
from .tables import SUFFIXES, Item, read_for_prediction, text_fault

_AS_PAIR = 'expected two texts as a JSON list, ["...", "..."], because the task reads pairs'


def read_inputs(inputs: Sequence[str], spec: TextSpec) -> Iterator[Item | BadSample]:
    """Yield the texts that the arguments of a command line name, in order; a `BadSample` where one cannot be used.

    An argument that names a file is a table, one that names a folder all tables in it, `-` is standard input with a
    text a line, and all others are texts themselves: but what ends as a table's name does (`.csv`) and holds no blank
    is a file that is not there. Pairs of texts are given as a JSON list of two, also on standard input.

    Args:
        inputs: The arguments.
        spec: The description of the texts that the task was trained on.
    """
    for number, given in enumerate(inputs, 1):
        if given == "-":
            yield from _lines(spec)
        elif (path := _existing(given)) is not None:
            yield from _files(path, spec)
        elif _names_a_table(given):
            yield BadSample(given, "no such file")
        else:
            yield _text(given, f"argument {number}", spec)


def _lines(spec: TextSpec) -> Iterator[Item | BadSample]:
    # Read as bytes: what is not UTF-8 is the fault of one line, not of all.
    for number, line in enumerate(sys.stdin.buffer, 1):
        text = line.rstrip(b"\r\n").decode(
            "utf-8-sig" if number == 1 else "utf-8", "surrogateescape"
        )
        yield _text(text, f"stdin:{number}", spec)


def _existing(given: str) -> Path | None:
    path = Path(given)
    try:
        return path if path.exists() else None
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return None


def _names_a_table(given: str) -> bool:
    return given.lower().endswith(SUFFIXES) and not any(c.isspace() for c in given)


def _files(path: Path, spec: TextSpec) -> Iterator[Item | BadSample]:
    files = [path]
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        files = sorted(p for p in inside if p.suffix.lower() in SUFFIXES)
        if not files:
            yield BadSample(str(path), f"a folder without tables ({', '.join(SUFFIXES)})")
    for file in files:
        try:
            yield from read_for_prediction(file, spec)
        except BadSample as error:
            yield error
        except ValueError as error:
            yield BadSample(str(file), str(error))


def _text(given: str, where: str, spec: TextSpec) -> Item | BadSample:
    if not spec.pair:
        fault = text_fault(given)
        return (given, None, where) if fault is None else BadSample(where, fault)
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        found = None
    if not (isinstance(found, list) and len(found) == 2):
        return BadSample(where, _AS_PAIR)
    fault = text_fault(found[0]) or text_fault(found[1], "second text")
    return (found[0], found[1], where) if fault is None else BadSample(where, fault)
