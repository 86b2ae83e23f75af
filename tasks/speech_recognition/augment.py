"""Augmentation of whole batches of samples on the device that computes, from counter-based random numbers.

Each part is given its own uniform numbers for every item, so that what happens to an item depends on the seed, the
epoch and the item alone, not on its batch, its process or the padding.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torchaudio.functional import fftconvolve
from torchaudio.transforms import Resample


class Augment(ABC):
    """One random change of a batch of recordings; it needs `draws` uniform numbers an item."""

    draws: int

    @abstractmethod
    def __call__(self, waveform: Tensor, lengths: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            waveform: (B, L) float32, zeros behind each item; not changed in place.
            lengths: (B,) samples of each item.
            u: (B, draws) in [0, 1), on the CPU.

        Returns:
            (B, L') float32, zeros behind each item, and (B,) samples of each item.
        """


class SpeedPerturbation(Augment):
    """Play each item at one of some speeds, which moves its pitch too (Ko et al. 2015).

    At speed f an item of L samples has ceil(L / f).

    Args:
        factors: The speeds, each equally likely; 1.1 is faster. Each must be a ratio of whole numbers up to 100:
            resampling by any other takes seconds.

    Raises:
        ValueError: If there is none, or one is not such a ratio or not in [0.5, 2].
    """

    draws = 1
    _LARGEST = 100

    def __init__(self, factors: Sequence[float] = (0.9, 1.0, 1.1)) -> None:
        if not factors:
            raise ValueError("factors must hold at least one speed, such as [0.9, 1.0, 1.1]")
        ratios = [Fraction(factor).limit_denominator(self._LARGEST) for factor in factors]
        for factor, ratio in zip(factors, ratios, strict=True):
            if not 0.5 <= factor <= 2.0:
                raise ValueError(f"factors must lie in [0.5, 2], got {list(factors)}")
            if abs(ratio - Fraction(factor)) > 1e-6 or ratio.numerator > self._LARGEST:
                raise ValueError(
                    f"factors must be ratios of whole numbers up to {self._LARGEST}, got {factor}; "
                    f"the nearest is {float(ratio):g}"
                )
        self.ratios = ratios
        # A recording at `numerator` Hz that is played at `denominator` Hz, but for a common factor.
        self._resample = [Resample(ratio.numerator, ratio.denominator) for ratio in ratios]

    def __call__(self, waveform: Tensor, lengths: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        chosen = (u[:, 0] * len(self.ratios)).long().clamp_max(len(self.ratios) - 1)
        played, after = [], lengths.clone()
        for number, (ratio, resample) in enumerate(zip(self.ratios, self._resample, strict=True)):
            rows = (chosen == number).nonzero()[:, 0].to(waveform.device)
            if not len(rows):
                continue
            own = lengths[rows]
            after[rows] = -(-own * ratio.denominator // ratio.numerator)
            longest = waveform[rows, : int(own.max())]
            played.append((rows, longest if ratio == 1 else resample.to(longest.device)(longest)))
        result = waveform.new_zeros(len(waveform), int(after.max()))
        for rows, x in played:
            result[rows, : x.shape[1]] = x
        return _hide(result, after), after


class Noise(Augment):
    """Add noise at a random ratio of the item's power to the noise's, in decibels; silence stays silent.

    The noise is a random stretch of some ten seconds of it that are made once, with a power spectrum of
    `1 / frequency ** color`.

    Args:
        snr: The lowest and the highest ratio, in dB.
        probability: Share of the items that get noise.
        color: 0 is white, 1 pink, 2 brown noise.

    Raises:
        ValueError: If the ratios do not rise, or a number is out of range.
    """

    draws = 3
    _SAMPLES = 2**18

    def __init__(
        self, snr: tuple[float, float] = (10.0, 40.0), probability: float = 0.5, color: float = 1.0
    ) -> None:
        self.snr = _rising("snr", snr)
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability must lie in [0, 1], got {probability:g}")
        if color < 0.0:
            raise ValueError(f"color must be at least 0, got {color:g}")
        self.probability, self.color = probability, color
        white = torch.randn(self._SAMPLES, generator=torch.Generator().manual_seed(0))
        spectrum = torch.fft.rfft(white)
        shape = torch.arange(len(spectrum)).clamp_min(1) ** (-color / 2)
        shape[0] = 0.0
        noise = torch.fft.irfft(spectrum * shape, self._SAMPLES)
        self._noise = noise / noise.square().mean().sqrt()

    def __call__(self, waveform: Tensor, lengths: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        device, size = waveform.device, waveform.shape[1]
        self._noise = self._noise.to(device)
        start = (u[:, 0] * self._SAMPLES).long().to(device)
        # All stretches of that size, as a view.
        stretches = self._noise.repeat(size // self._SAMPLES + 2).unfold(0, size, 1)
        noise = _hide(stretches[start], lengths)
        low, high = self.snr
        ratio = 10.0 ** ((low + u[:, 1] * (high - low)) / 10.0)
        power = waveform.square().sum(1) / (
            noise.square().sum(1).clamp_min(1e-12) * ratio.to(device)
        )
        scale = power.sqrt() * (u[:, 2] < self.probability).to(device)
        return waveform + noise * scale[:, None], lengths


class Gain(Augment):
    """Make each item louder or softer by a random number of decibels.

    Args:
        low: The least, in dB; negative is softer.
        high: The most.

    Raises:
        ValueError: If they do not rise.
    """

    draws = 1

    def __init__(self, low: float = -10.0, high: float = 10.0) -> None:
        self.low, self.high = _rising("low and high", (low, high))

    def __call__(self, waveform: Tensor, lengths: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        factor = 10.0 ** ((self.low + u * (self.high - self.low)) / 20.0)
        return waveform * factor.to(waveform.device), lengths


class Equalizer(Augment):
    """Make some frequencies of each item louder and others softer, as another room and microphone would.

    The gains at an octave from each other, down from half the sample rate, are uniform in `[-gain, gain]` dB; between
    them it is linear in dB over octaves, and constant below the last (FilterAugment of Nam et al. 2022, on the sound
    and by octaves in place of drawn bands). The filter is symmetric in time, so nothing is delayed.

    Args:
        gain: The most that a frequency is raised or lowered, in dB.
        bands: Octaves: 5 reach down to 250 Hz at 8 kHz.

    Raises:
        ValueError: If a number is out of range.
    """

    _MOST = 10

    def __init__(self, gain: float = 6.0, bands: int = 5) -> None:
        if not (gain > 0.0 and math.isfinite(gain)):
            raise ValueError(f"gain is in dB and must be above 0, got {gain:g}")
        if not 2 <= bands <= self._MOST:
            raise ValueError(f"bands must lie in [2, {self._MOST}], got {bands}")
        self.gain, self.draws = gain, bands
        # Four periods of the lowest band on each side.
        self._taps = 2 ** (bands + 3)
        below = -torch.linspace(0.0, 1.0, self._taps // 2 + 1).log2()
        band = torch.arange(bands)[:, None]
        # (bands, frequencies): how much of each band's gain a frequency has, which is so many octaves below the first.
        self._shares = (1.0 - (below.clamp_max(bands - 1) - band).abs()).clamp_min(0.0)
        self._window = torch.hann_window(self._taps)

    def __call__(self, waveform: Tensor, lengths: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        decibels = (2.0 * u - 1.0) * self.gain @ self._shares
        # Symmetric around the middle tap.
        taps = torch.fft.irfft(10.0 ** (decibels / 20.0), self._taps).roll(self._taps // 2, 1)
        filters = (taps * self._window)[:, 1:].to(waveform.device)
        return _hide(fftconvolve(waveform, filters, mode="same"), lengths), lengths


def _rising(name: str, values: tuple[float, float]) -> tuple[float, float]:
    if len(values) != 2 or not all(map(math.isfinite, values)) or values[0] > values[1]:
        raise ValueError(f"{name} must be two rising numbers in dB, got {list(values)}")
    return values[0], values[1]


def _hide(x: Tensor, lengths: Tensor) -> Tensor:
    """Return (B, L) with zeros behind each item."""
    return x.masked_fill(torch.arange(x.shape[1], device=x.device) >= lengths[:, None], 0.0)
