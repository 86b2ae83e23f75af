"""Augmentation of whole batches on the device that computes, from counter-based random numbers.

Each part is given its own uniform numbers for every sample, so that what happens to a sample depends on the seed, the
epoch and the sample alone, not on its batch or process. Mixup and CutMix are the exception: a sample is mixed with
its neighbour in the batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Stage = Literal["pixels", "normalised"]


class Augment(ABC):
    """One random change of a batch.

    A part works on `pixels` ((B, C, H, W) uint8) or on `normalised` pictures ((B, C, H, W) float32, zero is the mean),
    and needs `draws` uniform numbers a sample. A part that `mixes` pictures also mixes their targets.
    """

    stage: Stage
    draws: int
    mixes: bool = False

    @abstractmethod
    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            images: (B, C, H, W), uint8 or float32 as `stage` says; not changed in place.
            targets: (B,) class numbers, or (B, K) shares of the classes (always so if this part `mixes`).
            u: (B, draws) in [0, 1), on the CPU.

        Returns:
            The pictures, same shape and type, and the targets.
        """


def check_augment(parts: Sequence[Augment]) -> None:
    """Refuse an order of parts that cannot run.

    Raises:
        ValueError: If a part that works on pixels follows one that works on normalised pictures.
    """
    later = None
    for part in parts:
        if part.stage == "normalised":
            later = part
        elif later is not None:
            raise ValueError(
                f"augment: {type(part).__name__} works on pixels and must come before {type(later).__name__}, "
                "which works on normalised pictures"
            )


def _probability(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"probability must lie in [0, 1], got {value}")
    return value


