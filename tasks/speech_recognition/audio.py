"""Sound files that nobody has checked, parts of them, and recordings joined."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from resdomains.training import BadSample
from resdomains.training.file_checks import unreadable
from resdomains.training.folders import check_regular, files_below

from .utterances import Audio

SUFFIXES = (
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".oga",
    ".opus",
    ".aif",
    ".aiff",
    ".au",
    ".caf",
    ".sph",
    ".w64",
)
"""Of files that are taken from a folder. A file that is named is read whatever its suffix says."""

TOLERANCE = 0.06
"""Seconds by which a stated duration may differ from the file's: lists round it, some to tenths."""

_PIECE = 2**20  # samples of all channels: a damaged header can state any number
_LARGEST = (
    2**30
)  # samples of a part: 18 hours at 16 kHz, 4 GiB; minutes of FLAC can hold years of silence
_RATES = (1_000, 768_000)
_TERMS = 1000
# Of a WAV that was cut, libsndfile takes what is there, and says so in its log only. Programs that write to a pipe
# leave the largest numbers in the header.
_CUT = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.M)
_UNKNOWN_SIZE = 0x7FFF0000


class AudioFile(Audio):
    """A sound file or a part of one: WAV, FLAC, MP3, OGG and what else libsndfile reads, several channels averaged.

    The header is read when this is built, the sound when it is asked for. The file's content counts, not its suffix.

    Args:
        path: The file.
        offset: Where the part begins, in seconds.
        seconds: How long it is; to the end of the file if not given. The last hundredths of a second may be missing
            (`TOLERANCE`), because durations in lists are rounded.

    Raises:
        BadSample: If there is no such file, it is not such a file, is cut short, holds no samples, or ends before the
            part does.
    """

    __slots__ = ("path", "rate", "samples", "start")

    def __init__(self, path: str | Path, offset: float = 0.0, seconds: float | None = None) -> None:
        self.path = os.fspath(path)
        self.rate, total = _header(self.path)
        whole = total / self.rate
        if not 0.0 <= offset < math.inf:
            raise BadSample(self.path, f"a part must begin at 0 s or later, got {offset:g} s")
        if seconds is not None and not 0.0 < seconds < math.inf:
            raise BadSample(self.path, f"a part must be longer than 0 s, got {seconds:g} s")
        end = whole if seconds is None else offset + seconds
        if offset >= whole or end > whole + TOLERANCE:
            part = f"{offset:g} s" if seconds is None else f"{offset:g} to {end:g} s"
            raise BadSample(
                self.path, f"the part from {part} is not in the file, which lasts {whole:.3f} s"
            )
        self.start = round(offset * self.rate)
        self.samples = min(round(end * self.rate), total) - self.start
        if self.samples < 1:
            raise BadSample(self.path, f"a part of {seconds:g} s is shorter than one sample")
        if self.samples > _LARGEST:
            raise BadSample(
                self.path,
                f"{self.samples:,} samples, more than the {_LARGEST:,} that are read at once; cut it into parts",
            )

    def read(self) -> Tensor:
        """Decode.

        Returns:
            (L,) float32, the mean of the channels; in [-1, 1] unless a file of floats holds more.

        Raises:
            BadSample: If the file is damaged, or holds values that are no numbers.
        """
        return _decode(self.path, self.start, self.samples)


class Joined(Audio):
    """Recordings one after another, with silence (zeros) between.

    Args:
        audios: The recordings, at one rate.
        gaps: Seconds between each and the next.

    Raises:
        ValueError: If there are none, their rates differ, or the gaps do not fit.
    """

    __slots__ = ("audios", "gaps", "rate", "samples")

    def __init__(self, audios: Sequence[Audio], gaps: Sequence[float]) -> None:
        if not audios or len(gaps) != len(audios) - 1:
            raise ValueError(
                f"n recordings are joined with n - 1 gaps, got {len(audios)} recordings and {len(gaps)} gaps"
            )
        rates = {audio.rate for audio in audios}
        if len(rates) > 1:
            raise ValueError(f"joined recordings must have one rate, got {sorted(rates)} Hz")
        if min(gaps, default=0.0) < 0.0:
            raise ValueError(f"gaps must be at least 0 s, got {min(gaps)}")
        self.rate = audios[0].rate
        self.audios = tuple(audios)
        self.gaps = tuple(round(gap * self.rate) for gap in gaps)
        self.samples = sum(audio.samples for audio in audios) + sum(self.gaps)

    def read(self) -> Tensor:
        pieces = [self.audios[0].read()]
        for gap, audio in zip(self.gaps, self.audios[1:], strict=True):
            pieces += [torch.zeros(gap), audio.read()]
        return torch.cat(pieces)


def find_audio(folder: str | Path) -> list[Path]:
    """Return the sound files in a folder and its subfolders, in a fixed order, hidden ones left out."""
    return find_files(folder, SUFFIXES)


def find_files(folder: str | Path, endings: str | tuple[str, ...]) -> list[Path]:
    """Return the files of a folder and its subfolders whose names end so, in a fixed order, hidden ones left out."""
    return [Path(path) for path in files_below(folder, lambda name: name.lower().endswith(endings))]


