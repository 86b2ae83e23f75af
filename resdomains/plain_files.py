"""Read files that torch saved, as plain values and tensors; code in them is refused, not run."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch


class HoldsCode(ValueError):
    """A file that is more than plain values; the message names what it asks for, where that is known."""


class Damaged(ValueError):
    """A file that is not what torch saves, or not what it saved."""


def read_plain(path: Path) -> Any:
    """Return what `torch.save` wrote, on the CPU.

    Raises:
        HoldsCode: If loading the file could run code.
        Damaged: If the file is cut, altered, or something else.
    """
    altered = _altered(path)
    if altered is not None:
        raise Damaged(f"the checksum of its part {altered} is wrong")
    try:
        with warnings.catch_warnings():
            # Of files that torch did not write, it also remarks on the pickle protocol; they are refused anyway.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The rest of torch's message advises to load it all the same.
        found = re.search(r"Unsupported (?:global|class|operand)[^.\n]*|GLOBAL \S+", str(error))
        raise HoldsCode(found[0].strip() if found else "") from error
    except Exception as error:
        # Bytes that are no pickle lead the unpickler anywhere: IndexError, KeyError, struct.error, ...
        raise Damaged((str(error).splitlines() or [type(error).__name__])[0]) from error


def _altered(path: Path) -> str | None:
    """The first part whose checksum is wrong: torch writes checksums and does not read them."""
    if not zipfile.is_zipfile(path):
        return None  # of torch's first format, or broken: torch says what is wrong
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip()
    except Exception:  # altered bytes lead it anywhere too: zlib.error, RuntimeError, ...
        return "list"
