"""The pooled classifier head."""

from __future__ import annotations

from torch import Tensor, nn

from resdomains.core.features import Features
from resdomains.core.masks import mean


class PooledHead(nn.Module):
    """``logits = W dropout(mean(map)) + bias``, the mean over valid positions of the deepest map.

    ``features_channels`` is a network's ``out_channels[-1]``; ``Features`` become ``(B, classes)``.

    Raises:
        ValueError: ``classes`` is below 1.
    """

    def __init__(self, features_channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes: expected at least 1, got {classes}")
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features_channels, classes)

    def embed(self, features: Features) -> Tensor:
        """The pooled deepest map, ``(B, features_channels)``."""
        return mean(features.maps[-1], features.valid[-1])

    def forward(self, features: Features) -> Tensor:
        logits: Tensor = self.linear(self.dropout(self.embed(features)))
        return logits
