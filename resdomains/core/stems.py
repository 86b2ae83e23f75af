"""What stands before the first block, and what it reads.

A network takes a factory ``Callable[[Place], Stem]``; the place's ``in_channels`` are the data's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from resdomains.core.attention import Attention, attended
from resdomains.core.convolution import MaxPool
from resdomains.core.masks import Valid
from resdomains.core.parts import Chain
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


class SumStem(Stem):
    """``sum_i stem_i(x)``: several readings of one input, such as a text's characters and its words.

    ``stems`` are factories, as a network takes one. Nothing normalises or activates the sum.

    Raises:
        ValueError: there is no stem, they read different inputs (ids or maps), or their strides
            differ.
    """

    activated = False
    fresh = True  # not that of the last stem, as in a chain

    def __init__(self, place: Place, stems: Sequence[Callable[[Place], Stem]]) -> None:
        built = [stem(place) for stem in stems]
        if not built:
            raise ValueError("stems: expected at least one stem to sum, got none")
        if len({(type(stem).read, stem.stride) for stem in built}) > 1:
            found = ", ".join(f"{type(stem).__name__} (stride {stem.stride})" for stem in built)
            raise ValueError(
                "stems: expected stems of one stride that all read ids, or all read maps; got "
                + found
            )
        super().__init__(place, **{f"stem{number}": stem for number, stem in enumerate(built)})
        self.stride = built[0].stride

    def read(self, x: Tensor) -> Tensor:
        """What its stems take.

        Raises:
            ValueError: ``x`` has the wrong shape, or an id leaves the vocabulary.
            TypeError: the stems read ids, and ``x`` does not hold integers.
        """
        return self._stems()[0].read(x)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        first, *others = self._stems()
        y: Tensor = first(x, valid)
        for stem in others:
            y = y + stem(x, valid)
        return y

    def advance(self, valid: Valid | None) -> Valid | None:
        return self._stems()[0].advance(valid)

    def silence(self) -> bool:
        silent = [stem.silence() for stem in self._stems()]
        return all(silent)

    def _stems(self) -> list[Stem]:
        return [part for part in self.parts() if isinstance(part, Stem)]
