"""The mistakes that a picture classifier is surest of; other metrics are in `resdomains.classification`."""

import torch
from torch import Tensor
from torch.nn import functional as F

from resdomains.classification import Exact


class Mistakes(Exact):
    """The wrong predictions of the highest confidence, with their pictures.

    Args:
        channels: Of the pictures.
        height: Of the pictures.
        width: Of the pictures.
        keep: How many to keep.
    """

    rows: Tensor
    LONGEST = 96

    def __init__(self, channels: int, height: int, width: int, keep: int = 16) -> None:
        super().__init__()
        self.keep = keep
        shrink = min(1.0, self.LONGEST / max(height, width))
        self.shape = (channels, max(1, round(height * shrink)), max(1, round(width * shrink)))
        # One state, because rows must stay together when processes are merged. Confidence -1 marks an empty row.
        empty = torch.full((keep, 4 + self.shape[0] * self.shape[1] * self.shape[2]), -1.0)
        self.add_state("rows", empty, dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, targets: Tensor, images: Tensor, index: Tensor) -> None:
        """Take (B, K) probabilities, (B,) class numbers, (B, C, H, W) pictures in [0, 1] and (B,) sample numbers."""
        confidence, predicted = probabilities.max(1)
        wrong = torch.where(predicted == targets, -1.0, confidence)
        found, places = wrong.topk(min(self.keep, len(wrong)))
        pictures = images[places].float()
        if pictures.shape[1:] != self.shape:
            pictures = F.interpolate(pictures, self.shape[1:], mode="area")
        facts = torch.stack(
            (found, targets[places].float(), predicted[places].float(), index[places].float()), 1
        )
        rows = torch.cat((self.rows, torch.cat((facts, pictures.flatten(1)), 1)))
        self.rows = rows[rows[:, 0].topk(self.keep).indices]

    def compute(self) -> Tensor:
        """Return (n, 4 + C H W), n <= keep: confidence, true class, predicted class, sample, and the picture."""
        rows = self.rows.reshape(-1, self.rows.shape[-1])
        rows = rows[rows[:, 0].topk(self.keep).indices]
        return rows[rows[:, 0] >= 0]
