"""What stands before the first block, and what it reads.

A network takes a factory ``Callable[[Place], Stem]``; the place's ``in_channels`` are the data's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resdomains.core.convolution import MaxPool
from resdomains.core.masks import Valid
from resdomains.core.parts import Chain, Part
from resdomains.core.place import Place


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

    Depthwise along the frames, pointwise over the bands (Kriman et al. 2020).
    """

    def __init__(self, place: Place, kernel: int = 33, stride: int = 2) -> None:
        bands = place.in_channels
        depthwise = place.conv(bands, bands, kernel, stride=stride, groups=bands)
        pointwise, norm = place.conv_norm(bands, place.out_channels, 1)
        super().__init__(
            place, depthwise=depthwise, pointwise=pointwise, norm=norm, act=place.activation()
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


class CharacterStem(Stem):
    """A vector of ``embedding`` numbers for each character, and a convolution of 3 over them.

    Reads ids ``(B, L)`` from 0 to ``in_channels - 1``: the vocabulary takes the place of channels.
    Nothing normalises or activates its output (VDCNN, Conneau et al. 2017).

    Raises:
        ValueError: the network is not one-dimensional.
    """

    stride = 1
    activated = False

    def __init__(self, place: Place, kernel: int = 3, embedding: int = 16) -> None:
        if place.dims != 1:
            raise ValueError(
                f"stem=CharacterStem reads one axis of text, but this network has {place.dims} "
                f"axes; use a ResNet1d"
            )
        super().__init__(
            place,
            embedding=_Lookup(place.in_channels, embedding),
            conv=place.conv(embedding, place.out_channels, kernel, bias=True),
        )

    def read(self, x: Tensor) -> Tensor:
        """Ids ``(B, L)`` as ``(B, 1, 1, L)``.

        Raises:
            ValueError: ``x`` is not ``(B, L)``, or an id leaves the vocabulary (checked for CPU
                tensors only: elsewhere reading it would stall the device).
            TypeError: ``x`` does not hold integers.
        """
        if x.dim() != 2:
            raise ValueError(f"x: expected 2 axes (B, L) of character ids, got {tuple(x.shape)}")
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"x: expected integers (character ids), got {x.dtype}")
        if x.device.type == "cpu" and x.numel():
            low, high = int(x.min()), int(x.max())
            if low < 0 or high >= self.in_channels:
                raise ValueError(
                    f"x: expected ids from 0 to {self.in_channels - 1} (the network was built with "
                    f"in_channels={self.in_channels}, the size of its vocabulary), got values from "
                    f"{low} to {high}"
                )
        return x.long()[:, None, None]


class _Lookup(nn.Embedding, Part):
    """Ids ``(B, 1, 1, L)`` to the vectors of each, ``(B, D, 1, L)``."""

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return super().forward(x.squeeze(1)).movedim(-1, 1)
