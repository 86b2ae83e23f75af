"""Values separated by a delimiter, a record a line: how a file does it, and its records by line."""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

# The first of equals is taken, so the least likely in a text comes first.
_CANDIDATES = ("\t", ";", "|", ",")
_BY_SUFFIX = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", " ": "space"}
_SNIFFED = 500
"""Lines that decide the delimiter."""
MISPLACED = "a quote opens a value here"
"""How the reason begins where quotes are misplaced."""


@dataclass(frozen=True)
class Dialect:
    """How the values of a record are told apart.

    Args:
        delimiter: What stands between two values; empty where a line is one value.
        quoted: Whether a value in double quotes may hold delimiters, newlines and, written twice, quotes.
    """

    delimiter: str
    quoted: bool

    def __str__(self) -> str:
        if not self.delimiter:
            return "one value a line"
        name = _NAMES.get(self.delimiter, repr(self.delimiter))
        return f"{name}-separated, {'quoted' if self.quoted else 'not quoted'}"


def records(text: str, dialect: Dialect, faults: dict[int, str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each record's first line, from 1, and its values. Empty lines are no records.

    In contrast to the `csv` module, a quote that is never closed costs its own line and not the rest of the file,
    values are of any size, and spaces around quotes are ignored.

    Args:
        text: The file's characters, lines ended by newlines.
        dialect: How values are told apart.
        faults: Where lines with misplaced quotes are put, with the reason.
    """
    if not dialect.quoted or '"' not in text:
        for line, content in enumerate(text.split("\n"), 1):
            if content.strip(" "):
                yield line, content.split(dialect.delimiter) if dialect.delimiter else [content]
        return
    yield from _quoted_records(text, dialect.delimiter, faults)


def _quoted_records(
    text: str, delimiter: str, faults: dict[int, str]
) -> Iterator[tuple[int, list[str]]]:
    # Possessive: two quotes are never taken for the end of a value and a new one, nor is a long text searched again.
    space = "" if delimiter.startswith(" ") else " *+"
    opening = re.compile(f'{space}"')
    value = re.compile(f'{space}"([^"]*+(?:""[^"]*+)*+)"{space}')
    step = len(delimiter)
    position, line, size = 0, 1, len(text)
    while position < size:
        end = text.find("\n", position)
        end = size if end < 0 else end
        if text.find('"', position, end) < 0:
            content = text[position:end]
            if content.strip(" "):
                yield line, content.split(delimiter)
            position, line = end + 1, line + 1
            continue
        start, values = position, list[str]()
        while True:
            found = value.match(text, position)
            if found is not None:
                values.append(found[1].replace('""', '"'))
                position = found.end()
                if position < size and not text.startswith((delimiter, "\n"), position):
                    closed = line + text.count("\n", start, position)
                    faults[line] = (
                        f"{MISPLACED} that is not followed by the delimiter where it closes, "
                        f"in line {closed}; a quote within quotes is written twice"
                    )
                    break
            elif opening.match(text, position):
                faults[line] = f"{MISPLACED} and is never closed"
                break
            else:
                stop = text.find("\n", position)
                stop = size if stop < 0 else stop
                cut = text.find(delimiter, position, stop)
                stop = stop if cut < 0 else cut
                values.append(text[position:stop])
                position = stop
            if position >= size or text[position] == "\n":
                break
            position += step
        if line in faults:
            position, line = end + 1, line + 1
        else:
            yield line, values
            line += text.count("\n", start, position) + 1
            position += 1


def sniff(text: str, suffix: str) -> Dialect | None:
    """Find out how a file separates values: the way that gives the most records equally many, two at least.

    Args:
        text: The file's characters.
        suffix: The file name's, which decides between equals.

    Returns:
        The dialect, or None if no delimiter gives most records equally many values.
    """
    position = -1
    for _ in range(_SNIFFED):
        position = text.find("\n", position + 1)
        if position < 0:
            break
    sample = text if position < 0 else text[:position]
    usual = _BY_SUFFIX.get(suffix)
    candidates = [usual, *(c for c in _CANDIDATES if c != usual)] if usual else [*_CANDIDATES]
    best, delimiter = 0.0, ""
    for candidate in candidates:
        fits = [_Fit.of(sample, Dialect(candidate, quoted)) for quoted in (True, False)]
        # The header or the first record is seldom the broken one.
        rank = max(fit.share if fit.first else fit.share / 2 for fit in fits)
        if rank > best and max(fit.share for fit in fits) > 0.5:
            best, delimiter = rank, candidate
    return Dialect(delimiter, is_quoted(text, delimiter)) if delimiter else None


def is_quoted(text: str, delimiter: str) -> bool:
    """Say whether quotes at the edges of values are there to be taken off, from all of the file.

    Between commas and semicolons they are: CSV is written so. Between others they are if the file is then more regular,
    or as regular without a record of several lines; a tab-separated message may well begin with a quote of its own.
    """
    if re.search(f'(?:^|{re.escape(delimiter)}) *"', text, re.MULTILINE) is None:
        return False
    if delimiter in (",", ";"):
        return True
    quoted, plain = (_Fit.of(text, Dialect(delimiter, q)) for q in (True, False))
    return quoted.share > plain.share or (quoted.share == plain.share and not quoted.spans)


@dataclass(frozen=True)
class _Fit:
    """How regular records are.

    Args:
        share: The share of records that have the most common number of values, two or more.
        first: Whether the first record has it.
        spans: Whether any record takes several lines.
    """

    share: float
    first: bool
    spans: bool

    @classmethod
    def of(cls, text: str, dialect: Dialect) -> "_Fit":
        faults: dict[int, str] = {}
        counts: Counter[int] = Counter()
        first = spans = 0
        for _, values in records(text, dialect, faults):
            first = first or len(values)
            counts[len(values)] += 1
            spans += dialect.quoted and any("\n" in value for value in values)
        total = counts.total() + len(faults)
        usual = max((n for n in counts if n > 1), key=lambda n: (counts[n], n), default=0)
        if not usual:
            return cls(0.0, False, spans > 0)
        return cls(counts[usual] / total, first == usual, spans > 0)


def has_header(rows: list[list[str]], known: Collection[str]) -> bool:
    """Say whether the first record names the columns.

    It does if it has a name that columns usually have; and otherwise if a column holds only numbers, or few values
    again and again, the first of which is different.

    Args:
        rows: The first records.
        known: Names that columns usually have, in lower case.
    """
    first, rest = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    names = [name.strip() for name in first]
    if any(len(name) > 60 for name in names):
        return False
    columns = [[row[i].strip() for row in rest] for i in range(len(first))]
    if any(
        name.casefold() in known and name not in c for name, c in zip(names, columns, strict=True)
    ):
        return True
    votes = set[bool]()
    for name, column in zip(names, columns, strict=True):
        # Spreadsheets leave empty columns at the end, and pandas writes its index without a name.
        if not name or len(column) < 4:
            continue
        if all(_is_number(value) for value in column):
            votes.add(not _is_number(name))
        elif len(set(column)) <= len(column) / 4:
            votes.add(name not in column)
    return votes == {True}


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