def resampled(waveform: Tensor, rate: int, to: int) -> Tensor:
    """Resample by a windowed sinc (torchaudio's: Hann, 6 zero crossings, cut off at 0.99 of the lower Nyquist rate).

    The filter has `rate x to` values, both divided by what they have in common: 441 x 160 from 44.1 to 16 kHz, but
    16,001 x 16,000, seconds and a gigabyte, for one Hz more. Where a term is above 1000 the nearest ratio below that is
    taken, which changes speed and pitch by less than 0.1 %.

    Args:
        waveform: (..., L) float32.
        rate: Samples a second of it, in Hz.
        to: Samples a second wanted, in Hz.

    Returns:
        (..., `resampled_length(L, rate, to)`) float32; the waveform itself where the rates are equal.
    """
    ratio = _ratio(rate, to)
    return waveform if ratio == 1 else _resampler(ratio)(waveform)


def resampled_length(samples: int, rate: int, to: int) -> int:
    """Return how many samples `resampled` makes of `samples`."""
    return math.ceil(samples * _ratio(rate, to))


def undecodable(audios: Sequence[Audio], num_workers: int = 0) -> Mapping[int, BadSample]:
    """Decode every recording once; return what is wrong with those that fail, by their place.

    What is found of files is kept in the user's cache until a file changes.

    Args:
        audios: The recordings.
        num_workers: Loader processes.
    """
    requests: list[tuple[str, int, int]] = []
    owners: list[int] = []
    bad: dict[int, BadSample] = {}
    for place, audio in enumerate(audios):
        for part in audio.audios if isinstance(audio, Joined) else (audio,):
            if isinstance(part, AudioFile):
                requests.append((part.path, part.start, part.samples))
                owners.append(place)
                continue
            try:
                part.read()
            except BadSample as error:
                bad.setdefault(place, error)
    # A recording that stands in many is decoded once.
    distinct = list(dict.fromkeys(requests))
    found = unreadable(distinct, _decode, part="recordings", num_workers=num_workers)
    reasons = {distinct[i]: reason for i, reason in found.items()}
    for request, place in zip(requests, owners, strict=True):
        if request in reasons:
            bad.setdefault(place, BadSample(request[0], reasons[request]))
    return dict(sorted(bad.items()))


def _ratio(rate: int, to: int) -> Fraction:
    """Return to / rate, or the nearest ratio of terms that a filter can have."""
    exact = Fraction(to, rate)
    if max(exact.as_integer_ratio()) <= _TERMS:
        return exact
    near = min(exact, 1 / exact).limit_denominator(_TERMS) or Fraction(1, _TERMS)
    return near if exact < 1 else 1 / near


@lru_cache(maxsize=16)
def _resampler(ratio: Fraction) -> Resample:
    return Resample(ratio.denominator, ratio.numerator)


def _open(path: str) -> Any:
    """Open a file.

    Raises:
        BadSample: If it is not there, or not one that libsndfile reads.
    """
    check_regular(path)
    try:
        # As bytes: a file's name need not be UTF-8.
        return soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise BadSample(path, _why(Path(path), error)) from error


def _why(path: Path, error: Exception) -> str:
    """Say why a file was not opened; libsndfile says `System error` and `Format not recognised`."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                return "the file is empty (0 bytes)"
    except FileNotFoundError:
        return "the file does not exist"
    except IsADirectoryError:
        return "is a folder, not a file"
    except OSError as refused:
        return f"cannot be opened ({refused.strerror})"
    except ValueError:
        return "is not the name of a file"
    said = getattr(error, "error_string", str(error)).rstrip(".")
    return (
        f"not a recording that soundfile reads ({said}); give WAV, FLAC, MP3 or OGG, "
        "or convert it, such as by: ffmpeg -i FILE FILE.flac"
    )


def _header(path: str) -> tuple[int, int]:
    """Return a file's samples a second and its samples.

    Raises:
        BadSample: If it cannot be read, or the header makes no sense.
    """
    with _open(path) as file:
        rate, samples, log = file.samplerate, file.frames, file.extra_info
    cut = _CUT.search(log)
    stated, there = (int(cut[1]), int(cut[2])) if cut else (0, 0)
    if stated < _UNKNOWN_SIZE and (stated - there) * samples > TOLERANCE * rate * there:
        raise BadSample(
            path,
            f"cut short: the header states {stated:,} bytes of sound, {there:,} are there; copy it again",
        )
    if samples < 1:
        raise BadSample(path, "holds no samples")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise BadSample(
            path,
            f"its header states {rate:,} samples a second, which is not the rate of a recording",
        )
    return rate, samples


def _decode(path: str, start: int, samples: int) -> Tensor:
    """Return (`samples`,) float32 from sample `start` on, the mean of the channels.

    Raises:
        BadSample: If that cannot be decoded, or holds values that are no numbers.
    """
    pieces: list[Tensor] = []
    left = samples
    with _open(path) as file:
        try:
            if start:
                file.seek(start)
            while left:
                piece = torch.from_numpy(
                    file.read(
                        min(left, max(_PIECE // file.channels, 1)), dtype="float32", always_2d=True
                    )
                )
                if not len(piece):
                    break
                pieces.append(piece.mean(1))
                left -= len(piece)
        except (soundfile.SoundFileError, OSError) as error:
            said = getattr(error, "error_string", str(error)).rstrip(".")
            raise BadSample(path, f"damaged ({said}); copy it again") from error
    if left:
        raise BadSample(
            path,
            f"damaged: its header states more samples than can be decoded ({left:,} of {samples:,} are missing); "
            "copy it again",
        )
    waveform = torch.cat(pieces)
    finite = waveform.isfinite()
    if not finite.all():
        count = len(waveform) - int(finite.sum())
        raise BadSample(path, f"{count:,} of its {samples:,} samples are NaN or infinite")
    return waveform
