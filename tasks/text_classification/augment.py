"""Augmentation of whole batches of tokens on the device that computes, from counter-based random numbers.

A data module calls the parts in order in `transform`, in training only, each with its own `draws` numbers for every
position: `uniforms(seed, epoch, index, total * T)` viewed as (B, T, total), of which a part gets a slice along the
last axis. What happens to a text then depends on the seed, the epoch and the text alone, not on its batch, its
process or the padding.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Augment(ABC):
    """One random change of a batch of tokens, which keeps their number; it needs `draws` numbers a position."""

    draws: int

    @abstractmethod
    def __call__(self, ids: Tensor, lengths: Tensor, u: Tensor) -> Tensor:
        """Change a batch.

        Args:
            ids: (B, T), or (B, 2, T) with the number of the text, 0 or 1, in the second row; not changed in place.
            lengths: (B,), the tokens of each item; what follows them is padding.
            u: (B, T, draws) in [0, 1), on the CPU.

        Returns:
            The ids, same shape and type.
        """


class TokenDropout(Augment):
    """Replace random tokens by one that says nothing, as words are dropped in Iyyer et al. 2015.

    Args:
        probability: Share of the tokens that are replaced.
        replacement: The id that takes their place: 1 is the unknown token of all kinds but a pretrained one's.
        spared: Ids up to this one stay: 0 for the padding and none else; 3 spares all special tokens of word pieces.

    Raises:
        ValueError: If the probability leaves [0, 1), or an id is negative.
    """

    draws = 1

    def __init__(self, probability: float = 0.1, replacement: int = 1, spared: int = 0) -> None:
        if not 0.0 <= probability < 1.0:
            raise ValueError(f"probability must lie in [0, 1), got {probability}")
        for name, value in (("replacement", replacement), ("spared", spared)):
            if value < 0:
                raise ValueError(f"{name} must be an id, 0 or above, got {value}")
        self.probability, self.replacement, self.spared = probability, replacement, spared

    def __call__(self, ids: Tensor, lengths: Tensor, u: Tensor) -> Tensor:
        tokens = ids if ids.ndim == 2 else ids[:, 0]
        chosen = (u[:, :, 0] < self.probability).to(ids.device, non_blocking=True)
        inside = torch.arange(ids.shape[-1], device=ids.device) < lengths[:, None]
        replaced = tokens.masked_fill(chosen & inside & (tokens > self.spared), self.replacement)
        return replaced if ids.ndim == 2 else torch.stack((replaced, ids[:, 1]), 1)
