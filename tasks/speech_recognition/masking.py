"""Masking of features in training."""

import torch
from torch import Tensor, nn

from resdomains.training.randomness import draws

# Sets these numbers apart from those that the augmentation of samples draws from the same keys.
_STREAM = 0x5350454341554746


class SpecAugment(nn.Module):
    """Hide random stretches of time and of frequency: set them to 0, the mean after normalisation (Park et al. 2019).

    The width of each mask is uniform from 0 to the widest, its place uniform where it fits. Widths in time are shares
    of an item's own frames (Park et al. 2020), so that short items keep as large a part as long ones. Masks may
    overlap. What is hidden depends on the item's key and frames alone.

    Args:
        time_masks: Stretches of time.
        time_width: The widest one, as a share of the item's frames.
        frequency_masks: Stretches of frequency.
        frequency_width: The widest one, in channels.

    Raises:
        ValueError: If a number is out of range, or the masks together could hide all of an item.
    """

    def __init__(
        self,
        time_masks: int = 2,
        time_width: float = 0.05,
        frequency_masks: int = 2,
        frequency_width: int = 15,
    ) -> None:
        super().__init__()
        for name, value in (
            ("time_masks", time_masks),
            ("frequency_masks", frequency_masks),
            ("frequency_width", frequency_width),
        ):
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if not 0.0 <= time_width < 1.0:
            raise ValueError(
                f"time_width is a share of the frames and must lie in [0, 1), got {time_width:g}"
            )
        if time_masks * time_width >= 1.0:
            raise ValueError(
                f"{time_masks} time_masks of time_width {time_width:g} could hide all of an item; "
                "their product must be below 1"
            )
        self.time_masks, self.time_width = time_masks, time_width
        self.frequency_masks, self.frequency_width = frequency_masks, frequency_width

    def check(self, channels: int) -> None:
        """Refuse features of too few channels.

        Raises:
            ValueError: If the masks together could hide all of them.
        """
        if self.frequency_masks * self.frequency_width >= channels:
            raise ValueError(
                f"{self.frequency_masks} frequency_masks of frequency_width {self.frequency_width} could hide all "
                f"{channels} channels; their product must be below {channels}"
            )

    def forward(self, x: Tensor, lengths: Tensor, keys: Tensor) -> Tensor:
        """Mask a batch.

        Args:
            x: (B, C, T) features; not changed in place.
            lengths: (B,) frames of each item.
            keys: (B,) integers of `resdomains.training.randomness.keys`.

        Returns:
            The masked features, same shape and type.

        Raises:
            ValueError: If the masks together could hide all channels.
        """
        channels = x.shape[1]
        self.check(channels)
        u = draws(keys ^ _STREAM, 2 * (self.time_masks + self.frequency_masks)).to(x.device)
        time, frequency = u[:, : 2 * self.time_masks], u[:, 2 * self.time_masks :]
        frames = lengths[:, None]
        hidden = _stretches(time, frames, (self.time_width * frames).long(), x.shape[2])
        size = torch.full_like(frames, channels)
        bands = _stretches(frequency, size, torch.full_like(size, self.frequency_width), channels)
        return x.masked_fill(hidden[:, None] | bands[:, :, None], 0.0)


def _stretches(u: Tensor, size: Tensor, widest: Tensor, positions: int) -> Tensor:
    """Return (B, positions), True inside any stretch.

    Args:
        u: (B, 2 N) uniform numbers: of the widths, then of the places of N stretches.
        size: (B, 1) positions of each item.
        widest: (B, 1), below `size`.
        positions: Positions of the batch.
    """
    for_width, for_place = u.chunk(2, 1)
    # Below 1 though u is, its product can be rounded up to the next whole number.
    width = (for_width * (widest + 1)).long().minimum(widest)
    start = (for_place * (size - width + 1)).long().minimum(size - width)
    place = torch.arange(positions, device=u.device)
    inside = (place >= start[:, :, None]) & (place < (start + width)[:, :, None])
    return inside.any(1)
