"""Counter-based random numbers: what a sample draws depends on the seed, the epoch and the sample alone."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Words = npt.NDArray[np.uint64]


def _mix(words: _Words) -> _Words:
    """Apply splitmix64's finaliser (Steele et al. 2014), a bijection of 64-bit words."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def uniforms(seed: int, epoch: int, index: Tensor, draws: int) -> Tensor:
    """Draw `draws` numbers in [0, 1) for each sample.

    The numbers are a hash of (seed, epoch, index, draw): they do not depend on which batch or process a sample falls
    into, nor on what was drawn before, so augmentation is equal for one and for many processes and after a resume.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        index: (B,) integers, each sample's place in its data set.
        draws: How many numbers each sample needs.

    Returns:
        (B, draws) float32 on the CPU.
    """
    words = index.detach().cpu().numpy().astype(np.uint64)
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed], np.uint64) * golden + np.uint64(epoch + 1))
        rows = _mix(words * golden + key)
        cells = _mix(rows[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * golden)
    # 24 bits are all that a float32 in [0, 1) can hold.
    return torch.from_numpy((cells >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))
