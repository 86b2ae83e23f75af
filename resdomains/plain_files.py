"""Read files that torch saved, as plain values and tensors; code in them is refused, not run."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resdomains.messages import first_line

# Far above what is saved; a few bytes can ask for any number.
_DEEPEST, _MOST = 100, 5_000_000
_SMALL = 2**24  # values of a tensor: a view of one value is no bomb below that


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
    found = _load(path)
    check_amount(found, size=path.stat().st_size)
    return found


def check_amount(
    value: Any, *, most: int = _MOST, longest: int | None = None, size: int | None = None
) -> None:
    """Refuse plain values that a small file made many of: what is shared counts each time.

    Args:
        value: Mappings and sequences of values.
        most: How many there may be.
        longest: How many characters a text may have; any number if not given.
        size: How many values a tensor may have, unless it is small; any number if not given.

    Raises:
        Damaged: If they are too many, nested too deeply, too long or too large.
    """
    total, left = 1, [(0, value)]
    while left:
        depth, part = left.pop()
        if isinstance(part, Mapping | list | tuple | set | frozenset):
            total += len(part) * (2 if isinstance(part, Mapping) else 1)
            if total > most or depth == _DEEPEST:
                raise Damaged(f"it holds more than {most:,} values, or is nested too deeply")
            items = [*part, *part.values()] if isinstance(part, Mapping) else part
            left += [(depth + 1, item) for item in items]
        elif isinstance(part, str) and longest is not None and len(part) > longest:
            raise Damaged(f"a text in it has {len(part):,} characters, more than {longest:,}")
        elif isinstance(part, Tensor) and size is not None and part.numel() > max(size, _SMALL):
            raise Damaged(
                f"a tensor in it claims {part.numel():,} values, in a file of {size:,} bytes"
            )


def _load(path: Path) -> Any:
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
        raise Damaged(first_line(error)) from error


def _altered(path: Path) -> str | None:
    """The first part whose checksum is wrong: torch writes checksums and does not read them.

    Raises:
        Damaged: If the parts are larger than the file: torch compresses nothing, and parts that overlap or were
            compressed can become any size.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None  # of torch's first format, or broken: torch says what is wrong
        with zipfile.ZipFile(path) as file:
            if sum(part.file_size for part in file.infolist()) > path.stat().st_size:
                raise Damaged("its parts are larger than the file, which torch never writes")
            return file.testzip()
    except Damaged:
        raise
    except Exception:  # altered bytes lead it anywhere too: zlib.error, RuntimeError, ...
        return "list"
