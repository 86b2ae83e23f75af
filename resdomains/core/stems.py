"""What stands before the first block, and what it reads.

A network takes a factory ``Callable[[Place], Stem]``; the place's ``in_channels`` are the data's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core.attention import Attention, attended
from resdomains.core.convolution import MaxPool
from resdomains.core.linear import Dropout, dropout
from resdomains.core.masks import Valid
from resdomains.core.parts import Chain, Part
from resdomains.core.place import Place
from resdomains.core.weightings import Uniform, Weighting


class Stem(Chain):
    """The contract: maps the input to ``place.out_channels``; ``stride`` is the whole reduction.

    ``activated`` says that it ends normalised and activated.
    """

    stride: int
    activated: bool = True

    def __init__(self, place: Place, **parts: nn.Module) -> None:
        super().__init__(**parts)
        self.in_channels = place.in_channels
        self.dims = place.dims

    def read(self, x: Tensor) -> Tensor:
        """A network's input as the ``(B, C, H, W)`` that ``forward`` takes, H = 1 for signals.

        Raises:
            ValueError: ``x`` has another number of axes or channels than the stem was built for.
        """
        shape = "(B, C, H, W)" if self.dims == 2 else "(B, C, L)"
        if x.dim() != self.dims + 2:
            raise ValueError(f"x: expected {self.dims + 2} axes {shape}, got {tuple(x.shape)}")
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f"x: expected {self.in_channels} channels on axis 1 of {shape}, got {x.shape[1]}; "
                f"the network was built with in_channels={self.in_channels}"
            )
        return x if self.dims == 2 else x.unsqueeze(2)


class SmallImageStem(Stem):
    """A 3x3 convolution at full size, as CIFAR networks begin (He et al. 2015)."""

    stride = 1

    def __init__(self, place: Place, kernel: int = 3) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel)
        super().__init__(place, conv=conv, norm=norm, act=place.activation())


class ImageNetStem(Stem):
    """A 7x7 convolution and a max pool, stride 2 each (He et al. 2015)."""

    stride = 4

    def __init__(self, place: Place, kernel: int = 7) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel, stride=2)
        super().__init__(
            place, conv=conv, norm=norm, act=place.activation(), pool=MaxPool(place.dims)
        )


class PoolFirstStem(Stem):
    """``ImageNetStem`` with the pool before norm and activation, as timm's ResNet V2 has it."""

    stride = 4

    def __init__(self, place: Place, kernel: int = 7) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel, stride=2)
        super().__init__(
            place, conv=conv, pool=MaxPool(place.dims), norm=norm, act=place.activation()
        )


class DeepStem(Stem):
    """Three 3x3 convolutions in place of the 7x7 one (ResNet-D, He et al. 2019).

    The first two have half the channels.

    Raises:
        ValueError: the number of channels is odd.
    """

    stride = 4

    def __init__(self, place: Place) -> None:
        if place.out_channels % 2:
            raise ValueError(
                f"stem=DeepStem needs an even number of channels, got {place.out_channels}"
            )
        half = place.out_channels // 2
        conv1, norm1 = place.conv_norm(place.in_channels, half, 3, stride=2)
        conv2, norm2 = place.conv_norm(half, half, 3)
        conv3, norm3 = place.conv_norm(half, place.out_channels, 3)
        super().__init__(
            place,
            conv1=conv1,
            norm1=norm1,
            act1=place.activation(),
            conv2=conv2,
            norm2=norm2,
            act2=place.activation(),
            conv3=conv3,
            norm3=norm3,
            act3=place.activation(),
            pool=MaxPool(place.dims),
        )


class WaveformStem(Stem):
    """A long convolution and a max pool, stride 4 each, over raw samples (Dai et al. 2017).

    79 samples rather than the paper's 80: an odd kernel keeps windows centred.
    """

    stride = 16

    def __init__(self, place: Place, kernel: int = 79) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel, stride=4)
        super().__init__(
            place, conv=conv, norm=norm, act=place.activation(), pool=MaxPool(place.dims, 4, 4)
        )


