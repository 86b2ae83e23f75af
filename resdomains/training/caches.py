"""Where results that can be made again are kept between runs."""

import os
import tempfile
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_CHECK = "check"


def cache_folder(part: str) -> Path:
    """Return the folder `resdomains/PART` in the user's cache (XDG_CACHE_HOME, or ~/.cache); it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:  # a user without a home, as in some containers
            base = tempfile.gettempdir()
    return Path(base) / "resdomains" / part


def cached_tensors(
    path: Path, make: Callable[[], dict[str, Tensor]], *, what: str, limit: int
) -> dict[str, Tensor]:
    """Return the tensors that are kept in a file; make and keep them where there is none.

    A file that cannot be read or written is said once and done without. The files of the folder that were not used for
    longest are removed when all together grow too large.

    Args:
        path: The file, called by a digest of all that the tensors depend on, with the suffix `.safetensors`.
        make: Makes the tensors, contiguous and on the CPU; their names are any but `check`.
        what: What they are, in the plural, for messages.
        limit: Bytes of all such files in the folder.
    """
    found = _load(path)
    if found is None:
        found = make()
        _save(found, path, what, limit)
    return found


def _load(path: Path) -> dict[str, Tensor] | None:
    try:
        if not path.is_file():
            return None
        found = load_file(path)
        if int(found.pop(_CHECK)) != _sum(found):
            raise ValueError("its content is not what was written")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        warnings.warn(f"{path} cannot be read and is made anew: {error}", stacklevel=3)
        return None
    # The oldest go first when the cache is full; of another's cache they keep their age.
    with suppress(OSError):
        os.utime(path)
    return found


def _sum(tensors: dict[str, Tensor]) -> int:
    """A checksum, since a file that a disk or a person damaged may still have its form."""
    check = 0
    for name, values in sorted(tensors.items()):
        check = zlib.crc32(name.encode(), check)
        check = zlib.crc32(values.numpy().data, check)
    return check


def _save(tensors: dict[str, Tensor], path: Path, what: str, limit: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            part = Path(folder) / path.name
            save_file({**tensors, _CHECK: torch.tensor(_sum(tensors))}, part)
            part.replace(path)
        _prune(path.parent, limit)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{what} are not kept for the next run: {error}", stacklevel=3)


def _prune(folder: Path, limit: int) -> None:
    """Remove the files that were not used for longest until the rest fits."""
    files = []
    for file in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # another process may remove it
            held = file.stat()
            files.append((held.st_mtime, held.st_size, file))
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > limit:
            file.unlink(missing_ok=True)
