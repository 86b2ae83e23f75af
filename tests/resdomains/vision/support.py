"""Picture files that several tests use."""

from pathlib import Path

import numpy as np
from PIL import Image


def save_noise(
    path: Path, height: int = 12, width: int = 10, mode: str = "RGB", seed: int = 0
) -> Path:
    """Write a picture of noise in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)
    return path
