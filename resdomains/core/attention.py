"""Attention over channels, at the end of a convolutional branch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core.masks import Valid, mean
from resdomains.core.parts import Part


class ChannelAttention(Part):
    """The contract: weighs the channels of ``(B, C, H, W)`` and keeps the shape."""


Attention = Callable[[int], ChannelAttention]
"""Builds attention over so many channels."""


class SqueezeExcitation(ChannelAttention):
    """``x sigmoid(W2 relu(W1 mean(x)))``, the mean over valid positions (Hu et al. 2018).

    The hidden width is ``ratio * channels``, rounded to a multiple of 8.
    """

    def __init__(self, channels: int, ratio: float = 1 / 16) -> None:
        super().__init__()
        hidden = max(8, int(channels * ratio + 4) // 8 * 8)
        if hidden < 0.9 * channels * ratio:  # rounding down must not take away over a tenth
            hidden += 8
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(mean(x, valid)))))
        return x * gate[:, :, None, None]


def attended(attention: Attention | None, channels: int) -> dict[str, nn.Module]:
    """The part of a chain that weighs its channels, if there is one."""
    return {"attention": attention(channels)} if attention else {}