class SpectrogramStem(Stem):
    """One strided convolution over frames whose channels are mel bands (as in Jasper)."""

    def __init__(self, place: Place, kernel: int = 11, stride: int = 2) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel, stride=stride)
        super().__init__(place, conv=conv, norm=norm, act=place.activation())
        self.stride = stride


class SeparableStem(Stem):
    """A strided separable convolution over frames whose channels are mel bands (QuartzNet).

    Depthwise along the frames, pointwise over the bands (Kriman et al. 2020). ``attention``, if any,
    weighs the channels before the activation (Citrinet).
    """

    def __init__(
        self, place: Place, kernel: int = 33, stride: int = 2, attention: Attention | None = None
    ) -> None:
        bands = place.in_channels
        depthwise = place.conv(bands, bands, kernel, stride=stride, groups=bands)
        pointwise, norm = place.conv_norm(bands, place.out_channels, 1)
        super().__init__(
            place,
            depthwise=depthwise,
            pointwise=pointwise,
            norm=norm,
            **attended(attention, place.out_channels),
            act=place.activation(),
        )
        self.stride = stride


class ConvPoolStem(Stem):
    """``pool(norm(conv(x)))``, 3x3 each, stride 2 in the max pool (IMPALA, Espeholt et al. 2018).

    Nothing activates its output: blocks that follow begin with an activation.
    """

    stride = 2
    activated = False

    def __init__(self, place: Place) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, 3)
        super().__init__(place, conv=conv, norm=norm, pool=MaxPool(place.dims))


class IdStem(Stem):
    """A stem that reads ids ``(B, L)`` from 0 to ``in_channels - 1``, along one axis.

    The vocabulary takes the place of channels. Nothing normalises or activates the output.

    Raises:
        ValueError: the network is not one-dimensional.
    """

    stride = 1
    activated = False

    def __init__(self, place: Place, **parts: nn.Module) -> None:
        if place.dims != 1:
            raise ValueError(
                f"stem={type(self).__name__} reads one axis of text, but this network has "
                f"{place.dims} axes; use a ResNet1d"
            )
        super().__init__(place, **parts)

    def read(self, x: Tensor) -> Tensor:
        """Ids ``(B, L)`` as ``(B, 1, 1, L)``.

        Raises:
            ValueError: ``x`` is not ``(B, L)``, or an id leaves the vocabulary (checked for CPU
                tensors only: elsewhere reading it would stall the device).
            TypeError: ``x`` does not hold integers.
        """
        if x.dim() != 2:
            raise ValueError(f"x: expected 2 axes (B, L) of ids, got {tuple(x.shape)}")
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"x: expected integers (ids), got {x.dtype}")
        if x.device.type == "cpu" and x.numel():
            low, high = int(x.min()), int(x.max())
            if low < 0 or high >= self.in_channels:
                raise ValueError(
                    f"x: expected ids from 0 to {self.in_channels - 1} (the network was built with "
                    f"in_channels={self.in_channels}, the size of its vocabulary), got values from "
                    f"{low} to {high}"
                )
        return x.long()[:, None, None]


class CharacterStem(IdStem):
    """A vector of ``embedding`` numbers for each character, and a convolution of 3 over them.

    Reads ids ``(B, L)`` (VDCNN, Conneau et al. 2017).

    Raises:
        ValueError: the network is not one-dimensional.
    """

    def __init__(self, place: Place, kernel: int = 3, embedding: int = 16) -> None:
        super().__init__(
            place,
            embedding=_Lookup(place.in_channels, embedding),
            conv=place.conv(embedding, place.out_channels, kernel, bias=True),
        )


