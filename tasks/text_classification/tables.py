"""Tables of texts on disk, by columns: delimited text, JSON, Parquet, folders of the `datasets` library."""

import gc
import json
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytorch_lightning.utilities import rank_zero_only

from resdomains.training import BadSample

from .charset import damaged, decode
from .columns import KNOWN, guess_text
from .delimited import Dialect, has_header, is_quoted, records, sniff
from .spec import TextSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

JSON = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
DELIMITED = (".csv", ".tsv", ".tab", ".txt")
SUFFIXES = (*DELIMITED, *JSON, *PARQUET)
"""Of the files that are looked for; a file of another name that is given by name is read as delimited text."""

_SAVED = ("dataset_dict.json", "state.json")
_ROWS, _SPARE, _RATIO = 1_000_000, 2**30, 100  # of Parquet: real texts shrink to a tenth at best
_PIECE = 4096  # rows

_warn = rank_zero_only(logging.getLogger(__name__).warning)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How delimited text is to be read; what is None or `auto` is found out.

    Args:
        delimiter: Stands between two values.
        quoting: `standard` takes double quotes off, `none` leaves them in the text.
        header: Whether the first record names the columns.
        encoding: Of the characters; also for JSON.
        names: Columns that are meant to be there, by which a header is known.
    """

    delimiter: str | None = None
    quoting: Literal["auto", "standard", "none"] = "auto"
    header: bool | Literal["auto"] = "auto"
    encoding: str | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.quoting not in ("auto", "standard", "none"):
            raise ValueError(f"quoting must be 'auto', 'standard' or 'none', got {self.quoting!r}")
        if self.header not in (True, False, "auto"):
            raise ValueError(f"header must be true, false or 'auto', got {self.header!r}")
        if self.delimiter is not None and (
            not self.delimiter or set(self.delimiter) & set('"\r\n')
        ):
            raise ValueError(
                f"delimiter must be characters other than quotes and newlines, got {self.delimiter!r}; "
                "leave it out and it is found"
            )


@dataclass
class Table(ABC):
    """Rows of values under named columns.

    Args:
        name: What messages call the file.
        columns: The columns' names; their numbers from 0 where the file does not name them.
        lines: Of each row, its first line in the file, or its number from 1 where the format has no lines.
        bad: Of each line that is not a row, the reason.
        about: How the file is read, in words.
        named: Whether the file names its columns.
    """

    name: str
    columns: list[str]
    lines: Sequence[int]
    bad: dict[int, str] = field(default_factory=dict)
    about: str = ""
    named: bool = True

    @abstractmethod
    def values(self, column: str) -> list[Any]:
        """Return a column's values, one a row."""

    def class_names(self, column: str) -> list[str] | None:
        """Return the class names that the file states for a column of numbers."""
        return None

    def source(self, line: int) -> str:
        """Return where a row stands, such as `reviews.csv:12`."""
        return f"{self.name}:{line}"


@dataclass
class DelimitedTable(Table):
    """A table of delimited text."""

    rows: list[list[str]] = field(default_factory=list)
    reading: Reading = Reading()
    """How it was read: for the other files of the same data."""

    def values(self, column: str) -> list[Any]:
        place = self.columns.index(column)
        return [row[place] for row in self.rows]


@dataclass
class JsonTable(Table):
    """A table of JSON objects; a key that an object lacks is None."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)

    def values(self, column: str) -> list[Any]:
        return [row.get(column) for row in self.rows]


@dataclass
class ArrowTable(Table):
    """A Parquet file, or a data set that the `datasets` library saved."""

    table: "pa.Table | None" = None

    def values(self, column: str) -> list[Any]:
        import pyarrow as pa

        assert self.table is not None
        data = self.table.column(column)
        try:
            found: list[Any] = data.to_pylist()
            return found
        except UnicodeDecodeError:
            raw = data.cast(pa.large_binary()).to_pylist()
            return [x if x is None else x.decode("utf-8", "surrogateescape") for x in raw]

    def class_names(self, column: str) -> list[str] | None:
        assert self.table is not None
        try:
            stated = json.loads((self.table.schema.metadata or {})[b"huggingface"])
            feature = stated["info"]["features"][column]
            # A column of lists states what the lists hold.
            names = feature.get("feature", feature)["names"]
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return [str(name) for name in names] if isinstance(names, list) else None


@contextmanager
def without_collector() -> Iterator[None]:
    """Pause the search for cycles: it would look through millions of rows, which have none, again and again (a file of
    300,000 lines took 3.3 s to read and not 1.1).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@without_collector()
