"""Residual networks over vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from resdomains.core.activations import Activation, ReLU
from resdomains.core.branches.feedforward import FeedForward
from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.coupling import Coupling
from resdomains.core.features import Features
from resdomains.core.linear import Linear
from resdomains.core.memory import Memory
from resdomains.core.merges import Add, Merge
from resdomains.core.networks.backbone import Backbone
from resdomains.core.networks.layers import blocks_of, check_sizes
from resdomains.core.norm_positions import NormPosition, PreNorm
from resdomains.core.norms import LayerNorm, Norm
from resdomains.core.parts import Chain
from resdomains.core.place import SequencePlace, Site
from resdomains.core.stack import Stack


class ResidualMLP(Backbone):
    """A linear map from ``in_channels`` to ``width``, then ``layers`` layers of residual blocks.

    Each layer is a block for every factory of ``layer``. By default the trunk of SimBa (Lee et al.
    2024): pre-LayerNorm feed-forward blocks with four times the width inside, and a norm at the
    end; normalising observations is the caller's matter. Parts as in ``ResidualEncoder``.

    Attributes: ``in_channels``; ``out_channels`` and ``stride`` (1), of one entry each; ``depth``,
    the layers as SimBa counts them: its blocks of two linear maps.

    Raises:
        ValueError: a number is below 1, ``layer`` is empty, or a merge cannot work here.
    """

    def __init__(
        self,
        layers: int = 2,
        width: int = 128,
        in_channels: int = 4,
        layer: Sequence[Callable[[SequencePlace], SequenceBranch]] = (FeedForward,),
        norm_position: NormPosition | None = None,
        merge: Callable[[Site], Merge] = Add,
        norm: Callable[[int], Norm] = LayerNorm,
        activation: Callable[[], Activation] = ReLU,
        coupling: Coupling | None = None,
        memory: Memory | None = None,
    ) -> None:
        super().__init__()
        check_sizes(layer, layers=layers, width=width, in_channels=in_channels)
        position = self.norm_position = norm_position or PreNorm()
        edge = SequencePlace(width, norm, activation)
        self.stem = Linear(in_channels, width)
        self.start = Chain(norm=position.start(edge))
        self.stack = Stack(blocks_of(layers, layer, position, merge, edge), coupling, memory)
        self.end = Chain(norm=position.end(edge))
        self.in_channels = in_channels
        self.out_channels = (width,)
        self.stride = (1,)
        self.depth = layers

    def read(self, x: Tensor) -> Tensor:
        """Vectors ``(B, in_channels)``, as they are.

        Raises:
            ValueError: ``x`` has another number of axes or channels.
        """
        if x.dim() != 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"x: expected vectors (B, C) with {self.in_channels} channels on axis 1 (the "
                f"network was built with in_channels={self.in_channels}), got {tuple(x.shape)}"
            )
        return x

    def forward(self, x: Tensor) -> Features:
        """Vectors ``(B, in_channels)`` to one map ``(B, width)``.

        Raises:
            ValueError: ``x`` has another number of axes or channels.
        """
        x = self.stem(self.read(x))
        return Features((self.end(self.stack(self.start(x))),), (None,))
