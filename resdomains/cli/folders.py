"""Folders that a command writes: whole or not at all, and never over what others put there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resdomains.cli.errors import CliError


def check_new(folder: Path, option: str, else_what: str = "give a new or empty folder") -> None:
    """Refuse a folder that cannot be made or that holds something.

    Args:
        folder: An absolute path.
        option: The option that names it, for messages.
        else_what: What to do where it is not empty.

    Raises:
        CliError: If its own folder does not exist, it is a file, or it is not empty.
    """
    if not folder.parent.is_dir():
        raise CliError(f"--{option} {folder}: its folder does not exist")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CliError(f"--{option} {folder}: is a file; give a new or empty folder")
    if any(folder.iterdir()):
        raise CliError(f"--{option} {folder}: is not empty; {else_what}")


@contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside another, which is gone afterwards unless it was renamed."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    beside.mkdir()
    try:
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
