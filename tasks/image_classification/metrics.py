"""The mistakes that a picture classifier is surest of; other metrics are in `resdomains.classification`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from resdomains.classification import metrics


class Mistakes(metrics.Mistakes):
    """The wrong predictions of the highest confidence, with their pictures.

    Args:
        channels: Of the pictures.
        height: Of the pictures.
        width: Of the pictures.
        keep: How many to keep.
    """

    LONGEST = 96

    def __init__(self, channels: int, height: int, width: int, keep: int = 16) -> None:
        shrink = min(1.0, self.LONGEST / max(height, width))
        shape = (channels, max(1, round(height * shrink)), max(1, round(width * shrink)))
        super().__init__(keep, details=shape[0] * shape[1] * shape[2])
        self.shape = shape

    def update(  # type: ignore[override]  # a picture more
        self, probabilities: Tensor, targets: Tensor, images: Tensor, index: Tensor
    ) -> None:
        """Take (B, K) probabilities, (B,) class numbers, (B, C, H, W) pictures in [0, 1] and (B,) sample numbers."""
        facts, places = self.surest(probabilities, targets, index)
        pictures = images[places].float()
        if pictures.shape[1:] != self.shape:
            pictures = F.interpolate(pictures, self.shape[1:], mode="area")
        self.add(torch.cat((facts, pictures.flatten(1)), 1))
