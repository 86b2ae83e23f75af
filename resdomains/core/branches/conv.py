"""Convolutional branches along one axis or two; the place says which.

A network takes a factory ``Callable[[Place], Branch]``. Branches map ``(B, in_channels, H, W)`` to
``(B, out_channels, H / stride, W / stride)``; in one dimension H is 1 and stays 1.
"""

from __future__ import annotations

from torch import nn

from resdomains.core.afters import Activated, After, NormActivated, Nothing
from resdomains.core.attention import Attention, attended
from resdomains.core.parts import Chain, Part
from resdomains.core.place import Place


class Branch(Chain):
    """The contract of a convolutional branch; ``layers`` counts the weighted layers on its way."""

    layers: int

    def after(self, place: Place) -> After:
        """What follows the sum, unless the network is told otherwise."""
        return Activated(place)

    def finish(self, place: Place) -> After:
        """What ends a stage of such blocks."""
        return Nothing(place)


class PreActivation(Branch):
    """The contract of a branch that normalises and activates before it convolves (He et al. 2016).

    The first norm and activation of a stage stand before the split into shortcut and branch, as in
    the paper: the stem and the end of each stage have them, and nothing follows a sum.
    """

    def after(self, place: Place) -> After:
        return Nothing(place)

    def finish(self, place: Place) -> After:
        return NormActivated(place)


