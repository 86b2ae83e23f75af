"""What a library's names for one network come down to, whatever the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeGuard

from resdomains.core.heads import BarePooler, Head, PooledHead, Pooler, TaskHead

LIBRARIES = ("torchvision", "timm", "huggingface")


class Names(NamedTuple):
    """A library's keys for what a network and its head hold.

    ``keys`` has an entry for each key of the network's state: the library's keys, whose tensors
    are stacked one below the other, or None where it has no such part. ``head`` and ``pooler`` do
    so for the head: its classifier, and what it may take over even where the classes differ. The
    classifier belongs to heads of ``head_type`` alone, and what a first token passes before it is
    a ``pooler_type``. Of the library's keys, leading ``prefixes`` may be missing, and those that
    begin with one of ``ignored`` serve other tasks.
    """

    keys: Mapping[str, tuple[str, ...] | None]
    head: Mapping[str, str]
    pooler: Mapping[str, str] = {}
    head_type: type[Head] = PooledHead
    pooler_type: type[Pooler] = BarePooler
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def fit(self, head: TaskHead) -> TypeGuard[Head]:
        """Whether the library's classifier computes what ``head`` does."""
        if not isinstance(head, self.head_type):
            return False
        pooler = getattr(head, "pooler", None)
        return pooler is None or type(pooler) is self.pooler_type
