"""Which files cannot be read: all are read once, and what came of it is kept until one changes."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from resdomains.training.caches import cache_folder
from resdomains.training.data import BadSample

_warn = rank_zero_only(logging.getLogger(__name__).warning)


class _Reasons(Dataset[str]):
    """Gives, for each request, why it cannot be read, or an empty text."""

    def __init__(self, requests: Sequence[tuple[Any, ...]], read: Callable[..., object]) -> None:
        self.requests, self.read = requests, read

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index: int) -> str:
        try:
            self.read(*self.requests[index])
        except BadSample as error:
            return error.reason
        return ""


def unreadable(
    requests: Sequence[tuple[Any, ...]],
    read: Callable[..., object],
    *,
    part: str,
    num_workers: int = 0,
) -> dict[int, str]:
    """Read every file once; return the reasons of those that fail, by the place of the request.

    The result is kept in the user's cache. It holds for these requests in this order, until the size or the time of
    the last change of one of the files is another.

    Args:
        requests: The arguments of `read`, plain values: a file's path first, then which part of it, or how.
        read: Raises `BadSample` for what cannot be read.
        part: The folder of the cache, called as what is read.
        num_workers: Loader processes.
    """
    digest = hashlib.sha256()
    states: dict[str, str] = {}
    for request in requests:
        path = str(request[0])
        if path not in states:
            states[path] = _state(path)
        digest.update(f"{request!r}\0{states[path]}\0".encode())
    kept = cache_folder(part) / f"{digest.hexdigest()}.json"
    found = _kept(kept)
    if found is not None:
        return found
    loader = DataLoader(_Reasons(requests, read), batch_size=None, num_workers=num_workers)
    bad = {place: reason for place, reason in enumerate(loader) if reason}
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        written = kept.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps(bad), encoding="utf-8")
        written.replace(kept)
    except OSError as error:
        _warn(
            f"the list of unreadable files cannot be kept in {kept.parent} ({error}); "
            "the next run reads every file again"
        )
    return bad


def _state(path: str) -> str:
    """A file's size and the time of its last change."""
    try:
        status = Path(path).stat()
    except (
        OSError,
        ValueError,
    ) as error:  # it is gone, or a link to what is not there: `read` says so
        return type(error).__name__
    return f"{status.st_size}\0{status.st_mtime_ns}"


def _kept(path: Path) -> dict[int, str] | None:
    """What an earlier run found; None where there is nothing, or it was damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {int(place): str(reason) for place, reason in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
