"""Self-attention over the positions of each item."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.linear import Dropout, Linear
from resdomains.core.linear import dropout as drop
from resdomains.core.masks import Valid, pack, readable, unpack
from resdomains.core.place import SequencePlace
from resdomains.core.positions import AttentionPositions, PositionFree


class SelfAttention(SequenceBranch):
    """``dropout(W softmax(q k^T / sqrt(d) + bias) v)`` in each of ``heads`` heads (Vaswani et al. 2017).

    Positions are read by valid positions of the same item alone. ``qkv`` holds the maps of queries,
    keys and values one below the other. ``attention_dropout`` acts on what the softmax gives,
    ``dropout`` on the output.

    Raises:
        ValueError: ``heads`` does not divide the width.
    """

    def __init__(
        self,
        place: SequencePlace,
        heads: int = 8,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        positions: Callable[[int, int], AttentionPositions] = PositionFree,
    ) -> None:
        width = place.width
        if heads < 1 or width % heads:
            raise ValueError(f"heads: expected a divisor of the width {width}, got {heads}")
        super().__init__()
        self.qkv = Linear(width, 3 * width, maps=3)
        self.out = Linear(width, width)
        self.dropout = Dropout(dropout)
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.positions = positions(heads, width // heads)

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        """``(B, T, D)``, or rows ``(N, D)`` with ``valid``.

        Raises:
            ValueError: ``x`` holds vectors, which have no positions to attend to.
        """
        qkv: Tensor = unpack(self.qkv(x), valid)
        if qkv.dim() != 3:
            raise ValueError(
                f"x: SelfAttention expected sequences (B, T, D), got {tuple(x.shape)}; vectors "
                f"have no positions, use FeedForward"
            )
        q, k, v = qkv.view(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, bias = self.positions(q, k)
        p = self.attention_dropout if self.training else 0.0
        y = attend(q, k, v, readable(bias, valid), p)
        y = pack(y.transpose(1, 2).flatten(2), valid)
        out: Tensor = self.dropout(self.out(y))
        return out

    def silence(self) -> bool:
        return self.out.silence()

    @torch.no_grad()
    def attenuate(self, gain: float) -> None:
        """Scales values and output alone: scores would lose their sharpness (Wang et al. 2022)."""
        self.qkv.weight.chunk(3)[2].mul_(gain)
        self.out.attenuate(gain)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, attention_dropout={self.attention_dropout}"


# Up to so many positions torch's fused attention is the slower one on the CPU, above it saves memory.
_SHORT = 256


def attend(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, p: float) -> Tensor:
    """``dropout(softmax(q k^T / sqrt(d) + added)) v`` for ``(B, H, T, d)``.

    ``added`` may be a mask, True = may be read. The same as ``scaled_dot_product_attention``, which
    computes it but for short sequences on the CPU: written out, a training step at 50 positions in
    bfloat16 took a quarter of the time (AMD, torch 2.11), with dropout, which has no fused form
    there, half of it at any length.
    """
    fused = not p and q.shape[-2] > _SHORT
    if fused or q.device.type != "cpu" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, added, p)
    scores = q / math.sqrt(q.shape[-1]) @ k.mT
    if added is not None:
        if added.dtype == torch.bool:  # filling scores would fill their gradients too
            added = q.new_zeros(added.shape).masked_fill_(~added, -torch.inf)
        scores = scores.add_(added)
    weights = scores.softmax(-1)
    return (drop(weights, p) if p else weights) @ v
