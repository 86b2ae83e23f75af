"""What follows the last stage and makes the deepest map of its output.

A network takes a factory ``Callable[[Place], Tail]``; the place's channels are the last stage's.
"""

from __future__ import annotations

from torch import nn

from resdomains.core.attention import Attention, attended
from resdomains.core.parts import Chain
from resdomains.core.place import Place


class Tail(Chain):
    """The contract: maps ``place.in_channels`` to ``out_channels`` and keeps the size.

    ``layers`` counts the weighted layers.
    """

    layers: int = 0

    def __init__(self, out_channels: int, **parts: nn.Module) -> None:
        super().__init__(**parts)
        self.out_channels = out_channels


class NoTail(Tail):
    """The last stage's output as it is."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.in_channels)


class ActivatedTail(Tail):
    """``activation(x)``, for blocks that end with the bare sum (IMPALA, Espeholt et al. 2018)."""

    def __init__(self, place: Place) -> None:
        act = place.activation()
        act.inplace = False  # whether a backward pass reads its input is the last stage's matter
        super().__init__(place.in_channels, act=act)


class SeparableTail(Tail):
    """A wide separable convolution and a pointwise one to ``channels`` (QuartzNet).

    Each ends normalised and activated; depthwise and pointwise convolution count as one layer
    (Kriman et al. 2020).
    """

    layers = 2

    def __init__(
        self, place: Place, channels: int = 1024, kernel: int = 87, dilation: int = 2
    ) -> None:
        width = place.in_channels
        depthwise = place.conv(width, width, kernel, dilation=dilation, groups=width)
        pointwise1, norm1 = place.conv_norm(width, width, 1)
        pointwise2, norm2 = place.conv_norm(width, channels, 1)
        super().__init__(
            channels,
            depthwise=depthwise,
            pointwise1=pointwise1,
            norm1=norm1,
            act1=place.activation(),
            pointwise2=pointwise2,
            norm2=norm2,
            act2=place.activation(),
        )


class SingleSeparableTail(Tail):
    """A separable convolution to ``channels``, normalised and activated (Citrinet).

    ``attention``, if any, weighs the channels before the activation (Majumdar et al. 2021).
    """

    layers = 1

    def __init__(
        self,
        place: Place,
        channels: int = 640,
        kernel: int = 41,
        attention: Attention | None = None,
    ) -> None:
        width = place.in_channels
        pointwise, norm = place.conv_norm(width, channels, 1)
        super().__init__(
            channels,
            depthwise=place.conv(width, width, kernel, groups=width),
            pointwise=pointwise,
            norm=norm,
            **attended(attention, channels),
            act=place.activation(),
        )
