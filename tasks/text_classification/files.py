"""Texts and labels in tables on disk: CSV, TSV, JSON, Parquet, folders of the `datasets` library."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains.training.bad_samples import (
    BadSamples,
    check_bad_samples,
    leave_out,
    left_out_notes,
)

from .augment import Augment
from .columns import Columns, find_column, guess_label, guess_pair, guess_text
from .data import TextData
from .delimited import MISPLACED
from .layout import ALIASES, SPLITS, existing, find_tables
from .splits import RandomSplit, Splitting
from .tables import (
    DelimitedTable,
    Reading,
    Table,
    is_saved,
    read_saved,
    read_table,
    text_fault,
    without_collector,
)
from .targets import Kind, class_list, class_name, guess_kind, has_class, in_order, number
from .texts import Corpus, Texts
from .tokens import Tokens

_SEPARATOR = "|"


@dataclass
class _Samples:
    """What a split's tables give: samples, and what cannot be one."""

    texts: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    bad: list[BadSample] = field(default_factory=list)

    def keep(self, places: Sequence[int]) -> None:
        """Keep the samples at some places."""
        self.texts = [self.texts[i] for i in places]
        self.pairs = [self.pairs[i] for i in places] if self.pairs else []
        self.targets = [self.targets[i] for i in places]
        self.sources = [self.sources[i] for i in places]

    def identities(self) -> list[Any]:
        """What makes a text itself: with the second text, where items are two."""
        return list(zip(self.texts, self.pairs, strict=True)) if self.pairs else self.texts

    def result(self) -> Texts:
        """Return the samples."""
        return Texts(self.texts, self.pairs or None, self.targets, self.sources)