class Basic(Branch):
    """``norm(conv(act(norm(conv(x)))))``, both of ``kernel`` (He et al. 2015).

    ``dropout`` stands between the convolutions (Zagoruyko & Komodakis 2016).
    """

    layers = 2

    def __init__(
        self,
        place: Place,
        kernel: int = 3,
        dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        width = place.out_channels
        conv1, norm1 = place.conv_norm(
            place.in_channels,
            width,
            kernel,
            stride=place.stride,
            dilation=place.dilation,
        )
        conv2, norm2 = place.conv_norm(width, width, kernel, dilation=place.dilation)
        super().__init__(
            conv1=conv1,
            norm1=norm1,
            act1=place.activation(),
            **_dropout(dropout),
            conv2=conv2,
            norm2=norm2,
            **attended(attention, width),
        )


class Bottleneck(Branch):
    """1x1 down, ``kernel`` at the inner width, 1x1 up, a norm after each (He et al. 2015).

    The inner width is ``out_channels / 4 * width_per_group / 64 * groups``: 64 per group and one
    group is ResNet, 128 wide ResNet, 4 and 32 groups ResNeXt (Xie et al. 2017). The stride is the
    middle convolution's.

    Raises:
        ValueError: the inner width is not a whole number.
    """

    layers = 3

    def __init__(
        self,
        place: Place,
        kernel: int = 3,
        groups: int = 1,
        width_per_group: int = 64,
        dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        width = _inner_width(place.out_channels, groups, width_per_group)
        conv1, norm1 = place.conv_norm(place.in_channels, width, 1)
        conv2, norm2 = place.conv_norm(
            width,
            width,
            kernel,
            stride=place.stride,
            dilation=place.dilation,
            groups=groups,
        )
        conv3, norm3 = place.conv_norm(width, place.out_channels, 1)
        super().__init__(
            conv1=conv1,
            norm1=norm1,
            act1=place.activation(),
            conv2=conv2,
            norm2=norm2,
            act2=place.activation(),
            **_dropout(dropout),
            conv3=conv3,
            norm3=norm3,
            **attended(attention, place.out_channels),
        )


class PreActivationBasic(PreActivation):
    """``conv(act(norm(conv(act(norm(x))))))`` (He et al. 2016)."""

    layers = 2

    def __init__(
        self,
        place: Place,
        kernel: int = 3,
        dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        width = place.out_channels
        conv1, norm2 = place.conv_norm(
            place.in_channels,
            width,
            kernel,
            stride=place.stride,
            dilation=place.dilation,
        )
        super().__init__(
            **_lead(place),
            conv1=conv1,
            norm2=norm2,
            act2=place.activation(),
            **_dropout(dropout),
            conv2=place.conv(width, width, kernel, dilation=place.dilation),
            **attended(attention, width),
        )


class PreActivationBottleneck(PreActivation):
    """The bottleneck with norm and activation before each convolution (He et al. 2016).

    Widths as in ``Bottleneck``.

    Raises:
        ValueError: the inner width is not a whole number.
    """

    layers = 3

    def __init__(
        self,
        place: Place,
        kernel: int = 3,
        groups: int = 1,
        width_per_group: int = 64,
        dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        width = _inner_width(place.out_channels, groups, width_per_group)
        conv1, norm2 = place.conv_norm(place.in_channels, width, 1)
        conv2, norm3 = place.conv_norm(
            width,
            width,
            kernel,
            stride=place.stride,
            dilation=place.dilation,
            groups=groups,
        )
        super().__init__(
            **_lead(place),
            conv1=conv1,
            norm2=norm2,
            act2=place.activation(),
            conv2=conv2,
            norm3=norm3,
            act3=place.activation(),
            **_dropout(dropout),
            conv3=place.conv(width, place.out_channels, 1),
            **attended(attention, place.out_channels),
        )


class ActivationFirst(Branch):
    """``norm(conv(act(norm(conv(act(x))))))``, every block activating its own input.

    The "ReLU-only pre-activation" of He et al. 2016; without norms, the block of IMPALA
    (Espeholt et al. 2018). Nothing follows a sum or ends a stage.
    """

    layers = 2

    def __init__(
        self,
        place: Place,
        kernel: int = 3,
        dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        width = place.out_channels
        act1 = place.activation()
        act1.inplace = False  # the shortcut reads the same input
        conv1, norm1 = place.conv_norm(
            place.in_channels,
            width,
            kernel,
            stride=place.stride,
            dilation=place.dilation,
        )
        conv2, norm2 = place.conv_norm(width, width, kernel, dilation=place.dilation)
        super().__init__(
            act1=act1,
            conv1=conv1,
            norm1=norm1,
            act2=place.activation(),
            **_dropout(dropout),
            conv2=conv2,
            norm2=norm2,
            **attended(attention, width),
        )

    def after(self, place: Place) -> After:
        return Nothing(place)


class Separable(Branch):
    """``repeats`` times depthwise ``kernel``, pointwise, norm; activations between (QuartzNet).

    Depthwise and pointwise convolution count as one layer (Kriman et al. 2020).

    Raises:
        ValueError: ``repeats`` is below 1.
    """

    def __init__(
        self,
        place: Place,
        kernel: int = 3,
        repeats: int = 2,
        dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        if repeats < 1:
            raise ValueError(f"repeats: expected at least 1, got {repeats}")
        parts: dict[str, nn.Module] = {}
        width = place.in_channels
        for number in range(1, repeats + 1):
            parts[f"depthwise{number}"] = place.conv(
                width,
                width,
                kernel,
                stride=place.stride if number == 1 else 1,
                dilation=place.dilation,
                groups=width,
            )
            pointwise, norm = place.conv_norm(width, place.out_channels, 1)
            parts[f"pointwise{number}"] = pointwise
            parts[f"norm{number}"] = norm
            if number < repeats:
                parts[f"act{number}"] = place.activation()
                if dropout:
                    parts[f"dropout{number}"] = nn.Dropout(dropout)
            width = place.out_channels
        super().__init__(**parts, **attended(attention, width))
        self.layers = repeats


def _inner_width(out_channels: int, groups: int, width_per_group: int) -> int:
    width, rest = divmod(out_channels * width_per_group * groups, 4 * 64)
    if rest or not width:
        raise ValueError(
            f"width_per_group: out_channels / 4 * width_per_group / 64 * groups must be a whole "
            f"number, got {out_channels} / 4 * {width_per_group} / 64 * {groups} = "
            f"{out_channels * width_per_group * groups / 256:g}"
        )
    return width


def _lead(place: Place) -> dict[str, Part]:
    """The norm and activation that begin a pre-activation branch, if the input needs them."""
    if place.activated:
        return {}
    norm, act = place.norm(place.in_channels), place.activation()
    # Without a norm the activation reads the block's own input, which the shortcut reads too.
    act.inplace = norm.normalises
    return {"norm1": norm, "act1": act}


def _dropout(p: float) -> dict[str, nn.Module]:
    return {"dropout": nn.Dropout(p)} if p else {}
