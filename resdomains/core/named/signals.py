"""Networks over one axis that were published for speech and for text, by their names.

Each takes ``ResNetOptions`` by keyword and has the published parts as defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

from resdomains.core.attention import SqueezeExcitation
from resdomains.core.branches.conv import Basic, Branch, Separable
from resdomains.core.entries import PoolEntry
from resdomains.core.merges import BranchOnly
from resdomains.core.named.options import PlainOptions, ResNetOptions
from resdomains.core.networks.resnet import ResNet1d
from resdomains.core.place import Place
from resdomains.core.shortcuts import Projection
from resdomains.core.stems import SeparableStem
from resdomains.core.tails import SeparableTail, SingleSeparableTail
from resdomains.core.text_stems import CharacterStem

# Majumdar et al. 2021, layout K4: the kernels of the blocks of three mega blocks.
_CITRINET = (
    (11, 13, 15, 17, 19, 21),
    (13, 15, 17, 19, 21, 23, 25),
    (25, 27, 29, 31, 33, 35, 37, 39),
)
_EXCITATION = partial(SqueezeExcitation, ratio=1 / 8)


def _citrinet_block(place: Place) -> Branch:
    kernel = [kernel for kernels in _CITRINET for kernel in kernels][place.index]
    return Separable(place, kernel=kernel, repeats=5, attention=_EXCITATION)


_CITRINET_PARTS: ResNetOptions = {
    "in_channels": 80,  # mel bands
    "stem": partial(SeparableStem, kernel=5, stride=1, attention=_EXCITATION),
    "block": _citrinet_block,
    "inner_shortcut": Projection,
    "tail": partial(SingleSeparableTail, attention=_EXCITATION),
}
_TEXT = (64, 128, 256, 512)
_TEXT_PARTS: ResNetOptions = {
    "in_channels": 69,  # characters
    "stem": CharacterStem,
    "entry": PoolEntry,
    "block": Basic,
}


def quartznet(
    blocks: int = 1,
    repeats: int = 5,
    width: int = 256,
    kernels: Sequence[int] = (33, 39, 51, 63, 75),
    tail_kernel: int = 87,
    **options: Unpack[ResNetOptions],
) -> ResNet1d:
    """QuartzNet of any size over 64 mel bands, 20 ms of sound a position (Kriman et al. 2020).

    ``blocks`` blocks of each kernel have ``repeats`` separable convolutions; the first two kernels
    have ``width`` channels, the others twice and the last layer four times as many.
    """
    channels = [width * (1 if place < 2 else 2) for place in range(len(kernels))]
    parts: ResNetOptions = {
        "in_channels": 64,  # mel bands
        "stem": SeparableStem,
        "block": [partial(Separable, kernel=kernel, repeats=repeats) for kernel in kernels],
        "inner_shortcut": Projection,
        "tail": partial(SeparableTail, channels=4 * width, kernel=tail_kernel),
    }
    layers, strides = (blocks,) * len(kernels), (1,) * len(kernels)
    return ResNet1d(layers, channels, strides=strides, **(parts | options))


def quartznet_tiny(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """A QuartzNet for a few words: 0.2 M parameters, 5 blocks of one convolution, short kernels."""
    return quartznet(1, 1, 64, (11, 13, 17, 21, 25), 29, **options)


def quartznet_mini(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """A QuartzNet for small vocabularies: 5 blocks of two convolutions, short kernels."""
    return quartznet(1, 2, 128, (11, 13, 17, 21, 25), 29, **options)


def quartznet5x5(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """QuartzNet 5x5 over 64 mel bands: 5 blocks of 5 separable convolutions (Kriman et al. 2020)."""
    return quartznet(1, **options)


def quartznet10x5(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """QuartzNet 10x5 over 64 mel bands (Kriman et al. 2020)."""
    return quartznet(2, **options)


def quartznet15x5(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """QuartzNet 15x5 over 64 mel bands (Kriman et al. 2020)."""
    return quartznet(3, **options)


def citrinet(width: int = 256, **options: Unpack[ResNetOptions]) -> ResNet1d:
    """Citrinet of any width over 80 mel bands, 80 ms of sound a position (Majumdar et al. 2021).

    21 blocks of 5 separable convolutions with squeeze-excitation, in three mega blocks that begin
    with stride 2; the kernels are those of layout K4. The stride is that of a block's first
    convolution, as in every network here, where NeMo's is that of the last.
    """
    layers = [len(kernels) for kernels in _CITRINET]
    return ResNet1d(layers, (width,) * 3, strides=(2, 2, 2), **(_CITRINET_PARTS | options))


def citrinet_256(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """Citrinet-256 (Majumdar et al. 2021)."""
    return citrinet(256, **options)


def citrinet_384(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """Citrinet-384 (Majumdar et al. 2021)."""
    return citrinet(384, **options)


def citrinet_512(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """Citrinet-512 (Majumdar et al. 2021)."""
    return citrinet(512, **options)


def citrinet_1024(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """Citrinet-1024 (Majumdar et al. 2021)."""
    return citrinet(1024, **options)


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