class TextFiles(TextData):
    """Texts with labels in tables, read as they lie.

    `root` is a file, or a folder with a table called train, and val (or valid, validation, dev) and test if there are
    any; also in parts (`train-00000-of-00002.parquet`), below `data/`, or as folders of these names; or a folder that
    `datasets` saved. By the file's suffix a table is

    - `.csv`, `.tsv`, `.txt` or anything else: values between delimiters. Delimiter, quoting, whether there is a header,
      and the encoding are found out where they are not given, and said in a note;
    - `.jsonl`, `.ndjson`, `.json`: an object a line, or one list of objects;
    - `.parquet`: needs pyarrow.

    Of a training file alone, `split` holds out texts for validation and test; where the data say what tests, only for
    validation. A line that gives no sample is named, such as `reviews.csv:12` (where a format has no lines, the number
    of the row from 1): values too many or too few, an empty text, a missing label, a label of `val` or `test` that no
    training text has, misplaced quotes, NUL characters, bytes that are not in the file's encoding.

    Class names are text as it stands, without spaces around; truth values and whole numbers of JSON and Parquet are
    called `true`, `false`, `1` (also 1.0). Classes that a file gives by number and name (`ClassLabel`) have the names.

    Args:
        root: The file or folder.
        batch_size: Texts of a batch over all processes together, on average.
        tokens: What a token is.
        train: The training table, below `root`; found if None.
        val: The table that validates, likewise.
        test: The table that tests, likewise.
        text: The column of the text, by name or number from 0; guessed if None.
        pair: The column of the second text, where items are two; if None, there is one only if both are called like
            sentence1 and sentence2, premise and hypothesis.
        label: The column of the label; guessed if None. Several columns of 0 and 1 are a label each.
        kind: `single` class, `multilabel`, or `regression`. `auto` is `multilabel` for lists, several columns, or where
            there is a separator, and `single` else.
        label_separator: Stands between the labels of a text in a column of text; `|` for `multilabel`, if None.
        class_names: The classes in order; those found if None.
        split: How texts are held out where the data do not say.
        distinct: Whether a text that is repeated is taken once, the first time, and a training text that also validates
            or tests is left out of training.
        delimiter: What stands between two values, `tab` for a tab; found if None.
        quoting: Whether double quotes around values are taken off (`standard`) or belong to the text (`none`).
        header: Whether the first record names the columns.
        encoding: The encoding of the characters; detected if None.
        bad_samples: `refuse` stops and names the first line that gives no sample; `skip` leaves such lines out and
            says how many, and which.
        max_length: Tokens of an item, the special ones included, at most.
        truncation: What is kept of a longer text: its `head`, its `tail`, or `both` ends.
        augment: Random changes of training batches, in order.
        num_workers: Loader processes; 0, reading in the training process, is the fastest for texts in memory.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        tokens: Tokens,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        text: str | int | None = None,
        pair: str | int | None = None,
        label: str | int | list[str] | None = None,
        kind: Literal["auto", "single", "multilabel", "regression"] = "auto",
        label_separator: str | None = None,
        class_names: list[str] | None = None,
        split: Splitting | None = None,
        distinct: bool = False,
        delimiter: str | None = None,
        quoting: Literal["auto", "standard", "none"] = "auto",
        header: bool | Literal["auto"] = "auto",
        encoding: str | None = None,
        bad_samples: BadSamples = "refuse",
        max_length: int = 256,
        truncation: Literal["head", "tail", "both"] = "head",
        augment: list[Augment] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            tokens=tokens,
            max_length=max_length,
            truncation=truncation,
            augment=augment,
            num_workers=num_workers,
            seed=seed,
        )
        if kind not in ("auto", "single", "multilabel", "regression"):
            raise ValueError(
                f"kind must be 'auto', 'single', 'multilabel' or 'regression', got {kind!r}"
            )
        check_bad_samples(bad_samples)
        if label_separator is not None and (
            not label_separator or kind in ("single", "regression")
        ):
            raise ValueError(
                f"label_separator stands between several labels of a text, got {label_separator!r} for kind {kind!r}"
            )
        if isinstance(label, list) and (not label or kind in ("single", "regression")):
            raise ValueError(
                f"label: several columns are a label each, got {label} for kind {kind!r}; name one column"
            )
        if class_names is not None and kind == "regression":
            raise ValueError("class_names are given, but kind 'regression' predicts a number")
        self.root, self.class_names = root, class_names
        self.files: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.text, self.pair, self.label = text, pair, label
        self.kind, self.label_separator = kind, label_separator
        self.split = split if split is not None else RandomSplit()
        self.distinct, self.bad_samples = distinct, bad_samples
        given = [text, pair, *(label if isinstance(label, list) else [label])]
        self.reading = Reading(
            # A shell does not make a tab of either.
            delimiter="\t" if delimiter in ("tab", "\\t") else delimiter,
            quoting=quoting,
            header=header,
            encoding=encoding,
            names=tuple(name for name in given if isinstance(name, str)),
        )
        self.left_out: list[BadSample] = []
        """The samples that `skip` left out, each with the reason."""

    @without_collector()
    def read(self) -> Corpus:
        """Read all tables, check every sample, and hold out what the data do not.

        Raises:
            BadSample: If a line gives no sample and `bad_samples` is `refuse`.
            ValueError: If a file is missing or cannot be read, or its labels cannot be learnt.
        """
        notes: list[str] = []
        root = existing(self.root)
        tables = self._tables(root, notes)
        first = tables["train"][0]
        columns = self._columns(first)
        kind = self._kind(tables["train"], columns)
        notes.append(self._said(first, columns, kind))
        tables = self._labelled(tables, columns, notes)
        read = self._reader(columns, kind)
        samples = {s: self._samples(parts, columns, read) for s, parts in tables.items()}
        classes = None
        if kind != "regression":
            classes = self.class_names or _classes(samples["train"], first, columns, kind)
        if classes is not None:
            for split, part in samples.items():
                _refuse_unknown(part, classes, self.class_names is not None or split != "train")
        self._report(samples, notes)
        if not samples["train"].texts:
            raise ValueError(f"root: no sample to train on is left in {root}; all lines are bad")
        if self.distinct:
            notes += _make_distinct(samples)
        if "val" not in samples:
            samples = self._hold_out(samples, notes)
        notes += _overlaps(samples)
        if classes is not None:
            classes = self._learnable(classes, samples["train"], kind, notes)
        return Corpus(
            splits={split: samples[split].result() for split in SPLITS if split in samples},
            classes=classes,
            text_column=columns.text,
            pair_column=columns.pair,
            notes=notes,
        )

    def _tables(self, root: Path, notes: list[str]) -> dict[Split, list[Table]]:
        """Read the files of each split; the others are read as the first training file was."""
        if root.is_dir() and is_saved(root):
            return self._saved(root, notes)
        reading = self.reading
        tables: dict[Split, list[Table]] = {}
        for split, paths in find_tables(root, self.files).items():
            tables[split] = []
            for path in paths:
                name = path.name if root.is_file() else path.relative_to(root).as_posix()
                table = read_table(path, name, reading)
                if isinstance(table, DelimitedTable) and reading is self.reading:
                    reading = table.reading
                tables[split].append(table)
        return tables

    def _saved(self, root: Path, notes: list[str]) -> dict[Split, list[Table]]:
        found = read_saved(root)
        tables: dict[Split, list[Table]] = {}
        for split, given in self.files.items():
            if given is not None and given not in found:
                raise ValueError(
                    f"{split}: {root} has no split {given!r}; it has {', '.join(found)}"
                )
            names = ALIASES[split] if given is None else (given,)
            parts = [found[name] for name in names if name in found]
            if parts:
                tables[split] = parts[:1]
        if "train" not in tables:
            raise ValueError(
                f"root: {root} has no split called train; it has {', '.join(found) or 'no rows'}; "
                "name one with --data.train"
            )
        used = {part.name for parts in tables.values() for part in parts}
        if set(found) - used:
            notes.append(f"not used of {root.name}: {', '.join(sorted(set(found) - used))}")
        return tables

    def _columns(self, table: Table) -> Columns:
        """Find the columns that were given, and guess the others."""
        columns, name = table.columns, table.name

        def find(given: str | int, argument: str) -> str:
            return find_column(given, columns, argument, name)

        given = self.label if isinstance(self.label, list) else [self.label]
        labels = tuple(find(x, "label") for x in given if x is not None)
        pair = find(self.pair, "pair") if self.pair is not None else None
        guessed = []
        if self.text is not None:
            text = find(self.text, "text")
        else:
            both = guess_pair([c for c in columns if c not in labels]) if pair is None else None
            taken = [*labels, *([pair] if pair is not None else [])]
            text, pair = both or (guess_text(columns, table.values, name, taken), pair)
            guessed.append("text")
            if both:
                guessed.append("pair")
        if not labels:
            taken = [text, *([pair] if pair is not None else [])]
            labels = (guess_label(columns, table.values, name, taken),)
            guessed.append("label")
        used = [text, *([pair] if pair is not None else []), *labels]
        if len(set(used)) < len(used):
            raise ValueError(
                f"text, pair and label must be different columns of {name}, got {', '.join(map(repr, used))}"
            )
        return Columns(text, pair, labels, " and ".join(guessed))

    def _kind(self, tables: Sequence[Table], columns: Columns) -> Kind:
        if len(columns.label) > 1:
            return "multilabel"
        if self.kind != "auto":
            return self.kind
        (label,) = columns.label
        values = [v for table in tables for v in table.values(_same(table, label))]
        named = tables[0].class_names(label) is not None
        known = [value for value in values if value is not None and value != ""]
        if named or self.class_names is not None:
            return (
                "multilabel"
                if any(isinstance(v, list) and len(v) != 1 for v in known)
                else "single"
            )
        return guess_kind(
            known, self.label_separator, f"label: column {label!r} of {tables[0].name}"
        )

    def _said(self, table: Table, columns: Columns, kind: Kind) -> str:
        """Say how the data are read."""
        what = {"single": "label", "multilabel": "labels", "regression": "number to predict"}[kind]
        parts = [("text", columns.text), ("second text", columns.pair)]
        parts += [(what, ", ".join(columns.label))]
        said = ", ".join(f"{part} from column {c!r}" for part, c in parts if c is not None)
        guessed = f" ({columns.guessed} guessed)" if columns.guessed else ""
        return f"{table.name}: {table.about}; {said}{guessed}"

    def _labelled(
        self, tables: dict[Split, list[Table]], columns: Columns, notes: list[str]
    ) -> dict[Split, list[Table]]:
        """Leave out files that were found but have no labels, as those of competitions."""
        kept = {}
        for split, parts in tables.items():
            if (
                split != "train"
                and self.files[split] is None
                and not any(_has_labels(table, columns) for table in parts)
            ):
                notes.append(
                    f"{parts[0].name} has no labels and is not used; `resdomains predict` reads such files"
                )
            else:
                kept[split] = parts
        return kept

    def _reader(self, columns: Columns, kind: Kind) -> Callable[[Any, Any], Any]:
        """Return what makes a target of a table's value and the class names that the table states."""
        if len(columns.label) > 1:
            return lambda values, _: [
                name for name, value in zip(columns.label, values, strict=True) if has_class(value)
            ]
        if kind == "regression":
            return lambda value, _: number(value)
        if kind == "single":
            return class_name
        separator = self.label_separator or (_SEPARATOR if self.kind == "multilabel" else None)
        return lambda value, names: class_list(value, separator, names)

    def _samples(
        self, tables: Sequence[Table], columns: Columns, read: Callable[[Any, Any], Any]
    ) -> _Samples:
        """Check every row of a split's tables."""
        found = _Samples()
        for table in tables:
            texts = table.values(_same(table, columns.text))
            pair = columns.pair
            pairs = table.values(_same(table, pair)) if pair is not None else None
            labels = [table.values(_same(table, label)) for label in columns.label]
            names = table.class_names(columns.label[0])
            values = labels[0] if len(labels) == 1 else list(zip(*labels, strict=True))
            bad = dict(table.bad)
            for row, line in enumerate(table.lines):
                fault = text_fault(texts[row])
                if fault is None and pairs is not None:
                    fault = text_fault(pairs[row], "second text")
                if fault is None:
                    try:
                        target = read(values[row], names)
                    except ValueError as error:
                        fault = str(error)
                if fault is not None:
                    bad[line] = fault
                    continue
                found.texts.append(texts[row])
                if pairs is not None:
                    found.pairs.append(pairs[row])
                found.targets.append(target)
                found.sources.append(table.source(line))
            found.bad += [BadSample(table.source(line), bad[line]) for line in sorted(bad)]
        return found

    def _report(self, samples: Mapping[Split, _Samples], notes: list[str]) -> None:
        """Stop at samples that cannot be used, or say which are left out."""
        bad = [error for part in samples.values() for error in part.bad]
        if bad and bad[0].reason.startswith(MISPLACED):
            advice = "set --data.quoting none if quotes belong to the texts"
            bad[0] = BadSample(bad[0].source, f"{bad[0].reason}; {advice}")
        leave_out(bad, self.bad_samples, self.left_out)
        total = sum(len(part.texts) for part in samples.values()) + len(bad)
        notes += left_out_notes(self.left_out, "samples", total)

    def _hold_out(
        self, samples: Mapping[Split, _Samples], notes: list[str]
    ) -> dict[Split, _Samples]:
        """Take texts from the training file for validation and, if that is all there is, for the test."""
        whole = samples["train"].result()
        chosen = self.split.split(whole, with_test="test" not in samples)
        parts = dict(samples)
        for split in SPLITS:
            places = [i for i, name in enumerate(chosen) if name == split]
            if places or split == "train":
                parts[split] = _Samples(
                    whole.texts, whole.pairs or [], list(whole.targets), whole.sources
                )
                parts[split].keep(places)
        if not parts["train"].texts:
            raise ValueError(
                f"split: all {len(whole):,} texts are held out, none is left to train on; set smaller shares"
            )
        counts = ", ".join(f"{len(parts[s].texts):,} {s}" for s in SPLITS if s in parts)
        notes.append(f"{type(self.split).__name__} holds texts out: {counts}")
        return parts

    def _learnable(
        self, classes: list[str], train: _Samples, kind: Kind, notes: list[str]
    ) -> list[str]:
        """Refuse classes that cannot be learnt.

        Raises:
            ValueError: If all texts have one class, or `class_names` has one that no training text has.
        """
        counts = Counter(
            train.targets if kind == "single" else (n for names in train.targets for n in names)
        )
        if not counts or (kind == "single" and len(classes) < 2):
            has = f"the label {classes[0]!r}" if classes else "no label"
            raise ValueError(
                f"label: all {len(train.texts):,} training texts in {self.root} have {has}; "
                "a classifier needs two classes to tell apart"
            )
        absent = [name for name in classes if name not in counts]
        if absent and self.class_names is not None and kind == "single":
            raise ValueError(
                f"class_names: {', '.join(absent)} have no training text in {self.root}"
            )
        if absent:
            notes.append(f"no training text has {', '.join(absent[:10])}")
        return classes


