"""Networks over one axis that were published for speech and for text, by their names.

Each takes ``ResNetOptions`` by keyword and has the published parts as defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Unpack

from resdomains.core.branches.conv import Basic, Branch, Separable
from resdomains.core.entries import PoolEntry
from resdomains.core.merges import BranchOnly
from resdomains.core.named.options import PlainOptions, ResNetOptions
from resdomains.core.networks.resnet import ResNet1d
from resdomains.core.place import Place
from resdomains.core.shortcuts import Projection
from resdomains.core.stems import CharacterStem, SeparableStem
from resdomains.core.tails import SeparableTail


def _repeated(kernel: int) -> Callable[[Place], Branch]:
    return partial(Separable, kernel=kernel, repeats=5)


_QUARTZ = (256, 256, 512, 512, 512)
_QUARTZ_PARTS: ResNetOptions = {
    "in_channels": 64,  # mel bands
    "stem": SeparableStem,
    "block": [_repeated(kernel) for kernel in (33, 39, 51, 63, 75)],
    "inner_shortcut": Projection,
    "tail": SeparableTail,
}
_TEXT = (64, 128, 256, 512)
_TEXT_PARTS: ResNetOptions = {
    "in_channels": 69,  # characters
    "stem": CharacterStem,
    "entry": PoolEntry,
    "block": Basic,
}


def quartznet5x5(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """QuartzNet 5x5 over 64 mel bands: 5 blocks of 5 separable convolutions (Kriman et al. 2020)."""
    return ResNet1d((1,) * 5, _QUARTZ, strides=(1,) * 5, **(_QUARTZ_PARTS | options))


def quartznet10x5(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """QuartzNet 10x5 over 64 mel bands (Kriman et al. 2020)."""
    return ResNet1d((2,) * 5, _QUARTZ, strides=(1,) * 5, **(_QUARTZ_PARTS | options))


def quartznet15x5(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """QuartzNet 15x5 over 64 mel bands (Kriman et al. 2020)."""
    return ResNet1d((3,) * 5, _QUARTZ, strides=(1,) * 5, **(_QUARTZ_PARTS | options))


def vdcnn9(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """VDCNN-9 over the ids of 69 characters, with the shortcuts that are optional in the paper.

    Its number counts convolutions (Conneau et al. 2017); what the paper puts behind them, k-max
    pooling and three linear layers, is a head's matter.
    """
    return ResNet1d((1, 1, 1, 1), _TEXT, **(_TEXT_PARTS | options))


def vdcnn17(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """VDCNN-17 over the ids of 69 characters, with shortcuts; see ``vdcnn9``."""
    return ResNet1d((2, 2, 2, 2), _TEXT, **(_TEXT_PARTS | options))


def vdcnn29(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """VDCNN-29 over the ids of 69 characters, with shortcuts; see ``vdcnn9``."""
    return ResNet1d((5, 5, 2, 2), _TEXT, **(_TEXT_PARTS | options))


def vdcnn49(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """VDCNN-49 over the ids of 69 characters, with shortcuts; see ``vdcnn9``."""
    return ResNet1d((8, 8, 5, 3), _TEXT, **(_TEXT_PARTS | options))


def plain_vdcnn9(**options: Unpack[PlainOptions]) -> ResNet1d:
    """VDCNN-9 as published, without shortcuts (Conneau et al. 2017)."""
    return vdcnn9(merge=BranchOnly, **options)


def plain_vdcnn17(**options: Unpack[PlainOptions]) -> ResNet1d:
    """VDCNN-17 as published, without shortcuts (Conneau et al. 2017)."""
    return vdcnn17(merge=BranchOnly, **options)


def plain_vdcnn29(**options: Unpack[PlainOptions]) -> ResNet1d:
    """VDCNN-29 as published, without shortcuts (Conneau et al. 2017)."""
    return vdcnn29(merge=BranchOnly, **options)


def plain_vdcnn49(**options: Unpack[PlainOptions]) -> ResNet1d:
    """VDCNN-49 as published, without shortcuts (Conneau et al. 2017)."""
    return vdcnn49(merge=BranchOnly, **options)
