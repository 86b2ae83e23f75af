"""Counter-based random numbers: what a sample draws depends on the seed, the epoch and the sample alone."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Words = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(words: _Words) -> _Words:
    """Apply splitmix64's finaliser (Steele et al. 2014), a bijection of 64-bit words."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def keys(seed: int, epoch: int, index: Tensor) -> Tensor:
    """Give each sample of an epoch a number of its own, from which `draws` makes random ones.

    A hash of (seed, epoch, index): it does not depend on which batch or process a sample falls into.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        index: (B,) integers, each sample's place in its data set.

    Returns:
        (B,) integers on the CPU.
    """
    words = index.detach().cpu().numpy().astype(np.uint64)
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed], np.uint64) * _GOLDEN + np.uint64(epoch + 1))
        rows = _mix(words * _GOLDEN + key)
    return torch.from_numpy(rows.view(np.int64))


def draws(keys: Tensor, count: int) -> Tensor:
    """Draw `count` numbers in [0, 1) for each key.

    Args:
        keys: (B,) integers of `keys`.
        count: How many numbers each sample needs.

    Returns:
        (B, count) float32 on the CPU.
    """
    rows = keys.detach().cpu().numpy().view(np.uint64)
    with np.errstate(over="ignore"):
        cells = _mix(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    # 24 bits are all that a float32 in [0, 1) can hold.
    return torch.from_numpy((cells >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))


def uniforms(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Draw `count` numbers in [0, 1) for each sample.

    The numbers are a hash of (seed, epoch, index, draw): they do not depend on which batch or process a sample falls
    into, nor on what was drawn before, so augmentation is equal for one and for many processes and after a resume.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        index: (B,) integers, each sample's place in its data set.
        count: How many numbers each sample needs.

    Returns:
        (B, count) float32 on the CPU.
    """
    return draws(keys(seed, epoch, index), count)
