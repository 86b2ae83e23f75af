"""What a library's names for one network come down to, whatever the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from resdomains.core.heads import Head, PooledHead

LIBRARIES = ("torchvision", "timm", "huggingface")


class Names(NamedTuple):
    """A library's keys for what a network and its head hold.

    ``keys`` has an entry for each key of the network's state: the library's keys, whose tensors
    are stacked one below the other, or None where it has no such part. ``head`` and ``pooler`` do
    so for the head: its classifier, and what it may take over even where the classes differ. The
    classifier belongs to heads of ``head_type`` alone. Of the library's keys, leading ``prefixes``
    may be missing, and those that begin with one of ``ignored`` serve other tasks.
    """

    keys: Mapping[str, tuple[str, ...] | None]
    head: Mapping[str, str]
    pooler: Mapping[str, str] = {}
    head_type: type[Head] = PooledHead
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