class NGramStem(IdStem):
    """``sum_n weight v``, the vectors of the n-grams of ids that end at a position, n in ``orders``.

    ``weighting``, built with the number of vectors, says how much each n-gram of an item counts.
    Ids of themselves have a vector each; longer n-grams share ``buckets`` vectors by a hash (Joulin
    et al. 2017; of characters, Bojanowski et al. 2017). Those vectors start at zero, so that an
    n-gram which training never met changes nothing; those of ids start with the standard deviation
    ``std``. No n-gram reaches over the beginning of an
    item. In training each n-gram is left out with chance ``gram_dropout`` and each number of the
    sum with chance ``dropout``; what stays is divided by the chance of staying. Reads ids ``(B, L)``.

    Raises:
        ValueError: the network is not one-dimensional, ``orders`` is empty, repeats itself or holds
            a number below 1, ``buckets`` is below 1, a chance is not in [0, 1), or ``std`` is below 0.
    """

    def __init__(
        self,
        place: Place,
        orders: Sequence[int] = (1, 2, 3),
        buckets: int = 65536,
        gram_dropout: float = 0.0,
        dropout: float = 0.0,
        weighting: Callable[[int], Weighting] = Uniform,
        std: float = 0.1,
    ) -> None:
        if not orders or min(orders) < 1 or len(set(orders)) < len(orders):
            raise ValueError(
                f"orders: expected different numbers from 1, such as [1, 2, 3], got {list(orders)}"
            )
        if buckets < 1:
            raise ValueError(f"buckets: expected at least 1, got {buckets}")
        for name, chance in (("gram_dropout", gram_dropout), ("dropout", dropout)):
            if not 0.0 <= chance < 1.0:
                raise ValueError(f"{name}: expected a chance in [0, 1), got {chance}")
        if std < 0:
            raise ValueError(f"std: expected a standard deviation of at least 0, got {std}")
        grams = _NGrams(
            place.in_channels, place.out_channels, orders, buckets, gram_dropout, weighting
        )
        nn.init.normal_(grams.weight[: place.in_channels], std=std)
        super().__init__(place, grams=grams, dropout=Dropout(dropout))


class _Lookup(nn.Embedding, Part):
    """Ids ``(B, 1, 1, L)`` to the vectors of each, ``(B, D, 1, L)``."""

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return super().forward(x.squeeze(1)).movedim(-1, 1)


class _NGrams(Part):
    """Ids ``(B, 1, 1, L)`` to the weighted sums of the vectors of their n-grams, ``(B, D, 1, L)``.

    ``weight`` holds the vectors of the ids, then those of the buckets.
    """

    fresh = True

    # Odd 64-bit numbers whose bits look random: those of splitmix64 (Steele et al. 2014), as signed.
    _BASE, _MIX1, _MIX2 = (
        number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )

    def __init__(
        self,
        ids: int,
        width: int,
        orders: Sequence[int],
        buckets: int,
        dropout: float,
        weighting: Callable[[int], Weighting],
    ) -> None:
        super().__init__()
        self.ids = ids
        self.orders = tuple(sorted(orders))
        self.buckets = buckets
        self.dropout = dropout
        self.weight = nn.Parameter(torch.zeros(ids + buckets, width))
        self.weighting = weighting(ids + buckets)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        ids = x[:, 0, 0]
        rows = torch.stack([self._rows(ids, n) for n in self.orders], -1)
        # Ends at a position: what it reads lies before, so padding, which lies behind, is not read.
        ends = torch.arange(1, ids.shape[1] + 1, device=ids.device).unsqueeze(1)
        whole = ends >= torch.tensor(self.orders, device=ids.device)
        weights = self.weighting(rows, whole.expand(rows.shape), valid).to(self.weight.dtype)
        if self.training:
            weights = dropout(weights, self.dropout)
        y = F.embedding_bag(
            rows.flatten(0, 1), self.weight, mode="sum", per_sample_weights=weights.flatten(0, 1)
        )
        return y.view(*ids.shape, -1).movedim(-1, 1).unsqueeze(2)

    def _rows(self, ids: Tensor, n: int) -> Tensor:
        """The row of the n-gram that ends at each position, ``(B, L)``."""
        if n == 1:
            return ids
        # A polynomial of the ids modulo 2^64; n sets the n-grams of different lengths apart.
        key = torch.full_like(ids, n)
        for back in range(n):
            key = key * self._BASE + F.pad(ids, (back, 0))[:, : ids.shape[1]]
        key = (key ^ (key >> 31)) * self._MIX1
        key = (key ^ (key >> 29)) * self._MIX2
        return (key >> 20) % self.buckets + self.ids
