"""Files below a folder, as data sets, their lists and their annotations name them."""

import os
import stat
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

from resdomains.training.data import BadSample

_NAMED = 5


def existing_folder(root: str) -> Path:
    """Return `root` as a path.

    Raises:
        ValueError: If it is not a folder.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ValueError(f"root: {path} {what}; set --data.root to the folder that holds the data")
    return path


def files_below(folder: str | Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Yield the paths of files in a folder and its subfolders, in a fixed order, hidden ones left out.

    Links to folders are followed, but no folder is entered twice: links may lead in circles.

    Args:
        folder: The folder.
        wanted: Says by a file's name whether it is.
    """
    entered: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        try:
            status = Path(parent).stat()
        except OSError:  # gone since it was listed
            files.clear()
        else:
            if (status.st_dev, status.st_ino) in entered:
                folders.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and wanted(name):
                yield f"{parent}{os.sep}{name}"


def leaves(root: str | Path, path: str | Path) -> bool:
    """Say whether a path that is written down leaves a folder, such as by `..`; links are not looked at.

    The rule for whatever names files (annotations, manifests, lists): a relative path stays below `root`, or it is
    refused; an absolute one is taken as it is, as manifests hold them, and `outside_notes` says so.
    """
    top, there = (os.path.normpath(Path(name).absolute()) for name in (root, path))
    return os.path.commonpath((top, there)) != top


def outside_notes(outside: Collection[str]) -> list[str]:
    """Say which files lie outside of `root`; nothing where none does."""
    if not outside:
        return []
    named = ", ".join(islice(outside, _NAMED)) + (", ..." if len(outside) > _NAMED else "")
    return [
        f"{len(outside):,} files are outside of root, as absolute paths say: {printable(named)}"
    ]


def printable(name: str) -> str:
    """Return a file's name with escapes for bytes that are no UTF-8, which no terminal can show."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def check_regular(path: str | Path) -> None:
    """Refuse what is no regular file: to open a pipe would wait for ever. What does not exist passes.

    Raises:
        BadSample: If it is something else, but for a folder, of which readers know more to say.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadSample(str(path), "not a regular file, but a pipe, a socket or a device")
