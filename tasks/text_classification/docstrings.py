"""Docstrings of the installed Python's standard library, by subject: real texts, no download."""

import ast
import re
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from resdomains.schema import Split

from .data import TextData
from .texts import Corpus, Texts

# The top-level modules of each subject, of all versions from 3.11 on; what a version lacks is absent.
SUBJECTS = {
    "collections": (
        "_collections_abc _py_abc _weakrefset abc array bisect collections contextlib copy copyreg dataclasses enum "
        "functools graphlib heapq operator pickle pprint reprlib string struct types typing weakref"
    ),
    "concurrency": (
        "_threading_local asynchat asyncio asyncore concurrent contextvars multiprocessing queue sched selectors "
        "signal subprocess threading"
    ),
    "debugging": (
        "_py_warnings bdb cProfile cgitb doctest logging pdb profile pstats timeit trace traceback tracemalloc "
        "unittest warnings"
    ),
    "files": (
        "_compression _pyio bz2 compression dbm filecmp fileinput fnmatch genericpath glob gzip io linecache lzma "
        "ntpath os pathlib posixpath shelve shutil stat tarfile tempfile zipfile"
    ),
    "graphics": "curses tkinter turtle turtledemo",
    "importing": (
        "_aix_support _osx_support distutils ensurepip imp importlib modulefinder pkgutil platform runpy site "
        "sysconfig venv zipapp zipimport"
    ),
    "internet": (
        "cgi ftplib http ipaddress netrc nntplib nturl2path socket socketserver ssl telnetlib urllib uuid "
        "webbrowser wsgiref xmlrpc"
    ),
    "mail": ("base64 email imaplib mailbox mailcap mimetypes poplib quopri smtpd smtplib uu"),
    "numbers": (
        "_pydatetime _pydecimal _pylong _strptime calendar colorsys datetime decimal fractions hashlib hmac locale "
        "numbers random secrets statistics zoneinfo"
    ),
    "source": (
        "_ast_unparse _opcode_metadata annotationlib ast code codeop compileall dis inspect keyword lib2to3 opcode "
        "pickletools py_compile pyclbr pydoc rlcompleter symtable tabnanny token tokenize"
    ),
    "text": (
        "_markupbase argparse cmd codecs configparser csv difflib getopt gettext html json optparse plistlib re "
        "shlex textwrap tomllib xml"
    ),
}
# What share of a subject's texts each split gets.
SHARES: dict[Split, float] = {"train": 0.68, "val": 0.12, "test": 0.20}
# Shorter ones say nothing: "Constructor.".
SHORTEST = 30
# Of one file, so that tkinter's widgets or the decimals do not make up their subject: spread over the file.
MOST_OF_A_FILE = 150
# Of one subject over all splits, and the fewest that make one: without Tk installed there are too few on graphics.
MOST_OF_A_SUBJECT = 560
FEWEST_OF_A_SUBJECT = 200

_Item = TypeVar("_Item")
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Docstrings(TextData):
    """The subject of a docstring of Python's standard library: which part of it the docstring documents.

    Of CPython 3.11, as train/val/test: collections 276/54/83, concurrency 381/66/108, debugging 381/67/112, files
    357/67/102, graphics 301/67/111, importing 381/67/111, internet 381/67/111, mail 381/67/112, numbers 294/60/86,
    source 372/67/110, text 348/62/103; together 3853/711/1149. Other versions differ by the modules that came or went.

    Its arguments are those of `TextData`.
    """

    def read(self) -> Corpus:
        """Parse the library's source; nothing of it is imported."""
        return Corpus(splits=docstrings())


@dataclass(frozen=True)
class _Docstring:
    file: str
    line: int
    text: str
    subject: str


