"""Feature pyramids: maps of one width at several strides, each with the meaning of the deepest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core.convolution import Conv
from resdomains.core.norms import NoNorm, Norm
from resdomains.core.parts import Chain


class CoarserLevels(nn.Module):
    """The contract of what adds levels below a pyramid's deepest map, each of twice the stride.

    Built by a factory of the channels of the network's deepest map, those of the pyramid, and the
    number of levels to add, at least 1.
    """

    def forward(self, deepest: Tensor, last: Tensor) -> list[Tensor]:
        """The levels that follow; ``deepest`` is the network's map, ``last`` the pyramid's."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(deepest, last)")


class _Strided(CoarserLevels):
    """``next = conv(max(previous, 0))``, 3x3 of stride 2, the first one without the maximum."""

    def __init__(self, in_channels: int, channels: int, count: int) -> None:
        super().__init__()
        widths = [in_channels, *[channels] * (count - 1)]
        self.convs = nn.ModuleList(
            _linear(Conv(w, channels, 3, stride=2, bias=True)) for w in widths
        )

    def _levels(self, x: Tensor) -> list[Tensor]:
        levels: list[Tensor] = []
        for conv in self.convs:
            x = conv(F.relu(x) if levels else x)
            levels.append(x)
        return levels


class StridedFromPyramid(_Strided):
    """Strided 3x3 convolutions of the pyramid's last map (P6 and P7 of FCOS: Tian et al. 2019)."""

    def __init__(self, in_channels: int, channels: int, count: int) -> None:
        super().__init__(channels, channels, count)

    def forward(self, deepest: Tensor, last: Tensor) -> list[Tensor]:
        return self._levels(last)


class StridedFromNetwork(_Strided):
    """Strided 3x3 convolutions of the network's deepest map (RetinaNet: Lin et al. 2017)."""

    def forward(self, deepest: Tensor, last: Tensor) -> list[Tensor]:
        return self._levels(deepest)


class FeaturePyramid(nn.Module):
    """``p_i = output_i(m_i)`` with ``m_i = lateral_i(c_i) + upsample(m_{i+1})`` (Lin et al. 2017).

    The maps ``c_i`` are a network's, finest first, with ``in_channels``; laterals are 1x1 and outputs
    3x3 convolutions to ``channels``, each with a norm where ``norm`` is one (torchvision has none;
    from scratch, group norm trains better). Upsampling repeats the nearest value. ``extra`` levels
    follow, made by ``coarser``.

    Raises:
        ValueError: ``in_channels`` is empty, ``channels`` is below 1 or ``extra`` below 0.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        extra: int = 0,
        norm: Callable[[int], Norm] = NoNorm,
        coarser: Callable[[int, int, int], CoarserLevels] = StridedFromPyramid,
    ) -> None:
        super().__init__()
        if not in_channels:
            raise ValueError("in_channels: expected the channels of at least one map, got none")
        if channels < 1:
            raise ValueError(f"channels: expected at least 1, got {channels}")
        if extra < 0:
            raise ValueError(f"extra: expected 0 or more levels, got {extra}")
        self.channels = channels
        self.laterals = nn.ModuleList(_conv_norm(width, channels, 1, norm) for width in in_channels)
        self.outputs = nn.ModuleList(_conv_norm(channels, channels, 3, norm) for _ in in_channels)
        # Not a part that adds none: a network without it holds no weights that nobody uses.
        self.coarser = coarser(in_channels[-1], channels, extra) if extra else None

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The levels ``(B, channels, H_i, W_i)``, finest first, of maps ``(B, C_i, H_i, W_i)``."""
        x = self.laterals[-1](maps[-1])
        levels = [self.outputs[-1](x)]
        for i in range(len(maps) - 2, -1, -1):
            lateral = self.laterals[i](maps[i])
            x = lateral + F.interpolate(x, size=lateral.shape[-2:], mode="nearest")
            levels.insert(0, self.outputs[i](x))
        if self.coarser is not None:
            levels += self.coarser(maps[-1], levels[-1])
        return levels


def _conv_norm(in_channels: int, channels: int, kernel: int, norm: Callable[[int], Norm]) -> Chain:
    after = norm(channels)
    conv = Conv(in_channels, channels, kernel, bias=not after.normalises)
    return Chain(conv=_linear(conv), norm=after)


@torch.no_grad()
def _linear(conv: Conv) -> Conv:
    """Starts the weights for a map that no activation follows: variance 1 / fan in."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return conv