def _range(name: str, values: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    if len(values) != 2 or not low <= values[0] <= values[1] <= high:
        raise ValueError(
            f"{name} must be two rising numbers in [{low:g}, {high:g}], got {list(values)}"
        )
    return values[0], values[1]


def _each(values: Tensor, images: Tensor) -> Tensor:
    """Return (B,) values as (B, 1, 1, 1) on the pictures' device."""
    return values.view(-1, 1, 1, 1).to(images.device, non_blocking=True)


class RandomCrop(Augment):
    """Pad every side with zeros and cut the former size at a random place (Krizhevsky et al. 2012; He et al. 2015).

    Args:
        padding: Pixels added on each side; 4 is usual for 32 x 32.
    """

    stage: Stage = "pixels"
    draws = 2

    def __init__(self, padding: int = 4) -> None:
        if padding < 0:
            raise ValueError(f"padding must be at least 0, got {padding}")
        self.padding = padding

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        p = self.padding
        height, width = images.shape[-2:]
        top, left = (u * (2 * p + 1)).long().to(images.device, non_blocking=True).unbind(1)
        padded = F.pad(images, (p, p, p, p)).permute(0, 2, 3, 1)
        # (B, 2p + 1, 2p + 1, H, W, C): a view of all places; choosing one copies whole rows of pixels.
        places = padded.unfold(1, height, 1).unfold(2, width, 1).permute(0, 1, 2, 4, 5, 3)
        chosen = places[torch.arange(len(images), device=images.device), top, left]
        return chosen.permute(0, 3, 1, 2), targets


class RandomFlip(Augment):
    """Mirror left and right.

    Args:
        probability: Share of the pictures that are mirrored.
    """

    stage: Stage = "pixels"
    draws = 1

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = _probability(probability)

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(
            _each(u[:, 0] < self.probability, images), images.flip(-1), images
        ), targets


class RandomAffine(Augment):
    """Turn, move, scale and slant by small random amounts, bilinear, zeros outside (Simard et al. 2003).

    Args:
        degrees: Largest turn to either side, in degrees.
        translate: Largest move to either side, as a share of the width and of the height.
        scale: Smallest and largest magnification.
        shear: Largest slant to either side, in degrees.
    """

    stage: Stage = "pixels"
    draws = 5

    def __init__(
        self,
        degrees: float = 10.0,
        translate: float = 0.1,
        scale: tuple[float, float] = (0.9, 1.1),
        shear: float = 0.0,
    ) -> None:
        if not 0.0 <= degrees <= 180.0:
            raise ValueError(f"degrees must lie in [0, 180], got {degrees}")
        if not 0.0 <= translate <= 1.0:
            raise ValueError(
                f"translate is a share of the side and must lie in [0, 1], got {translate}"
            )
        if not 0.0 <= shear < 90.0:
            raise ValueError(f"shear must lie in [0, 90) degrees, got {shear}")
        self.degrees, self.translate, self.shear = degrees, translate, shear
        self.scale = _range("scale", scale, 0.05, 20.0)

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        sign = 2.0 * u - 1.0
        angle = sign[:, 0] * math.radians(self.degrees)
        slant = torch.tan(sign[:, 1] * math.radians(self.shear))
        # Magnifying by s and by 1 / s are equally likely when log s is uniform.
        low, high = (math.log(s) for s in self.scale)
        shrink = torch.exp(-(low + u[:, 2] * (high - low)))
        cos, sin = shrink * torch.cos(angle), shrink * torch.sin(angle)
        inverse = torch.stack((cos, cos * slant + sin, -sin, cos - sin * slant), 1).view(-1, 2, 2)
        move = torch.stack(
            (sign[:, 3] * self.translate * width, sign[:, 4] * self.translate * height), 1
        )
        return _warp(images, inverse, move, "bilinear"), targets


def _warp(images: Tensor, inverse: Tensor, move: Tensor, mode: str) -> Tensor:
    """Show at p the pixel that was at inverse (p - move), places measured in pixels from the middle; zeros outside.

    Args:
        images: (B, C, H, W) uint8.
        inverse: (B, 2, 2), for (x, y).
        move: (B, 2), (x, y) in pixels.
        mode: `bilinear` or `nearest`.
    """
    height, width = images.shape[-2:]
    half = torch.tensor([width / 2.0, height / 2.0])
    linear = inverse * half[None, None, :] / half[None, :, None]
    constant = -(inverse @ move[:, :, None]) / half[:, None]
    theta = torch.cat((linear, constant), 2).to(images.device, non_blocking=True)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(
        images.float(), grid, mode=mode, padding_mode="zeros", align_corners=False
    )
    return moved.round_().to(torch.uint8)


class RandomErasing(Augment):
    """Set a random rectangle to the mean (Zhong et al. 2017; DeVries and Taylor 2017 for the constant).

    Args:
        probability: Share of the pictures that lose a rectangle.
        area: Smallest and largest share of the picture.
        ratio: Smallest and largest height divided by width.
    """

    stage: Stage = "normalised"
    draws = 5

    def __init__(
        self,
        probability: float = 0.25,
        area: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
    ) -> None:
        self.probability = _probability(probability)
        self.area = _range("area", area, 0.0, 1.0)
        self.ratio = _range("ratio", ratio, 0.01, 100.0)

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        area = (self.area[0] + u[:, 1] * (self.area[1] - self.area[0])) * height * width
        low, high = (math.log(r) for r in self.ratio)
        ratio = torch.exp(low + u[:, 2] * (high - low))
        tall = torch.sqrt(area * ratio).round().clamp(max=height) * (u[:, 0] < self.probability)
        wide = torch.sqrt(area / ratio).round().clamp(max=width)
        top = torch.floor(u[:, 3] * (height - tall + 1))
        left = torch.floor(u[:, 4] * (width - wide + 1))
        return images.masked_fill(_boxes(images, top, left, tall, wide), 0.0), targets


def _boxes(images: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Tensor:
    """Return (B, 1, H, W), True inside each sample's rectangle."""
    height, width = images.shape[-2:]
    device = images.device
    edges = torch.stack((top, top + tall, left, left + wide)).to(device, non_blocking=True)[
        :, :, None
    ]
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    in_rows = (rows >= edges[0]) & (rows < edges[1])
    in_columns = (columns >= edges[2]) & (columns < edges[3])
    return in_rows[:, None, :, None] & in_columns[:, None, None, :]


class _Beta:
    """Quantiles of the distribution Beta(alpha, alpha).

    torch has samplers for it but no quantile function, and samplers use a varying count of random numbers.
    """

    def __init__(self, alpha: float) -> None:
        if not alpha > 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        # By symmetry the lower half is enough. With t = x^alpha the density there is smooth for every alpha.
        t = torch.linspace(0.0, 0.5**alpha, 4097, dtype=torch.float64)
        density = (1.0 - t ** (1.0 / alpha)) ** (alpha - 1.0)
        mass = torch.cumulative_trapezoid(density, t)
        self._mass = torch.cat((torch.zeros(1, dtype=torch.float64), mass / mass[-1] / 2.0))
        self._t, self._alpha = t, alpha

    def quantile(self, u: Tensor) -> Tensor:
        """Return the x with P(X <= x) = u, for u of any shape in [0, 1)."""
        half = torch.minimum(u, 1.0 - u).double()
        right = torch.searchsorted(self._mass, half).clamp(1, len(self._mass) - 1)
        below, above = self._mass[right - 1], self._mass[right]
        t = self._t[right - 1] + (half - below) / (above - below) * (
            self._t[right] - self._t[right - 1]
        )
        x = t ** (1.0 / self._alpha)
        return torch.where(u <= 0.5, x, 1.0 - x).float()


class Mixup(Augment):
    """Average each picture and its target with its neighbour's: share x own + (1 - share) x neighbour's.

    The share is drawn from Beta(alpha, alpha) for each sample (Zhang et al. 2018). The neighbour is the sample before
    it in the batch.

    Args:
        alpha: 0.2 for large data sets, 1 for a uniform share.
        probability: Share of the pictures that are mixed.
    """

    stage: Stage = "normalised"
    draws = 2
    mixes = True

    def __init__(self, alpha: float = 0.2, probability: float = 1.0) -> None:
        self.alpha, self.probability = alpha, _probability(probability)
        self._beta = _Beta(alpha)

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        own = torch.where(u[:, 0] < self.probability, self._beta.quantile(u[:, 1]), torch.ones(()))
        weight = _each(own, images)
        return torch.lerp(images.roll(1, 0), images, weight), _mixed(targets, weight)


def _mixed(targets: Tensor, weight: Tensor) -> Tensor:
    return torch.lerp(targets.roll(1, 0), targets, weight.view(-1, 1).to(targets.dtype))


class CutMix(Augment):
    """Paste a rectangle of the neighbour, and mix the targets by area (Yun et al. 2019).

    The rectangle's area is 1 - share, with share from Beta(alpha, alpha), before the picture's edge cuts it; targets
    are mixed by what is left of it. The neighbour is the sample before it in the batch.

    Args:
        alpha: 1 for a uniform share.
        probability: Share of the pictures that are changed.
    """

    stage: Stage = "normalised"
    draws = 4
    mixes = True

    def __init__(self, alpha: float = 1.0, probability: float = 1.0) -> None:
        self.alpha, self.probability = alpha, _probability(probability)
        self._beta = _Beta(alpha)

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        side = torch.sqrt(1.0 - self._beta.quantile(u[:, 1])) * (u[:, 0] < self.probability)
        tall, wide = (side * height).round(), (side * width).round()
        top = torch.floor(u[:, 2] * height) - torch.floor(tall / 2)
        left = torch.floor(u[:, 3] * width) - torch.floor(wide / 2)
        bottom, right = (top + tall).clamp(max=height), (left + wide).clamp(max=width)
        top, left = top.clamp(min=0), left.clamp(min=0)
        own = 1.0 - (bottom - top) * (right - left) / (height * width)
        box = _boxes(images, top, left, bottom - top, right - left)
        return torch.where(box, images.roll(1, 0), images), _mixed(targets, _each(own, images))


class OneOf(Augment):
    """Apply one of several parts to each sample, chosen at random, as torchvision's recipe does with Mixup and CutMix.

    Args:
        parts: At least two parts of the same stage.
    """

    def __init__(self, parts: list[Augment]) -> None:
        if len(parts) < 2:
            raise ValueError(f"parts needs at least two to choose from, got {len(parts)}")
        stages = {part.stage for part in parts}
        if len(stages) > 1:
            names = ", ".join(f"{type(part).__name__} ({part.stage})" for part in parts)
            raise ValueError(
                f"parts must all work on pixels or all on normalised pictures, got {names}"
            )
        self.parts = parts
        self.stage: Stage = parts[0].stage
        self.mixes = any(part.mixes for part in parts)
        self.draws = 1 + sum(part.draws for part in parts)

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        choice = (u[:, 0] * len(self.parts)).long()
        result, result_targets = images, targets
        first = 1
        for i, part in enumerate(self.parts):
            changed, changed_targets = part(images, targets, u[:, first : first + part.draws])
            first += part.draws
            mine = _each(choice == i, images)
            result = torch.where(mine, changed, result)
            if part.mixes:
                result_targets = torch.where(mine.view(-1, 1), changed_targets, result_targets)
        return result, result_targets


class TrivialAugment(Augment):
    """One operation a picture, operation and strength uniform, in the wide space (Mueller and Hutter 2021).

    Fourteen operations: identity, turn, slant and move along x and y, brightness, colour, contrast, sharpness,
    posterise, solarise, autocontrast, equalise. Moves are a share of the side, where the paper's wide space moves by
    up to 32 pixels at any size; slants keep the middle in place.

    Args:
        translate: Largest move, as a share of the side.
    """

    stage: Stage = "pixels"
    draws = 3

    _GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
    _TABLE = ("brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize")
    OPERATIONS = ("identity", *_GEOMETRIC, *_TABLE, "color", "sharpness")
    _LEVELS = 31

    def __init__(self, translate: float = 0.3) -> None:
        if not 0.0 <= translate <= 1.0:
            raise ValueError(
                f"translate is a share of the side and must lie in [0, 1], got {translate}"
            )
        self.translate = translate

    def __call__(self, images: Tensor, targets: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        operation = (u[:, 0] * len(self.OPERATIONS)).long()
        strength = (u[:, 1] * self._LEVELS).floor() / (self._LEVELS - 1)
        signed = torch.where(u[:, 2] < 0.5, strength, -strength)
        result = images.clone()
        groups: tuple[tuple[tuple[str, ...], Callable[[Tensor, Tensor, Tensor], Tensor]], ...] = (
            (self._GEOMETRIC, self._move),
            (self._TABLE, lambda x, o, s: _look_up(x, _table(x, o, s))),
            (("color",), lambda x, _, s: _blend(_grey(x), x, s)),
            (("sharpness",), lambda x, _, s: _blend(_smooth(x), x, s)),
        )
        for names, change in groups:
            first = self.OPERATIONS.index(names[0])
            rows = ((operation >= first) & (operation < first + len(names))).nonzero()[:, 0]
            if len(rows):
                there = rows.to(images.device, non_blocking=True)
                result[there] = change(images[there], operation[rows] - first, signed[rows])
        return result, targets

    def _move(self, images: Tensor, operation: Tensor, signed: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        zero = torch.zeros(len(images))
        rotate, shear_x, shear_y, move_x, move_y = (
            torch.where(operation == i, signed, zero) for i in range(len(self._GEOMETRIC))
        )
        angle = rotate * math.radians(135.0)
        cos, sin = torch.cos(angle), torch.sin(angle)
        inverse = torch.stack((cos, sin + 0.99 * shear_x, 0.99 * shear_y - sin, cos), 1).view(
            -1, 2, 2
        )
        move = torch.stack(
            (move_x * self.translate * width, move_y * self.translate * height), 1
        ).round()
        return _warp(images, inverse, move, "nearest")


def _grey(images: Tensor) -> Tensor:
    """Return (B, 1, H, W) float luma (ITU-R 601) of (B, C, H, W) pixels."""
    if images.shape[1] == 1:
        return images.float()
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images.float() * weights).sum(1, keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    """Return the pictures smoothed as PIL's SMOOTH filter does; the outermost pixels stay."""
    x = images.float()
    if min(images.shape[-2:]) < 3:
        return x
    channels = images.shape[1]
    kernel = torch.ones(channels, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5.0
    inner = F.conv2d(x, kernel / 13.0, groups=channels)
    result = x.clone()
    result[..., 1:-1, 1:-1] = inner
    return result


def _blend(base: Tensor, images: Tensor, signed: Tensor) -> Tensor:
    """Return base + (1 + 0.99 s) (images - base) as pixels."""
    factor = _each(1.0 + 0.99 * signed, images)
    return (base + factor * (images - base)).round_().clamp_(0, 255).to(torch.uint8)


def _table(images: Tensor, operation: Tensor, signed: Tensor) -> Tensor:
    """Return (B, C, 256): the new value of each old one, for the operations of `TrivialAugment._TABLE`."""
    count, channels = images.shape[:2]
    device = images.device
    value = torch.arange(256.0, device=device).view(1, 1, 256)
    strength = signed.abs()
    factor = (1.0 + 0.99 * signed).view(-1, 1, 1).to(device, non_blocking=True)
    mean = _grey(images).mean((1, 2, 3)).round_().view(-1, 1, 1)
    step = 2.0 ** (strength * 6.0).round().view(-1, 1, 1).to(device, non_blocking=True)
    threshold = (255.0 - 255.0 * strength).view(-1, 1, 1).to(device, non_blocking=True)
    flat = images.reshape(count, channels, -1)
    low, high = (x.float()[..., None] for x in flat.aminmax(dim=-1))
    spread = torch.where(
        high > low, 255.0 / (high - low).clamp(min=1.0), torch.ones((), device=device)
    )
    tables = (
        value * factor,
        mean + factor * (value - mean),
        torch.floor(value / step) * step,
        torch.where(value < threshold, value, 255.0 - value),
        torch.where(high > low, (value - low) * spread, value),
        _equalized(flat),
    )
    result = torch.empty(count, channels, 256, device=device)
    chosen = operation.view(-1, 1, 1).to(device, non_blocking=True)
    for i, table in enumerate(tables):
        result = torch.where(chosen == i, table, result)
    return result.round_().clamp_(0, 255).to(torch.uint8)


def _equalized(flat: Tensor) -> Tensor:
    """Return (B, C, 256) tables that flatten each channel's histogram, as PIL's `ImageOps.equalize` does.

    Args:
        flat: (B, C, HW) uint8.
    """
    index = flat.long()
    histogram = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=flat.device)
    histogram.scatter_add_(2, index, torch.ones_like(index))
    last = histogram.gather(2, index.amax(2, keepdim=True))
    step = (flat.shape[-1] - last) // 255
    before = histogram.cumsum(2) - histogram
    table = (before + step // 2) // step.clamp(min=1)
    value = torch.arange(256, device=flat.device).expand_as(table)
    return torch.where(step > 0, table, value).float()


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Replace every pixel by its entry in its sample's and channel's table."""
    flat = images.reshape(*images.shape[:2], -1).long()
    return table.gather(2, flat).view(images.shape)
