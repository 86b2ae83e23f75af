"""What carries a block's input past its branch.

A network takes two factories ``Callable[[Place], Shortcut]``: one for the blocks that change the
shape, one for those that keep it. Maps are ``(B, C, H, W)``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core.convolution import AveragePool, extent
from resdomains.core.masks import Valid, advance
from resdomains.core.parts import Bare, Chain, Part
from resdomains.core.place import Place


class Shortcut(Chain):
    """The contract: maps ``place.in_channels`` to ``place.out_channels`` and applies the stride."""


class Identity(Shortcut):
    """``s = x``. The place's stride and widths are the caller's matter."""

    def __init__(self, place: Place) -> None:
        super().__init__()


class ConstantScaling(Shortcut):
    """``s = scale x``, one of the shortcuts that He et al. 2016 found worse than the identity."""

    fresh = True  # a chain's would follow from its parts, and it has none

    def __init__(self, place: Place, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return x * self.scale

    def extra_repr(self) -> str:
        return f"{self.scale}"


class DropoutShortcut(Shortcut):
    """``s = dropout(x)``, one of the shortcuts that He et al. 2016 found worse than the identity."""

    def __init__(self, place: Place, p: float = 0.5) -> None:
        super().__init__(dropout=nn.Dropout(p))


class Projection(Shortcut):
    """``s = norm(W x)``, a 1x1 convolution with the block's stride (He et al. 2015, option B)."""

    def __init__(self, place: Place) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, 1, stride=place.stride)
        super().__init__(conv=conv, norm=norm)


class BareProjection(Shortcut):
    """``s = W x`` without a norm, as pre-activation networks have it (He et al. 2016)."""

    def __init__(self, place: Place) -> None:
        super().__init__(
            conv=place.conv(place.in_channels, place.out_channels, 1, stride=place.stride)
        )


class PooledProjection(Shortcut):
    """``s = norm(W pool(x))``: averages where others skip positions (ResNet-D, He et al. 2019)."""

    def __init__(self, place: Place) -> None:
        conv, norm = place.conv_norm(place.in_channels, place.out_channels, 1)
        pool: Part = AveragePool(place.dims, place.stride) if place.stride > 1 else Bare()
        super().__init__(pool=pool, conv=conv, norm=norm)


class ZeroPad(Shortcut):
    """``s`` = every ``stride``-th position of ``x``, new channels zero (He et al. 2015, option A).

    Raises:
        ValueError: the block has fewer channels than its input.
    """

    fresh = True  # a chain's would follow from its parts, and it has none

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.extra = place.out_channels - place.in_channels
        if self.extra < 0:
            raise ValueError(
                f"shortcut=ZeroPad can add channels only, but a block maps {place.in_channels} to "
                f"{place.out_channels} channels; use Projection"
            )
        self.stride = extent(place.stride, place.dims)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        rows, columns = self.stride
        return F.pad(x[:, :, ::rows, ::columns], (0, 0, 0, 0, 0, self.extra))

    def advance(self, valid: Valid | None) -> Valid | None:
        return advance(valid, 1, self.stride[1], 0)
