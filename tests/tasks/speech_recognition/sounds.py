"""Sound files that tests write."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile


def noise(
    seconds: float, rate: int = 8000, channels: int = 1, seed: int = 0
) -> npt.NDArray[np.float32]:
    """(L, channels) float32 in [-0.5, 0.5]."""
    draw = np.random.default_rng(seed)
    return draw.uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype(np.float32)


def save_noise(
    path: Path,
    seconds: float = 0.5,
    rate: int = 8000,
    channels: int = 1,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Write noise in the format that the suffix, or `format`, says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, rate, channels, seed), rate, **options)
    return path


def save_values(path: Path, values: npt.NDArray[np.float32], rate: int = 8000) -> Path:
    """Write a WAV of 32-bit floats, which may be no numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, subtype="FLOAT")
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    """Leave the first part of a file's bytes."""
    whole = path.read_bytes()
    path.write_bytes(whole[: round(len(whole) * share)])
    return path
