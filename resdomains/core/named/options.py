"""What the named convolutional networks take beside their own numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

from resdomains.core.activations import Activation
from resdomains.core.afters import After
from resdomains.core.branches.conv import Branch
from resdomains.core.coupling import Coupling
from resdomains.core.entries import Entry
from resdomains.core.memory import Memory
from resdomains.core.merges import Merge
from resdomains.core.norms import Norm
from resdomains.core.place import Place, Site
from resdomains.core.shortcuts import Shortcut
from resdomains.core.stems import Stem
from resdomains.core.tails import Tail


class PlainOptions(TypedDict, total=False):
    """What every named network takes; the meaning is that of ``ResNet``."""

    in_channels: int
    stem: Callable[[Place], Stem]
    entry: Callable[[Place], Entry]
    block: Sequence[Callable[[Place], Branch]] | Callable[[Place], Branch]
    shortcut: Callable[[Place], Shortcut]
    inner_shortcut: Callable[[Place], Shortcut]
    after: Callable[[Place], After] | None
    tail: Callable[[Place], Tail]
    norm: Callable[[int], Norm]
    activation: Callable[[], Activation]
    coupling: Coupling | None
    memory: Memory | None


class ResNetOptions(PlainOptions, total=False):
    """The options of a residual network: those of a plain one, and how blocks are merged."""

    merge: Callable[[Site], Merge]
