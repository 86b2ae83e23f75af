"""Networks for control, by their published names."""

from __future__ import annotations

from typing import Unpack

from resdomains.core.branches.conv import ActivationFirst
from resdomains.core.entries import ConvPoolEntry
from resdomains.core.named.options import ResNetOptions
from resdomains.core.networks.resnet import ResNet2d
from resdomains.core.norms import NoNorm
from resdomains.core.stems import ConvPoolStem
from resdomains.core.tails import ActivatedTail

_IMPALA = (16, 32, 32)
_IMPALA_PARTS: ResNetOptions = {
    "in_channels": 4,  # frames
    "stem": ConvPoolStem,
    "entry": ConvPoolEntry,
    "block": ActivationFirst,
    "norm": NoNorm,
    "tail": ActivatedTail,
}


def impala(width_multiplier: int = 1, **options: Unpack[ResNetOptions]) -> ResNet2d:
    """The convolutions of IMPALA's deep network, over 4 frames (Espeholt et al. 2018).

    ``width_multiplier`` widens every layer. The linear layer of 256 that follows in the paper is a
    head's matter.

    Raises:
        ValueError: ``width_multiplier`` is below 1.
    """
    if width_multiplier < 1:
        raise ValueError(f"width_multiplier: expected at least 1, got {width_multiplier}")
    channels = tuple(width_multiplier * width for width in _IMPALA)
    return ResNet2d((2, 2, 2), channels, **(_IMPALA_PARTS | options))
