"""Residual networks over images, and their twins over signals, by their published names.

Each takes ``ResNetOptions`` by keyword (plain networks: ``PlainOptions``) and has the published
parts as defaults.
"""

from __future__ import annotations

from functools import partial
from typing import Unpack

from resdomains.core.attention import SqueezeExcitation
from resdomains.core.branches.conv import (
    Basic,
    Bottleneck,
    PreActivationBasic,
    PreActivationBottleneck,
)
from resdomains.core.merges import BranchOnly
from resdomains.core.named.options import PlainOptions, ResNetOptions
from resdomains.core.networks.resnet import ResNet1d, ResNet2d
from resdomains.core.shortcuts import BareProjection, PooledProjection, ZeroPad
from resdomains.core.stems import DeepStem, ImageNetStem, PoolFirstStem

_SMALL = (64, 128, 256, 512)
_LARGE = (256, 512, 1024, 2048)
_CIFAR = (16, 32, 64)
_CIFAR_BOTTLENECK = (64, 128, 256)

_BASIC_PARTS: ResNetOptions = {"stem": ImageNetStem, "block": Basic}
_BOTTLENECK_PARTS: ResNetOptions = {"stem": ImageNetStem, "block": Bottleneck}
_CIFAR_PARTS: ResNetOptions = {"block": Basic, "shortcut": ZeroPad}
_CIFAR_PREACT: ResNetOptions = {"block": PreActivationBasic, "shortcut": ZeroPad}
_CIFAR_PREACT_BOTTLENECK: ResNetOptions = {
    "block": PreActivationBottleneck,
    "shortcut": BareProjection,
}


