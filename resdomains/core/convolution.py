"""Convolutions and pools along two axes, or along the last one alone (``dims=1``).

One-dimensional maps are ``(B, C, 1, L)``: a kernel of 3 is ``(1, 3)`` there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core.depthwise import depthwise, quick
from resdomains.core.masks import Valid, advance, average_pool, hide, max_pool
from resdomains.core.parts import Part


def extent(size: int, dims: int, rest: int = 1) -> tuple[int, int]:
    """``(size, size)`` in two dimensions, ``(rest, size)`` in one."""
    return (size, size) if dims == 2 else (rest, size)


class Conv(nn.Conv2d, Part):
    """A convolution that keeps the size at stride 1 and reads zeros beyond the valid positions.

    Weights start as He et al. 2015 (fan out, ReLU), a bias at zero.

    Raises:
        ValueError: ``kernel`` is even, or ``groups`` does not divide both channel counts.
    """

    fresh = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        dims: int = 2,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"kernel: expected an odd number, so that the map keeps its size, got {kernel}"
            )
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: expected a divisor of in_channels={in_channels} and "
                f"out_channels={out_channels}, got {groups}"
            )
        super().__init__(
            in_channels,
            out_channels,
            extent(kernel, dims),
            extent(stride, dims),
            extent(dilation * (kernel - 1) // 2, dims, rest=0),
            extent(dilation, dims),
            groups,
            bias,
        )
        self._mixes = kernel > 1
        # oneDNN corrupts memory in the backward pass of such a convolution over channels_last maps
        # (github.com/uxlfoundation/oneDNN/issues/6035: 1x1, strided, fewer channels than a vector
        # holds; torch 2.11 crashed below 16). Skipping positions first computes the same.
        self._thins = kernel == 1 and stride > 1 and in_channels // groups < 16
        # One filter a channel, along one axis: torch's own code is slow for more than 3 taps.
        self._lean = (
            dims == 1 and stride == 1 and kernel > 3 and in_channels == groups == out_channels
        )
        # channels_last is the fast layout. Gradients come in its strides also where the order of the
        # values is the same without (depthwise), and DDP warns when strides differ.
        if kernel > 1:
            last = torch.empty_like(self.weight, memory_format=torch.channels_last)
            self.weight.data = last.copy_(self.weight.data)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        if self._mixes:
            x = hide(x, valid)
        if self._lean and quick(x, self.kernel_size[1]):
            return depthwise(x, self.weight, self.bias, self.dilation[1])
        stride = self.stride
        if self._thins:
            x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
        return F.conv2d(x, self.weight, self.bias, stride, self.padding, self.dilation, self.groups)

    def advance(self, valid: Valid | None) -> Valid | None:
        # nn.Conv2d types padding as str | tuple; __init__ above passes a tuple.
        return advance(
            valid,
            self.kernel_size[1],
            self.stride[1],
            int(self.padding[1]),
            self.dilation[1],
        )

    def silence(self) -> bool:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        return True


class MaxPool(Part):
    """The maximum of windows that overlap: kernel 3, stride 2 unless told otherwise."""

    def __init__(self, dims: int, kernel: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.kernel = extent(kernel, dims)
        self.stride = extent(stride, dims)
        self.padding = extent((kernel - 1) // 2, dims, rest=0)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        y = max_pool(x, valid, self.kernel, self.stride, self.padding)
        # A window of padding alone has the maximum -inf, and 0 times that is no gradient of 0.
        return hide(y, self.advance(valid))

    def advance(self, valid: Valid | None) -> Valid | None:
        return advance(valid, self.kernel[1], self.stride[1], self.padding[1])


class AveragePool(Part):
    """The mean of windows side by side; the last one may be smaller."""

    def __init__(self, dims: int, stride: int) -> None:
        super().__init__()
        self.kernel = extent(stride, dims)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return average_pool(x, valid, self.kernel)

    def advance(self, valid: Valid | None) -> Valid | None:
        return advance(valid, self.kernel[1], self.kernel[1], 0, ceil=True)
