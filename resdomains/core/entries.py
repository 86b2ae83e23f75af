"""What leads a stage where the shape changes, before its blocks.

A network takes a factory ``Callable[[Place], Entry]``; the place's stride and channels are the
stage's. Whatever an entry leaves undone, the stage's first block does.
"""

from __future__ import annotations

from torch import nn

from resdomains.core.convolution import MaxPool
from resdomains.core.parts import Bare, Chain, Part
from resdomains.core.place import Place


class Entry(Chain):
    """The contract: maps ``place.in_channels`` to ``out_channels`` and divides sizes by ``stride``.

    ``stride`` divides the place's. ``layers`` counts the weighted layers; ``activated`` says that
    maps which come normalised and activated leave so.
    """

    layers: int = 0
    activated: bool = True

    def __init__(self, out_channels: int, stride: int, **parts: nn.Module) -> None:
        super().__init__(**parts)
        self.out_channels = out_channels
        self.stride = stride


class NoEntry(Entry):
    """Leaves stride and channels to the first block (He et al. 2015)."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.in_channels, 1)


class PoolEntry(Entry):
    """A max pool of kernel 3 with the stage's stride; the first block widens (VDCNN)."""

    def __init__(self, place: Place) -> None:
        pool: Part = MaxPool(place.dims, stride=place.stride) if place.stride > 1 else Bare()
        super().__init__(place.in_channels, place.stride, pool=pool)


class ConvPoolEntry(Entry):
    """``pool(norm(conv(x)))``, 3x3 each: the convolution widens, the max pool strides (IMPALA)."""

    layers = 1
    activated = False

    def __init__(self, place: Place) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, 3)
        pool: Part = MaxPool(place.dims, stride=place.stride) if place.stride > 1 else Bare()
        super().__init__(place.out_channels, place.stride, conv=conv, norm=norm, pool=pool)