def _same(table: Table, column: str) -> str:
    """Return a column that the first training file has.

    Raises:
        ValueError: If this file lacks it.
    """
    if column not in table.columns:
        raise ValueError(
            f"{table.name}: has no column {column!r}, which the training file has; "
            f"it has {', '.join(map(repr, table.columns))}"
        )
    return column


def _classes(train: _Samples, table: Table, columns: Columns, kind: Kind) -> list[str]:
    """The classes of the training tables, in the order that they state, or else sorted."""
    if len(columns.label) > 1:
        return list(columns.label)
    found = set(train.targets) if kind == "single" else {n for t in train.targets for n in t}
    stated = table.class_names(columns.label[0])
    return in_order(found) if stated is None else [name for name in stated if name in found]


def _has_labels(table: Table, columns: Columns) -> bool:
    for label in columns.label:
        if label not in table.columns:
            return False
        named = table.class_names(label) is not None
        if all(x is None or x == "" or (named and x == -1) for x in table.values(label)):
            return False
    return True


def _refuse_unknown(samples: _Samples, classes: list[str], check: bool) -> None:
    """Move samples whose label is none of the classes to the bad ones."""
    if not check:
        return
    known = set(classes)
    kept = []
    said = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    for i, target in enumerate(samples.targets):
        strange = [n for n in ([target] if isinstance(target, str) else target) if n not in known]
        if strange:
            samples.bad.append(
                BadSample(
                    samples.sources[i],
                    f"{strange[0]!r} is not one of the {len(classes)} classes ({said}) that class_names or "
                    "the training texts give",
                )
            )
        else:
            kept.append(i)
    if len(kept) < len(samples.targets):
        samples.keep(kept)