def read_table(path: Path, name: str, reading: Reading, *, single: bool = False) -> Table:
    """Read a file by its suffix.

    Args:
        path: The file.
        name: What messages call it.
        reading: How delimited text is to be read.
        single: Whether delimited text may have a single column, and a `.txt` file be a text a line.

    Raises:
        ValueError: If the file cannot be read, is empty, or is no table.
    """
    suffix = path.suffix.lower()
    if suffix in PARQUET:
        return _parquet(path, name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from error
    text, encoding = decode(data, name, reading.encoding)
    if not text.strip():
        raise ValueError(f"{name} is empty")
    table = _json(text, name) if suffix in JSON else _delimited(text, name, suffix, reading, single)
    if not encoding.startswith("utf-8"):
        table.about += f", {encoding}" + ("" if reading.encoding else " by its looks")
    return table


def _delimited(text: str, name: str, suffix: str, reading: Reading, single: bool) -> DelimitedTable:
    dialect = _dialect(text, name, suffix, reading, single)
    bad: dict[int, str] = {}
    found = list(records(text, dialect, bad))
    if not found:
        line, reason = next(iter(bad.items()))
        raise ValueError(f"{name}:{line}: {reason}")
    header = reading.header
    if header == "auto":
        header = has_header([values for _, values in found[:1000]], _known(reading))
    if header:
        (line, names), *found = found
        width = len(names)
        columns = _header(names, f"{name}:{line}")
        said = f"the header names {width}"
    else:
        width = Counter(len(values) for _, values in found).most_common(1)[0][0]
        columns = [str(place) for place in range(width)]
        said = f"most have {width}"
    if not found and not bad:
        raise ValueError(f"{name} holds a header and no rows")
    for line, values in found:
        if len(values) != width:
            more = len(values) > width
            bad[line] = (
                f"{len(values)} value{'s' * (len(values) > 1)} ({dialect}), {said}"
                f"{'; a value that holds the delimiter must be quoted' * (more and dialect.quoted)}"
            )
    rows = [(line, values) for line, values in found if len(values) == width]
    if not rows:
        line = min(bad)
        raise ValueError(f"{name}: no line is a row of the table; line {line}: {bad[line]}")
    return DelimitedTable(
        name=name,
        columns=columns,
        lines=[line for line, _ in rows],
        bad=bad,
        about=f"{dialect}, {'with' if header else 'without'} a header",
        named=bool(header),
        rows=[values for _, values in rows],
        reading=Reading(
            delimiter=dialect.delimiter or None,
            quoting="standard" if dialect.quoted else reading.quoting,
            header=bool(header),
            encoding=reading.encoding,
            names=reading.names,
        ),
    )


def _known(reading: Reading) -> frozenset[str]:
    return KNOWN.union(name.casefold() for name in reading.names)


def _dialect(text: str, name: str, suffix: str, reading: Reading, single: bool) -> Dialect:
    if reading.delimiter is not None:
        if reading.quoting != "auto":
            return Dialect(reading.delimiter, reading.quoting == "standard")
        return Dialect(reading.delimiter, is_quoted(text, reading.delimiter))
    found = sniff(text, suffix)
    if single and found is not None:
        top = text.lstrip("\n").split("\n", 1)[0].strip().strip('"').casefold()
        alone = top in _known(reading)
        # Sentences often have a comma each, but seldom a tab.
        if alone or (suffix not in (".csv", ".tsv", ".tab") and found.delimiter != "\t"):
            found = None
    if found is None and single:
        column, faults = Dialect(",", True), dict[int, str]()
        one = all(len(values) == 1 for _, values in records(text, column, faults)) and not faults
        return column if suffix == ".csv" and one else Dialect("", False)
    if found is None:
        raise ValueError(
            f"{name}: neither tab, comma, semicolon nor bar gives most lines equally many values, two at least; a "
            "table needs a text and a label: set --data.delimiter to what stands between them, and put texts that "
            "hold it in quotes"
        )
    if reading.quoting != "auto":
        return Dialect(found.delimiter, reading.quoting == "standard")
    return found


def _header(names: list[str], where: str) -> list[str]:
    """Return the columns' names; those without one are called by their number."""
    columns = [name.strip() or str(place) for place, name in enumerate(names)]
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise ValueError(
            f"{where}: the header names {', '.join(map(repr, twice))} more than once; rename the columns"
        )
    unclear = [name for name in columns if damaged(name) or "\0" in name]
    if unclear:
        raise ValueError(
            f"{where}: the header names {unclear[0]!r}, which is damaged; correct it, or set --data.encoding"
        )
    return columns


def _json(text: str, name: str) -> JsonTable:
    bad: dict[int, str] = {}
    rows: list[tuple[int, Any]] = []
    whole = text.lstrip().startswith("[")
    try:
        if whole:
            found = _load(text)
            if not isinstance(found, list):
                raise ValueError("not a list of objects")
            rows = list(enumerate(found, 1))
    except ValueError as error:
        # Lines of lists are reported by line; a list over several lines is broken as a whole.
        if not text.lstrip().split("\n", 1)[0].rstrip().endswith("]"):
            raise ValueError(f"{name}: not a list of JSON objects ({error})") from error
        whole = False
    if not whole:
        for line, content in enumerate(text.split("\n"), 1):
            if content.strip():
                try:
                    rows.append((line, _load(content)))
                except ValueError as error:
                    bad[line] = f"not a JSON object ({error})"
    for line, row in rows:
        if not isinstance(row, dict):
            bad[line] = f"not a JSON object, but {shown(row)}"
    rows = [(line, row) for line, row in rows if isinstance(row, dict)]
    if not rows:
        line, reason = next(iter(bad.items()), (1, "holds no objects"))
        raise ValueError(
            f"{name}:{line}: {reason}; write one JSON object a line, or one list of objects "
            "(pandas: orient='records')"
        )
    # A dictionary, because a set would not keep the order.
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    return JsonTable(
        name=name,
        columns=columns,
        lines=[line for line, _ in rows],
        bad=bad,
        about="a JSON list" if whole else "JSON lines",
        rows=[row for _, row in rows],
    )


def _load(text: str) -> Any:
    """Load JSON; whatever is wrong is a ValueError."""
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(k for k, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return found


def _parquet(path: Path, name: str) -> ArrowTable:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{name}: Parquet files need pyarrow: pip install 'resdomains[text]'"
        ) from error
    try:
        # As one file: read_table would make columns of folders called key=value.
        table = _decoded(parquet.ParquetFile(path), path.stat().st_size)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{name}: not a Parquet file that can be read ({error})") from error
    return arrow_table(table, name, "Parquet")


def _decoded(file: "parquet.ParquetFile", size: int) -> "pa.Table":
    """Read a Parquet file in pieces: repeated values take no room in it.

    Raises:
        ValueError: If it holds far more than texts of its size can.
    """
    import pyarrow as pa

    rows, most = file.metadata.num_rows, max(_SPARE, _RATIO * size)
    if rows > max(_ROWS, size):
        raise ValueError(f"it states {rows:,} rows in {size:,} bytes")
    pieces, total = [], 0
    for piece in file.iter_batches(batch_size=_PIECE):
        total += piece.nbytes
        if total > most:
            raise ValueError(f"its {size:,} bytes become more than {most:,}")
        pieces.append(piece)
    return pa.Table.from_batches(pieces, file.schema_arrow)


def arrow_table(table: "pa.Table", name: str, about: str) -> ArrowTable:
    """Make a table of Arrow's, whose rows are counted from 1.

    Raises:
        ValueError: If it has no rows, or two columns of one name.
    """
    twice = sorted(key for key, count in Counter(table.column_names).items() if count > 1)
    if twice:
        raise ValueError(f"{name} has columns of the same name: {', '.join(map(repr, twice))}")
    if not table.num_rows:
        raise ValueError(f"{name} holds no rows")
    return ArrowTable(
        name=name,
        columns=list(table.column_names),
        lines=range(1, table.num_rows + 1),
        about=about,
        table=table,
    )


def is_saved(folder: Path) -> bool:
    """Say whether the `datasets` library saved a folder."""
    return any((folder / name).is_file() for name in _SAVED)


def read_saved(folder: Path) -> dict[str, Table]:
    """Read a folder that `datasets` saved: a table for each of its splits, or one called `train`.

    Raises:
        ValueError: If the library is missing, or the folder is damaged.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{folder}: folders that datasets saved need it: pip install 'resdomains[text]'"
        ) from error
    try:
        _check_names(folder)
        found = datasets.load_from_disk(str(folder))
        splits = found if isinstance(found, datasets.DatasetDict) else {"train": found}
        tables = {
            str(split): (
                # A data set that was shuffled or filtered is its rows and a list of numbers.
                part.with_format("arrow")[:] if len(part) else None
            )
            for split, part in splits.items()
        }
    # What a damaged file makes datasets raise is anything: KeyError, ArrowInvalid, FileNotFoundError, TypeError.
    except Exception as error:
        raise ValueError(
            f"{folder}: cannot be read as datasets saved it ({type(error).__name__}: {error})"
        ) from error
    return {
        split: arrow_table(table, split, "saved by datasets")
        for split, table in tables.items()
        if table is not None
    }


def _check_names(folder: Path) -> None:
    """Refuse a saved data set that names files elsewhere.

    Raises:
        ValueError: If it does.
    """
    listing = folder / _SAVED[0]
    splits = json.loads(listing.read_bytes())["splits"] if listing.is_file() else [""]
    names = list(splits)
    for split in splits:
        state = folder / split / _SAVED[1]
        if Path(split).name == split and state.is_file():
            content = json.loads(state.read_bytes())
            for key in ("_data_files", "_indices_data_files"):
                names += [entry["filename"] for entry in content.get(key) or ()]
    wrong = [name for name in names if Path(name).name != name]
    if wrong:
        raise ValueError(f"it names {wrong[0]!r}, and its files lie within it")


def shown(value: object) -> str:
    """Return a value for a message, of a line's length at most."""
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def text_fault(value: object, what: str = "text") -> str | None:
    """Return why a value is no text to learn from or to classify, or None if it is one."""
    if isinstance(value, str):
        if value.strip():
            if "\0" in value:
                return f"the {what} holds a NUL character"
            if damaged(value):
                return f"the {what} holds bytes that are not in the file's encoding, or half a surrogate pair"
            return None
        return f"the {what} is empty"
    if value is None:
        return f"the {what} is missing"
    return f"the {what} must be a string, got {shown(value)}"


Item = tuple[str, str | None, str]
"""A text, its second text where items are two, and where they stand, such as `reviews.csv:12`."""


def read_for_prediction(path: str | Path, spec: TextSpec) -> Iterator[Item | BadSample]:
    """Read the texts of a file to predict, in order; labels need not be there and are not read.

    Tables (CSV, TSV, JSON, Parquet) are read by `spec.text_column` and `spec.pair_column`; if there is no such column,
    the only one, or one that is called so or looks so, and a warning says which. A `.txt` file, or one of another
    suffix, is a text a line, unless tabs give most of its lines equally many values.

    Args:
        path: The file.
        spec: The description of the texts that the task was trained on.

    Yields:
        Each text, or a `BadSample` in its place that says why there is none.

    Raises:
        ValueError: If the file cannot be read at all.
    """
    path = Path(path)
    names = tuple(name for name in (spec.text_column, spec.pair_column) if name is not None)
    table = read_table(path, path.name, Reading(names=names), single=True)
    text, pair = _columns_to_predict(table, spec)
    texts = table.values(text)
    pairs = table.values(pair) if pair is not None else [None] * len(texts)
    found: list[tuple[int, Item | BadSample]] = [
        (line, BadSample(table.source(line), reason)) for line, reason in table.bad.items()
    ]
    for line, first, second in zip(table.lines, texts, pairs, strict=True):
        fault = text_fault(first)
        if fault is None and pair is not None:
            fault = text_fault(second, "second text")
        where = table.source(line)
        found.append((line, (first, second, where) if fault is None else BadSample(where, fault)))
    found.sort(key=lambda numbered: numbered[0])
    yield from (item for _, item in found)


def _columns_to_predict(table: Table, spec: TextSpec) -> tuple[str, str | None]:
    columns = table.columns
    wanted = [spec.text_column, spec.pair_column] if spec.pair else [spec.text_column]
    if all(column in columns for column in wanted):
        text, pair = spec.text_column, spec.pair_column if spec.pair else None
        assert text is not None
        return text, pair
    if not spec.pair:
        text = columns[0] if len(columns) == 1 else guess_text(columns, table.values, table.name)
        if len(columns) > 1:
            _warn(f"{table.name}: {text!r} is taken as the text, there is no {spec.text_column!r}")
        return text, None
    if len(columns) == 2:
        return columns[0], columns[1]
    raise ValueError(
        f"{table.name}: has the columns {', '.join(map(repr, columns))}, but the task reads pairs of texts, "
        f"from {wanted[0]!r} and {wanted[1]!r}; call them so"
    )
