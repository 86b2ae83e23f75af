"""Residual networks over sequences: attention, feed-forward and convolution modules in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from resdomains.core.activations import GELU, Activation
from resdomains.core.branches.attention import SelfAttention
from resdomains.core.branches.feedforward import FeedForward
from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.coupling import Coupling
from resdomains.core.features import Features
from resdomains.core.linear import Dropout
from resdomains.core.masks import check_items, padded, unpack, valid_of
from resdomains.core.memory import Memory
from resdomains.core.merges import Add, Merge
from resdomains.core.networks.backbone import Backbone
from resdomains.core.networks.layers import blocks_of, check_sizes
from resdomains.core.norm_positions import NormPosition, PreNorm
from resdomains.core.norms import LayerNorm, Norm
from resdomains.core.parts import Chain
from resdomains.core.place import Place, SequencePlace, Site
from resdomains.core.sequence_stems import SequenceStem, TokenStem
from resdomains.core.stack import Stack


class ResidualEncoder(Backbone):
    """A stem and ``layers`` layers, each a run of residual blocks: one for every factory of ``layer``.

    ``width`` is D. Everything that changes the computation is a part:

    - ``stem`` reads the data, whose channels (or vocabulary) are ``in_channels``; ``dropout``
      follows it, and the norm after it if there is one;
    - ``layer`` builds the branches: attention and feed-forward make a transformer;
    - ``merge`` joins branch and shortcut, ``norm_position`` says where ``norm`` stands (None:
      ``PreNorm``), ``activation`` serves all;
    - ``coupling`` says how blocks follow each other (None: one by one), and ``memory`` keeps
      activations (None: all).

    With lengths, blocks run on the rows ``(N, D)`` of the valid positions: padding costs nothing
    outside attention and convolutions, and no part computes with it.

    Attributes: ``in_channels``; ``out_channels`` and ``stride``, of one entry each as there is one
    map; ``depth``, the layers as the literature counts them: 12 for BERT-base, whose sums are 24.

    Raises:
        ValueError: a number is below 1, ``layer`` is empty, or a merge cannot work here.
    """

    def __init__(
        self,
        layers: int = 6,
        width: int = 256,
        in_channels: int = 30522,
        stem: Callable[[Place], SequenceStem] = TokenStem,
        layer: Sequence[Callable[[SequencePlace], SequenceBranch]] = (SelfAttention, FeedForward),
        norm_position: NormPosition | None = None,
        dropout: float = 0.0,
        merge: Callable[[Site], Merge] = Add,
        norm: Callable[[int], Norm] = LayerNorm,
        activation: Callable[[], Activation] = GELU,
        coupling: Coupling | None = None,
        memory: Memory | None = None,
    ) -> None:
        super().__init__()
        check_sizes(layer, layers=layers, width=width, in_channels=in_channels)
        position = self.norm_position = norm_position or PreNorm()
        edge = SequencePlace(width, norm, activation)
        self.stem = stem(Place(in_channels, width, norm, activation))
        self.start = Chain(norm=position.start(edge), dropout=Dropout(dropout))
        self.stack = Stack(blocks_of(layers, layer, position, merge, edge), coupling, memory)
        self.end = Chain(norm=position.end(edge))
        self.in_channels = in_channels
        self.out_channels = (width,)
        self.stride = (self.stem.stride,)
        self.depth = layers

    def read(self, x: Tensor) -> Tensor:
        return self.stem.read(x)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Features:
        """One map ``(B, D, T)``, zero at padding; ``lengths`` ``(B,)`` counts each item's positions.

        Raises:
            ValueError: the stem cannot read ``x``, or ``lengths`` does not fit it.
        """
        x = self.read(x)
        valid = valid_of(lengths, x.shape[-1])
        check_items(x, valid)
        x, valid = self.stem(x, valid)
        x = self.end(self.stack(self.start(x, valid), valid), valid)
        return Features((unpack(x, valid).transpose(1, 2),), (padded(valid),))