def docstrings(library: Path | None = None) -> dict[Split, Texts]:
    """Return the docstrings of the standard library by split, with their subjects as targets.

    A file lies in one split; which, follows from the numbers of docstrings, so that each subject has its share in each
    split. A docstring counts once, and not at all where several subjects have it; one of `val` or `test` that nearly
    repeats one of a split before is left out. The result depends on the library's source alone.

    Args:
        library: The folder of the library's source; that of the running Python if None.

    Raises:
        ValueError: If the library's source is not there.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    by_subject: dict[str, list[_Docstring]] = defaultdict(list)
    for found in _once(_read(library)):
        by_subject[found.subject].append(found)
    splits: dict[Split, list[_Docstring]] = {split: [] for split in SHARES}
    for of_subject in by_subject.values():
        by_file = defaultdict(list)
        for docstring in of_subject:
            by_file[docstring.file].append(docstring)
        kept = [d for of_file in by_file.values() for d in _spread(of_file, MOST_OF_A_FILE)]
        if len(kept) < FEWEST_OF_A_SUBJECT:
            continue
        where = _assign(Counter(docstring.file for docstring in kept))
        for split, share in SHARES.items():
            of_split = [docstring for docstring in kept if where[docstring.file] == split]
            splits[split] += _spread(of_split, round(share * MOST_OF_A_SUBJECT))
    if not splits["train"]:
        raise ValueError(
            f"the source of Python's standard library is not in {library} (a frozen or stripped installation); "
            "take another Python, or data of your own: --data TextFiles"
        )
    return {
        split: Texts(
            texts=[d.text for d in found],
            pairs=None,
            targets=[d.subject for d in found],
            sources=[f"{d.file}:{d.line}" for d in found],
        )
        for split, found in _unlike(splits).items()
    }


def _read(library: Path) -> Iterator[_Docstring]:
    """All docstrings of the subjects' modules, by file and line."""
    for subject, names in SUBJECTS.items():
        for name in names.split():
            module, package = library / f"{name}.py", library / name
            files = [p for p in package.rglob("*.py") if not _tests(p.relative_to(library))]
            for path in sorted(
                [module] * module.is_file() + files, key=lambda p: p.relative_to(library).as_posix()
            ):
                for line, text in _parse(path):
                    if len(text) >= SHORTEST:
                        yield _Docstring(path.relative_to(library).as_posix(), line, text, subject)


def _tests(path: Path) -> bool:
    return any(part in {"test", "tests"} for part in path.parts)


def _parse(path: Path) -> list[tuple[int, str]]:
    """The docstrings of a file with their first lines."""
    with warnings.catch_warnings():
        # Of old modules, about escapes.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        tree = ast.parse(path.read_bytes())
    found = [(node, ast.get_docstring(node)) for node in _documented(tree)]
    return sorted((node.body[0].lineno, text) for node, text in found if text)


def _documented(node: ast.AST) -> Iterator[_Documented]:
    """All modules, classes and functions; expressions, most of a tree, hold none and are passed over."""
    if isinstance(node, _Documented):
        yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _documented(child)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W\d_]+", text.lower()))


def _once(found: Iterable[_Docstring]) -> list[_Docstring]:
    """The first of those that have the same words; none, if they are of several subjects."""
    first: dict[tuple[str, ...], _Docstring] = {}
    ambiguous = set()
    for docstring in found:
        words = _words(docstring.text)
        if first.setdefault(words, docstring).subject != docstring.subject:
            ambiguous.add(words)
    return [docstring for words, docstring in first.items() if words and words not in ambiguous]


def _spread(items: list[_Item], most: int) -> list[_Item]:
    """At most so many of the items, evenly spaced."""
    count = min(most, len(items))
    return [items[k * len(items) // count] for k in range(count)]


def _assign(sizes: dict[str, int]) -> dict[str, Split]:
    """Give each file to the split that has least of its share, the largest files first."""
    total = sum(sizes.values())
    given: Counter[Split] = Counter()
    where: dict[str, Split] = {}
    for file, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        where[file] = max(SHARES, key=lambda split: total - given[split] / SHARES[split])
        given[where[file]] += size
    return where


def _unlike(splits: dict[Split, list[_Docstring]]) -> dict[Split, list[_Docstring]]:
    """Leave out what shares most of its runs of three words with a docstring of a split before."""
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes: list[int] = []
    kept: dict[Split, list[_Docstring]] = {}
    for split, found in splits.items():
        runs = [_runs(docstring.text) for docstring in found]
        kept[split] = []
        for docstring, of_text in zip(found, runs, strict=True):
            shared = Counter(number for run in of_text for number in holders[run])
            if all(n <= 0.6 * (len(of_text) + sizes[k] - n) for k, n in shared.items()):
                kept[split].append(docstring)
        for of_text in runs:
            for run in of_text:
                holders[run].append(len(sizes))
            sizes.append(len(of_text))
    return kept


def _runs(text: str) -> set[tuple[str, ...]]:
    """The runs of three words; of fewer words, all of them as one."""
    words = _words(text)
    return {words[k : k + 3] for k in range(max(len(words) - 2, 1))}