def _make_distinct(samples: Mapping[Split, _Samples]) -> list[str]:
    """Keep the first of equal texts in each split, and of the training texts those that are in no other."""
    notes = []
    held_out = {
        key for split, part in samples.items() if split != "train" for key in part.identities()
    }
    for split, part in samples.items():
        first: dict[Any, int] = {}
        other = 0
        keys = part.identities()
        for i, key in enumerate(keys):
            at = first.setdefault(key, i)
            other += part.targets[at] != part.targets[i]
        kept = [i for key, i in first.items() if split != "train" or key not in held_out]
        if len(kept) < len(keys):
            differ = f", {other:,} of them with another label than the first" if other else ""
            also = (
                f" and {len(first) - len(kept):,} that are held out"
                if len(kept) < len(first)
                else ""
            )
            notes.append(
                f"{split}: {len(keys) - len(first):,} repeated texts{differ}{also} left out of {len(keys):,}"
            )
            part.keep(kept)
    return notes


def _overlaps(samples: Mapping[Split, _Samples]) -> list[str]:
    """Say how many texts that are held out also train."""
    train = set(samples["train"].identities())
    notes = []
    for split, part in samples.items():
        both = 0 if split == "train" else sum(key in train for key in part.identities())
        if both:
            notes.append(
                f"{both:,} of {len(part.texts):,} texts in {split} also train; --data.distinct true takes them out"
            )
    return notes
