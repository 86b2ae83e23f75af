"""Where a part stands and what it may use: what factories receive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from resdomains.core.activations import Activation
from resdomains.core.convolution import Conv
from resdomains.core.norms import Norm


@dataclass(frozen=True)
class Site:
    """Where a merge stands.

    ``width`` is the size of the sum along ``channel_dim`` (1 for maps, -1 for sequences); the
    block is number ``index`` (from 0) of the ``depth`` blocks of its network.
    """

    width: int
    channel_dim: int = 1
    index: int = 0
    depth: int = 1


@dataclass(frozen=True)
class Place:
    """Where a convolutional part stands, with the network's norm and activation.

    ``activated`` says that the input has been normalised and activated already, so that a
    pre-activation branch must not do it again: true of the first block of every stage.
    """

    in_channels: int
    out_channels: int
    norm: Callable[[int], Norm]
    activation: Callable[[], Activation]
    stride: int = 1
    dilation: int = 1
    dims: int = 2
    activated: bool = False
    index: int = 0
    depth: int = 1

    @property
    def keeps_shape(self) -> bool:
        """Whether an identity shortcut fits."""
        return self.in_channels == self.out_channels and self.stride == 1

    @property
    def site(self) -> Site:
        """The same place as a merge sees it."""
        return Site(self.out_channels, 1, self.index, self.depth)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> Conv:
        """A convolution along this place's axes."""
        return Conv(
            in_channels,
            out_channels,
            kernel,
            dims=self.dims,
            stride=stride,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    def conv_norm(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> tuple[Conv, Norm]:
        """A convolution and the norm after it; if the norm is absent the convolution has a bias."""
        norm = self.norm(out_channels)
        conv = self.conv(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            dilation=dilation,
            groups=groups,
            bias=not norm.normalises,
        )
        return conv, norm


@dataclass(frozen=True)
class SequencePlace:
    """Where a part of sequences ``(B, T, D)`` or vectors ``(B, D)`` stands.

    ``width`` is D; ``norm`` and ``activation`` are the network's; the block is number ``index``
    (from 0) of the ``depth`` blocks of its network.
    """

    width: int
    norm: Callable[[int], Norm]
    activation: Callable[[], Activation]
    index: int = 0
    depth: int = 1

    @property
    def site(self) -> Site:
        """The same place as a merge sees it."""
        return Site(self.width, -1, self.index, self.depth)
