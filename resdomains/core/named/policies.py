"""Networks for control, by their published names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

from resdomains.core.activations import Activation
from resdomains.core.branches.conv import ActivationFirst
from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.coupling import Coupling
from resdomains.core.entries import ConvPoolEntry
from resdomains.core.memory import Memory
from resdomains.core.merges import Merge
from resdomains.core.named.options import ResNetOptions
from resdomains.core.networks.mlp import ResidualMLP
from resdomains.core.networks.resnet import ResNet2d
from resdomains.core.norm_positions import NormPosition
from resdomains.core.norms import NoNorm, Norm
from resdomains.core.place import SequencePlace, Site
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


class MLPOptions(TypedDict, total=False):
    """What every named network over vectors takes; the meaning is that of ``ResidualMLP``."""

    in_channels: int
    layer: Sequence[Callable[[SequencePlace], SequenceBranch]]
    norm_position: NormPosition | None
    merge: Callable[[Site], Merge]
    norm: Callable[[int], Norm]
    activation: Callable[[], Activation]
    coupling: Coupling | None
    memory: Memory | None


def simba(layers: int = 2, width: int = 512, **options: Unpack[MLPOptions]) -> ResidualMLP:
    """SimBa's trunk (Lee et al. 2024), as large as its critic: 2 blocks, 512 wide.

    Its actor has ``layers`` 1 and ``width`` 128. Observations come normalised.
    """
    return ResidualMLP(layers, width, **options)
