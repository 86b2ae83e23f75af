"""Ground for composed scenes: procedural textures in colour.

Only the generator's uniform numbers, exact arithmetic and PIL's resizing of 8-bit pictures (in integers) are used, so
that every machine draws the same.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float32]

LUMA = np.array((0.299, 0.587, 0.114))
"""How bright red, green and blue are (ITU-R BT.601)."""


def colour(rng: np.random.Generator, brightness: float, vivid: float) -> Field:
    """Return a random colour, red, green, blue in [0, 1].

    Args:
        rng: Where random numbers come from.
        brightness: Its brightness in [0, 1].
        vivid: How far it may be from grey, in [0, 1].
    """
    tint = rng.random(3)
    tint -= tint @ LUMA
    # As much of the tint as keeps every channel in [0, 1].
    room = np.where(tint > 0, 1.0 - brightness, brightness) / np.maximum(np.abs(tint), 1e-6)
    found: Field = (brightness + tint * min(vivid, room.min())).astype(np.float32)
    return found


def clouds(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return smooth noise of several scales."""
    cell = 0.5 * max(height, width) * (0.3 + 0.7 * rng.random())
    total, weight, weights = np.zeros((height, width), np.float32), 1.0, 0.0
    for _ in range(4):
        total += weight * _noise(rng, height, width, cell)
        weights += weight
        cell, weight = cell * 0.45, weight * 0.6
    return total / np.float32(weights)


def gradient(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return a slope from one side to the other, or around a point."""
    if rng.random() < 0.5:
        slope = _along(rng, height, width, max(height, width))
        slope -= slope.min()
        return slope / np.float32(slope.max() + 1e-6)
    y, x = (rng.random(2) * (height, width)).astype(np.float32)
    square = (np.arange(height, dtype=np.float32) - y)[:, None] ** 2 + (
        np.arange(width, dtype=np.float32) - x
    ) ** 2
    distance: Field = np.sqrt(square / square.max())
    return distance


def stripes(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return waves, bent like the grain of wood."""
    bend = 3.0 * rng.random()
    period = 6.0 + 26.0 * rng.random()
    phase = _along(rng, height, width, period)
    return _wave(phase + np.float32(bend) * clouds(rng, height, width))


def tiles(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return squares of a board, each with a shade of its own."""
    size = 8.0 + 24.0 * rng.random()
    start = rng.random(2)
    y = (np.arange(height) / size + start[0]).astype(int)
    x = (np.arange(width) / size + start[1]).astype(int)
    shades = rng.random((int(height / size) + 2, int(width / size) + 2), np.float32)
    found: Field = shades[y[:, None], x]
    return found


def speckle(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return blots scattered over even ground."""
    noise = _noise(rng, height, width, 2.0 + 5.0 * rng.random())
    steep = (noise - np.float32(0.62)) * np.float32(6.0)
    return _smooth(np.clip(steep, 0.0, 1.0))


TEXTURES: tuple[Callable[[np.random.Generator, int, int], Field], ...] = (
    clouds,
    gradient,
    stripes,
    tiles,
    speckle,
)


def ground(
    rng: np.random.Generator, height: int, width: int, brightness: float, contrast: float
) -> Field:
    """Return textured ground: two random textures one over the other between two random colours, and grain.

    Args:
        rng: Where random numbers come from.
        height: Pixels.
        width: Pixels.
        brightness: Of the middle between both colours, in [0, 1].
        contrast: How far either colour is from that; the grain adds at most a quarter of it.

    Returns:
        (H, W, 3) in [0, 1].
    """
    first, second = (TEXTURES[int(rng.random() * len(TEXTURES))] for _ in range(2))
    share = np.float32(0.4 + 0.6 * rng.random())
    mixed = share * first(rng, height, width)
    mixed += (1 - share) * second(rng, height, width)
    vivid = rng.random()
    low = colour(rng, brightness - contrast, vivid)
    high = colour(rng, brightness + contrast, vivid)
    if rng.random() < 0.5:
        low, high = high, low
    pixels = low + mixed[..., None] * (high - low)
    grain = rng.random((height, width, 1), np.float32) - np.float32(0.5)
    pixels += np.float32(0.5 * contrast * rng.random()) * grain
    return np.clip(pixels, 0.0, 1.0, out=pixels)


def _noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Field:
    """Return smooth noise in [0, 1] that changes over about `cell` pixels."""
    shape = int(height / cell) + 2, int(width / cell) + 2
    coarse = (rng.random(shape) * 256).astype(np.uint8)
    fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float32) / np.float32(255.0)


def _along(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    """Return how many periods each pixel lies from the upper left one, in a random direction."""
    y, x = rng.random(2) * 2.0 - 1.0
    length = period * max(float(np.sqrt(y * y + x * x)), 1e-3)
    down = (np.arange(height) * (y / length)).astype(np.float32)
    phase: Field = down[:, None] + (np.arange(width) * (x / length)).astype(np.float32)
    return phase


def _wave(phase: Field) -> Field:
    """Return a smooth wave in [0, 1] of period 1."""
    return _smooth(np.abs(2 * (phase - np.floor(phase)) - 1))


def _smooth(x: Field) -> Field:
    return x * x * (3 - 2 * x)