def resnet18(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-18 (He et al. 2015)."""
    return ResNet2d((2, 2, 2, 2), _SMALL, **(_BASIC_PARTS | options))


def resnet34(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-34 (He et al. 2015)."""
    return ResNet2d((3, 4, 6, 3), _SMALL, **(_BASIC_PARTS | options))


def resnet50(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-50 with bottlenecks (He et al. 2015)."""
    return ResNet2d((3, 4, 6, 3), _LARGE, stem_channels=64, **(_BOTTLENECK_PARTS | options))


def resnet101(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-101 with bottlenecks (He et al. 2015)."""
    return ResNet2d((3, 4, 23, 3), _LARGE, stem_channels=64, **(_BOTTLENECK_PARTS | options))


def resnet152(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-152 with bottlenecks (He et al. 2015)."""
    return ResNet2d((3, 8, 36, 3), _LARGE, stem_channels=64, **(_BOTTLENECK_PARTS | options))


def resnet50d(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-50-D: three 3x3 convolutions first, pooled projections (He et al. 2019)."""
    parts: ResNetOptions = {
        "stem": DeepStem,
        "block": Bottleneck,
        "shortcut": PooledProjection,
    }
    return ResNet2d((3, 4, 6, 3), _LARGE, stem_channels=64, **(parts | options))


def wide_resnet50_2(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-50, twice as wide inside the bottlenecks (Zagoruyko & Komodakis 2016)."""
    parts: ResNetOptions = {
        "stem": ImageNetStem,
        "block": partial(Bottleneck, width_per_group=128),
    }
    return ResNet2d((3, 4, 6, 3), _LARGE, stem_channels=64, **(parts | options))


def resnext50_32x4d(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNeXt-50, 32 groups of 4 channels (Xie et al. 2017)."""
    parts: ResNetOptions = {
        "stem": ImageNetStem,
        "block": partial(Bottleneck, groups=32, width_per_group=4),
    }
    return ResNet2d((3, 4, 6, 3), _LARGE, stem_channels=64, **(parts | options))


def seresnet50(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-50 with squeeze and excitation (Hu et al. 2018)."""
    parts: ResNetOptions = {
        "stem": ImageNetStem,
        "block": partial(Bottleneck, attention=SqueezeExcitation),
    }
    return ResNet2d((3, 4, 6, 3), _LARGE, stem_channels=64, **(parts | options))


def preact_resnet18(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """Pre-activation ResNet-18 (He et al. 2016), its stem as in timm's ResNet V2."""
    parts: ResNetOptions = {
        "stem": PoolFirstStem,
        "block": PreActivationBasic,
        "shortcut": BareProjection,
    }
    return ResNet2d((2, 2, 2, 2), _SMALL, **(parts | options))


def preact_resnet50(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """Pre-activation ResNet-50 (He et al. 2016), its stem as in timm's ResNet V2."""
    parts: ResNetOptions = {
        "stem": PoolFirstStem,
        "block": PreActivationBottleneck,
        "shortcut": BareProjection,
    }
    return ResNet2d((3, 4, 6, 3), _LARGE, stem_channels=64, **(parts | options))


def resnet20(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-20 for small images, zero-padded shortcuts (He et al. 2015)."""
    return ResNet2d((3, 3, 3), _CIFAR, **(_CIFAR_PARTS | options))


def resnet32(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-32 for small images, zero-padded shortcuts (He et al. 2015)."""
    return ResNet2d((5, 5, 5), _CIFAR, **(_CIFAR_PARTS | options))


def resnet44(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-44 for small images, zero-padded shortcuts (He et al. 2015)."""
    return ResNet2d((7, 7, 7), _CIFAR, **(_CIFAR_PARTS | options))


def resnet56(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-56 for small images, zero-padded shortcuts (He et al. 2015)."""
    return ResNet2d((9, 9, 9), _CIFAR, **(_CIFAR_PARTS | options))


def resnet110(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-110 for small images, zero-padded shortcuts (He et al. 2015)."""
    return ResNet2d((18, 18, 18), _CIFAR, **(_CIFAR_PARTS | options))


def resnet1202(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """ResNet-1202 for small images, zero-padded shortcuts (He et al. 2015)."""
    return ResNet2d((200, 200, 200), _CIFAR, **(_CIFAR_PARTS | options))


def preact_resnet20(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """Pre-activation ResNet-20 for small images (He et al. 2016)."""
    return ResNet2d((3, 3, 3), _CIFAR, **(_CIFAR_PREACT | options))


def preact_resnet56(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """Pre-activation ResNet-56 for small images (He et al. 2016)."""
    return ResNet2d((9, 9, 9), _CIFAR, **(_CIFAR_PREACT | options))


def preact_resnet110(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """Pre-activation ResNet-110 for small images (He et al. 2016)."""
    return ResNet2d((18, 18, 18), _CIFAR, **(_CIFAR_PREACT | options))


def preact_resnet164(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """Pre-activation ResNet-164 with bottlenecks, for small images (He et al. 2016)."""
    return ResNet2d(
        (18, 18, 18), _CIFAR_BOTTLENECK, stem_channels=16, **(_CIFAR_PREACT_BOTTLENECK | options)
    )


def preact_resnet1001(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """Pre-activation ResNet-1001 with bottlenecks, for small images (He et al. 2016)."""
    return ResNet2d(
        (111, 111, 111), _CIFAR_BOTTLENECK, stem_channels=16, **(_CIFAR_PREACT_BOTTLENECK | options)
    )


def wide_resnet28_10(**options: Unpack[ResNetOptions]) -> ResNet2d:
    """WRN-28-10 (Zagoruyko & Komodakis 2016), whose 28 count the 1x1 shortcuts."""
    parts: ResNetOptions = {
        "block": PreActivationBasic,
        "shortcut": BareProjection,
    }
    return ResNet2d((4, 4, 4), (160, 320, 640), stem_channels=16, **(parts | options))


def resnet1d18(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-18 over one axis (He et al. 2015)."""
    return ResNet1d((2, 2, 2, 2), _SMALL, **(_BASIC_PARTS | options))


def resnet1d34(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-34 over one axis (He et al. 2015)."""
    return ResNet1d((3, 4, 6, 3), _SMALL, **(_BASIC_PARTS | options))


def resnet1d50(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-50 over one axis with bottlenecks (He et al. 2015)."""
    return ResNet1d((3, 4, 6, 3), _LARGE, stem_channels=64, **(_BOTTLENECK_PARTS | options))


def resnet1d101(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-101 over one axis with bottlenecks (He et al. 2015)."""
    return ResNet1d((3, 4, 23, 3), _LARGE, stem_channels=64, **(_BOTTLENECK_PARTS | options))


def resnet1d152(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-152 over one axis with bottlenecks (He et al. 2015)."""
    return ResNet1d((3, 8, 36, 3), _LARGE, stem_channels=64, **(_BOTTLENECK_PARTS | options))


def resnet1d20(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-20 over one axis, zero-padded shortcuts (He et al. 2015)."""
    return ResNet1d((3, 3, 3), _CIFAR, **(_CIFAR_PARTS | options))


def resnet1d32(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-32 over one axis, zero-padded shortcuts (He et al. 2015)."""
    return ResNet1d((5, 5, 5), _CIFAR, **(_CIFAR_PARTS | options))


def resnet1d44(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-44 over one axis, zero-padded shortcuts (He et al. 2015)."""
    return ResNet1d((7, 7, 7), _CIFAR, **(_CIFAR_PARTS | options))


def resnet1d56(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-56 over one axis, zero-padded shortcuts (He et al. 2015)."""
    return ResNet1d((9, 9, 9), _CIFAR, **(_CIFAR_PARTS | options))


def resnet1d110(**options: Unpack[ResNetOptions]) -> ResNet1d:
    """ResNet-110 over one axis, zero-padded shortcuts (He et al. 2015)."""
    return ResNet1d((18, 18, 18), _CIFAR, **(_CIFAR_PARTS | options))


def plain18(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet18``: branches only."""
    return resnet18(merge=BranchOnly, **options)


def plain34(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet34``: branches only."""
    return resnet34(merge=BranchOnly, **options)


def plain50(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet50``: branches only."""
    return resnet50(merge=BranchOnly, **options)


def plain101(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet101``: branches only."""
    return resnet101(merge=BranchOnly, **options)


def plain152(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet152``: branches only."""
    return resnet152(merge=BranchOnly, **options)


def plain50d(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet50d``: branches only."""
    return resnet50d(merge=BranchOnly, **options)


def wide_plain50_2(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``wide_resnet50_2``: branches only."""
    return wide_resnet50_2(merge=BranchOnly, **options)


def plainnext50_32x4d(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnext50_32x4d``: branches only."""
    return resnext50_32x4d(merge=BranchOnly, **options)


def seplain50(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``seresnet50``: branches only."""
    return seresnet50(merge=BranchOnly, **options)


def preact_plain18(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``preact_resnet18``: branches only."""
    return preact_resnet18(merge=BranchOnly, **options)


def preact_plain50(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``preact_resnet50``: branches only."""
    return preact_resnet50(merge=BranchOnly, **options)


def plain20(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet20``: branches only."""
    return resnet20(merge=BranchOnly, **options)


def plain32(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet32``: branches only."""
    return resnet32(merge=BranchOnly, **options)


def plain44(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet44``: branches only."""
    return resnet44(merge=BranchOnly, **options)


def plain56(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet56``: branches only."""
    return resnet56(merge=BranchOnly, **options)


def plain110(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet110``: branches only."""
    return resnet110(merge=BranchOnly, **options)


def plain1202(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``resnet1202``: branches only."""
    return resnet1202(merge=BranchOnly, **options)


def preact_plain20(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``preact_resnet20``: branches only."""
    return preact_resnet20(merge=BranchOnly, **options)


def preact_plain56(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``preact_resnet56``: branches only."""
    return preact_resnet56(merge=BranchOnly, **options)


def preact_plain110(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``preact_resnet110``: branches only."""
    return preact_resnet110(merge=BranchOnly, **options)


def preact_plain164(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``preact_resnet164``: branches only."""
    return preact_resnet164(merge=BranchOnly, **options)


def preact_plain1001(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``preact_resnet1001``: branches only."""
    return preact_resnet1001(merge=BranchOnly, **options)


def wide_plain28_10(**options: Unpack[PlainOptions]) -> ResNet2d:
    """The plain twin of ``wide_resnet28_10``: branches only."""
    return wide_resnet28_10(merge=BranchOnly, **options)


def plain1d18(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d18``: branches only."""
    return resnet1d18(merge=BranchOnly, **options)


def plain1d34(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d34``: branches only."""
    return resnet1d34(merge=BranchOnly, **options)


def plain1d50(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d50``: branches only."""
    return resnet1d50(merge=BranchOnly, **options)


def plain1d101(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d101``: branches only."""
    return resnet1d101(merge=BranchOnly, **options)


def plain1d152(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d152``: branches only."""
    return resnet1d152(merge=BranchOnly, **options)


def plain1d20(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d20``: branches only."""
    return resnet1d20(merge=BranchOnly, **options)


def plain1d32(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d32``: branches only."""
    return resnet1d32(merge=BranchOnly, **options)


def plain1d44(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d44``: branches only."""
    return resnet1d44(merge=BranchOnly, **options)


def plain1d56(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d56``: branches only."""
    return resnet1d56(merge=BranchOnly, **options)


def plain1d110(**options: Unpack[PlainOptions]) -> ResNet1d:
    """The plain twin of ``resnet1d110``: branches only."""
    return resnet1d110(merge=BranchOnly, **options)
