"""What turns samples into what a network reads, on the device that computes, a batch at a time.

Nothing of an item depends on its batch mates or on the padding behind it, and everything is computed in float32, also
under autocast.
"""

import warnings
from abc import ABC, abstractmethod

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F


class Frontend(nn.Module, ABC):
    """The contract; a task takes a factory `Callable[[int], Frontend]` of the sample rate in Hz.

    `channels` is what the backbone must take as `in_channels`, `hop` the samples from one frame to the next.
    """

    channels: int
    hop: int

    @abstractmethod
    def features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, for float32 with zeros behind each item."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turn samples into frames.

        Args:
            waveform: (B, L) samples; what stands behind an item does not matter.
            lengths: (B,) samples of each item.

        Returns:
            (B, channels, T) float32, zeros behind each item, and (B,) frames of each item.

        Raises:
            ValueError: If the shapes do not fit each other.
        """
        if waveform.ndim != 2 or lengths.shape != waveform.shape[:1]:
            raise ValueError(
                f"expected a waveform (B, L) and lengths (B,), got {tuple(waveform.shape)} and {tuple(lengths.shape)}"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            hidden = waveform.float().masked_fill(~_inside(lengths, waveform.shape[1]), 0.0)
            return self.features(hidden, lengths)


class FeatureNorm(ABC):
    """The contract: gives features mean 0 and variance 1 over each item's own frames.

    Args:
        floor: What is added to the variance.
    """

    def __init__(self, floor: float = 1e-5) -> None:
        self.floor = floor

    @property
    @abstractmethod
    def axes(self) -> tuple[int, ...]:
        """Of (B, T, M) those over which mean and variance are taken; 1 is the first."""

    def __call__(self, x: Tensor, frames: Tensor, inside: Tensor) -> Tensor:
        """Compute `(x - mean) / sqrt(variance + floor)`.

        Args:
            x: (B, T, M) features.
            frames: (B,) frames of each item.
            inside: (B, T, 1), True for these.

        Returns:
            (B, T, M), zeros behind each item.
        """
        number = frames[:, None, None]
        for axis in self.axes[1:]:
            number = number * x.shape[axis]
        # In float64: how a sum is rounded depends on the padding, and a band that hardly varies shows it 300 times
        # larger.
        total = x.masked_fill(~inside, 0.0).sum(self.axes, keepdim=True, dtype=torch.float64)
        centred = (x - total / number).masked_fill(~inside, 0.0)
        variance = centred.square().sum(self.axes, keepdim=True) / number
        return (centred * torch.rsqrt(variance + self.floor)).float()


class BandNorm(FeatureNorm):
    """Mean and variance of each band by itself, which takes the colour of room and microphone away (NeMo, Kaldi)."""

    axes = (1,)


class ItemNorm(FeatureNorm):
    """Mean and variance of all bands together, which keeps what distinguishes single short words: their spectrum."""

    axes = (1, 2)


class LogMel(Frontend):
    """Logarithmic energies of mel bands, normalised over each item, as NeMo has them for QuartzNet and Citrinet.

    `y = log(M |STFT(x)|^2 + 2^-24)`, then `norm` over the item's own frames. An item of L samples has `L // hop + 1`
    frames; frame t is centred on sample `t hop` and sees zeros beyond both ends. Windows are symmetric Hann windows, M
    holds Slaney's triangles of equal area.

    Args:
        sample_rate: In Hz.
        bands: Mel bands.
        window: Seconds of a window.
        hop: Seconds from one frame to the next.
        fft: Points of the Fourier transform; by default the next power of two above the window, 512 at 16 kHz.
        lowest: Where the first band begins, in Hz.
        highest: Where the last one ends; by default at half the sample rate.
        preemphasis: a in `x[t] - a x[t - 1]`. A first sample is taken for its own predecessor, `(1 - a) x[0]`, and
            nothing follows the last one, so that neither end makes a click.
        dither: Standard deviation of the noise that is added in training, where samples are in [-1, 1].
        norm: What mean and variance are taken of; `BandNorm` if not given.

    Raises:
        ValueError: If a number cannot be used, or a band would lie between two frequencies of the transform.
    """

    guard = 2.0**-24

    def __init__(
        self,
        sample_rate: int,
        bands: int = 64,
        window: float = 0.025,
        hop: float = 0.01,
        fft: int | None = None,
        lowest: float = 0.0,
        highest: float | None = None,
        preemphasis: float = 0.97,
        dither: float = 1e-5,
        norm: FeatureNorm | None = None,
    ) -> None:
        super().__init__()
        self.size, self.hop = round(window * sample_rate), round(hop * sample_rate)
        if bands < 1:
            raise ValueError(f"bands must be at least 1, got {bands}")
        for name, seconds, samples, least in (
            ("window", window, self.size, 2),
            ("hop", hop, self.hop, 1),
        ):
            if samples < least or seconds > 1.0:
                raise ValueError(
                    f"{name} is in seconds and must be at least {least} samples and at most 1 second, "
                    f"got {seconds:g} at {sample_rate} Hz"
                )
        self.fft = 2 ** (self.size - 1).bit_length() if fft is None else fft
        if self.fft < self.size:
            raise ValueError(f"fft must be at least the window's {self.size} samples, got {fft}")
        highest = sample_rate / 2 if highest is None else highest
        if not 0.0 <= lowest < highest <= sample_rate / 2:
            raise ValueError(
                f"lowest and highest must rise within [0, {sample_rate / 2:g}] Hz, got {lowest:g} and {highest:g}"
            )
        if not 0.0 <= preemphasis < 1.0:
            raise ValueError(f"preemphasis must lie in [0, 1), got {preemphasis:g}")
        if dither < 0.0:
            raise ValueError(f"dither must be at least 0, got {dither:g}")
        self.channels, self.preemphasis, self.dither = bands, preemphasis, dither
        self.norm = norm if norm is not None else BandNorm()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torchaudio warns of empty bands, which are refused below
            mels = torchaudio.functional.melscale_fbanks(
                self.fft // 2 + 1, lowest, highest, bands, sample_rate, "slaney", "slaney"
            )
        empty = int((mels.amax(0) == 0).sum())
        if empty:
            raise ValueError(
                f"{empty} of {bands} bands lie between two frequencies of a transform of {self.fft} points at "
                f"{sample_rate} Hz; take fewer bands, or fft={2 * self.fft}"
            )
        self.window: Tensor
        self.mels: Tensor
        # Zeros up to the transform's points: windows of that size need not be copied to be transformed.
        hann = F.pad(torch.hann_window(self.size, periodic=False), (0, self.fft - self.size))
        self.register_buffer("window", hann, persistent=False)
        self.register_buffer("mels", mels, persistent=False)

    def features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised bands."""
        if self.training and self.dither:
            waveform = waveform + self.dither * torch.randn_like(waveform)
        if self.preemphasis:
            before = torch.cat((waveform[:, :1], waveform[:, :-1]), 1)
            waveform = waveform - self.preemphasis * before
        samples = waveform.shape[1]
        waveform = waveform.masked_fill(~_inside(lengths, samples), 0.0)

        count = samples // self.hop + 1
        left = (self.size + 1) // 2
        right = (count - 1) * self.hop + self.fft - left - samples
        # (B, T, fft) windows, in place of torch.stft, which turns its result.
        frames = F.pad(waveform, (left, right)).unfold(1, self.fft, self.hop) * self.window
        # A sum over two neighbours by torch takes four times as long.
        real, imaginary = torch.view_as_real(torch.fft.rfft(frames)).unbind(-1)
        power = torch.addcmul(real.square(), imaginary, imaginary)
        bands = (power @ self.mels + self.guard).log()

        own = lengths // self.hop + 1
        return self.norm(bands, own, _inside(own, count)[:, :, None]).transpose(1, 2), own


class Waveform(Frontend):
    """The samples of each item, with mean 0 and variance 1 over the item (Dai et al. 2017).

    Args:
        sample_rate: In Hz; it changes nothing here.
    """

    channels = 1
    hop = 1

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.norm = BandNorm(floor=1e-7)

    def features(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, 1, L)."""
        inside = _inside(lengths, waveform.shape[1])[:, :, None]
        return self.norm(waveform[:, :, None], lengths.clamp_min(1), inside).transpose(
            1, 2
        ), lengths


def _inside(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size), True where an item has a value."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
