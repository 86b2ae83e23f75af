"""What stands before the first block; each ends normalised and activated.

A network takes a factory ``Callable[[Place], Stem]``; the place's ``in_channels`` are the data's.
"""

from __future__ import annotations

from resdomains.core.convolution import MaxPool
from resdomains.core.parts import Chain
from resdomains.core.place import Place


class Stem(Chain):
    """The contract: maps the input to ``place.out_channels``; ``stride`` is the whole reduction."""

    stride: int


class SmallImageStem(Stem):
    """A 3x3 convolution at full size, as CIFAR networks begin (He et al. 2015)."""

    stride = 1

    def __init__(self, place: Place, kernel: int = 3) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel)
        super().__init__(conv=conv, norm=norm, act=place.activation())


class ImageNetStem(Stem):
    """A 7x7 convolution and a max pool, stride 2 each (He et al. 2015)."""

    stride = 4

    def __init__(self, place: Place, kernel: int = 7) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel, stride=2)
        super().__init__(conv=conv, norm=norm, act=place.activation(), pool=MaxPool(place.dims))


class PoolFirstStem(Stem):
    """``ImageNetStem`` with the pool before norm and activation, as timm's ResNet V2 has it."""

    stride = 4

    def __init__(self, place: Place, kernel: int = 7) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel, stride=2)
        super().__init__(conv=conv, pool=MaxPool(place.dims), norm=norm, act=place.activation())


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
            conv=conv, norm=norm, act=place.activation(), pool=MaxPool(place.dims, 4, 4)
        )


class SpectrogramStem(Stem):
    """One strided convolution over frames whose channels are mel bands (as in QuartzNet)."""

    def __init__(self, place: Place, kernel: int = 11, stride: int = 2) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, kernel, stride=stride)
        super().__init__(conv=conv, norm=norm, act=place.activation())
        self.stride = stride
