"""Spoken digit strings: speech for training and tests that needs no recordings."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resdomains.schema import Split
from resdomains.training.caches import cache_folder, cached_tensors

from .audio import resampled
from .augment import Augment
from .data import SpeechData
from .digits import WORDS
from .espeak import RATE, Phrase, speak, variants, version, voices
from .tokens import Tokens
from .utterances import Audio, Corpus, Utterance

# `en-Shaw` sounds like `en`, and `en-US-nyc` hardly differs from `en-US`.
ACCENTS = (
    "en",
    "en-029",
    "en-GB-scotland",
    "en-GB-x-gbclan",
    "en-GB-x-gbcwmd",
    "en-GB-x-rp",
    "en-US",
)
# eSpeak NG's variants, other throats for each accent. Of its 104, `fast` sounds like no variant; robots, demons and
# echoes are left out, and so is what hardly differs from another. Whoever speaks in one split is unlike all in the
# others: their log-mel spectra differ by 1.1 or more in the mean, those of one voice that speaks twice by 0.15.
VARIANTS: dict[Split, tuple[str, ...]] = {
    "train": (
        *("", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Henrique", "Jacky", "Mario"),
        *("Nguyen", "Reed", "antonio", "belinda", "caleb", "david", "ed", "edward", "f1"),
        *("f2", "f5", "gustave", "iven", "john", "klatt4", "m1", "m3", "m5", "m7", "m8", "max"),
        *("michel", "pablo", "paul", "pedro", "victor", "whisper"),
    ),
    "val": ("Gene", "f4", "grandma", "m2", "robert", "shelby"),
    "test": (
        *("Storm", "boris", "f3", "linda", "m4", "quincy", "sandro", "steph", "travis"),
        "whisperf",
    ),
}
MOST_DIGITS = 7
_RATES = (120, 260)  # words a minute
_PITCHES = (20, 80)
_PAUSED = 0.15  # how often a pause follows a digit, as in telephone numbers
_SILENCE = (0.02, 0.4)  # seconds before, and again after
_LEVEL = (-40.0, -22.0)  # of the speech, in dB below full scale
_SNR = (10.0, 40.0)  # dB
# The noise's power falls with frequency to this power: from white over pink to red.
_SLOPE = (0.0, 2.0)

_Sound = NDArray[np.float32]

# Changes whenever equal phrases would be made into other samples than before.
_FORMAT = 1
_CACHE_BYTES = 2**30


class AudioArray(Audio):
    """Sound in memory.

    Args:
        array: (L,) int16 samples; full scale is 32768.
        rate: Samples a second, in Hz.
    """

    __slots__ = ("array", "rate", "samples")

    def __init__(self, array: NDArray[np.int16], rate: int) -> None:
        self.array, self.rate, self.samples = array, rate, len(array)

    def read(self) -> Tensor:
        return torch.from_numpy(self.array.astype(np.float32) / 32768)


@dataclass(frozen=True)
class Spoken:
    """One utterance of the plan.

    Args:
        split: Where it belongs.
        text: The digits in words.
        phrase: How eSpeak NG says them.
        seed: Of the noise, the silence and the level.
    """

    split: Split
    text: str
    phrase: Phrase
    seed: int

    @property
    def speaker(self) -> str:
        """The accent and the variant."""
        return "+".join(filter(None, (self.phrase.voice, self.phrase.variant)))


class DigitStrings(SpeechData):
    """Strings of 1 to 7 digits, zero to nine, spoken by eSpeak NG in English of seven accents, in noise.

    Each accent speaks with 37 voices in training, 6 others in validation and 10 others in test, at 120 to 260 words a
    minute, from low to high, with pauses as in telephone numbers; signal-to-noise ratios are 10 to 40 dB. The data
    depend on the sizes, the sample rate, and the versions of this package and of espeakng_loader alone; they are spoken
    once, and kept in a cache.

    Args:
        batch_size: Utterances of a batch over all processes together, on average: batches last about equally long.
        train: Number of training utterances.
        val: Number of validation utterances; there is no such split if 0.
        test: Number of test utterances; there is no such split if 0.
        tokens: What a token is, and how transcripts are normalised; characters if not given.
        sample_rate: Samples a second, in Hz.
        shortest: Seconds; shorter utterances are left out of training.
        longest: Seconds; longer utterances are left out of training.
        augment: Random changes of the sound of training batches, in order.
        num_workers: Loader processes; 0, reading in the training process, is the fastest for sound in memory.
        seed: Seed of the order and of the augmentation.

    Raises:
        ValueError: If a size is too small.
    """

    def __init__(
        self,
        *,
        batch_size: int = 32,
        train: int = 3000,
        val: int = 300,
        test: int = 500,
        tokens: Tokens | None = None,
        sample_rate: int = 16000,
        shortest: float = 0.1,
        longest: float = 20.0,
        augment: list[Augment] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            tokens=tokens,
            sample_rate=sample_rate,
            shortest=shortest,
            longest=longest,
            augment=augment,
            kept_mib=0,  # they are in memory
            num_workers=num_workers,
            seed=seed,
        )
        for name, value, least in (("train", train, 1), ("val", val, 0), ("test", test, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least} utterances, got {value}")
        self.sizes: dict[Split, int] = {"train": train, "val": val, "test": test}

    def read(self) -> Corpus:
        """Have the strings spoken, or take what was spoken before.

        Raises:
            ValueError: If eSpeak NG is not installed, or does not run here.
        """
        spoken = plan(self.sizes)
        rate = self.sample_rate
        path = cache_folder("digit_strings") / f"{_digest(spoken, rate)}.safetensors"
        held = cached_tensors(
            path, lambda: _record(spoken, rate), what="spoken digit strings", limit=_CACHE_BYTES
        )
        samples, offsets = held["samples"].numpy(), held["offsets"].tolist()
        splits: dict[Split, list[Utterance]] = {s: [] for s, size in self.sizes.items() if size}
        for number, one in enumerate(spoken):
            audio = AudioArray(samples[offsets[number] : offsets[number + 1]], rate)
            found = splits[one.split]
            source = f"digit strings, {one.split} {len(found)}"
            found.append(Utterance(audio, one.text, source, one.speaker))
        return Corpus(splits)


def plan(sizes: dict[Split, int]) -> list[Spoken]:
    """Return what is said by whom; the first ones of a split do not depend on its size.

    Args:
        sizes: Number of utterances of each split.

    Raises:
        ValueError: If eSpeak NG is not installed.
    """
    accents = [voice for voice in ACCENTS if voice in voices()]
    installed = {"", *variants()}
    spoken = []
    for number, split in enumerate(VARIANTS):
        random = np.random.default_rng([_FORMAT, number])
        throats = [variant for variant in VARIANTS[split] if variant in installed]
        for _ in range(sizes[split]):
            digits = [WORDS[d] for d in random.integers(10, size=random.integers(MOST_DIGITS) + 1)]
            pauses = random.random(len(digits)) < _PAUSED
            said = [
                f"{word}," if pause else word for word, pause in zip(digits, pauses, strict=True)
            ]
            phrase = Phrase(
                text=" ".join(said).rstrip(","),
                voice=accents[random.integers(len(accents))],
                variant=throats[random.integers(len(throats))],
                rate=int(random.integers(*_RATES, endpoint=True)),
                pitch=int(random.integers(*_PITCHES, endpoint=True)),
            )
            seed = int(random.integers(2**31))
            spoken.append(Spoken(split, " ".join(digits), phrase, seed))
    return spoken


def _digest(spoken: Sequence[Spoken], rate: int) -> str:
    """A name for all that the samples depend on."""
    said = [_FORMAT, version(), rate, [asdict(one) for one in spoken]]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _record(spoken: Sequence[Spoken], rate: int) -> dict[str, Tensor]:
    """Speak, resample, and add silence and noise: all samples one after another, and where each utterance begins."""
    heard = speak([one.phrase for one in spoken])
    recorded = [
        _in_noise(resampled(torch.from_numpy(clean.astype(np.float32)), RATE, rate), rate, one.seed)
        for one, clean in zip(spoken, heard, strict=True)
    ]
    return {
        "samples": torch.cat(recorded),
        "offsets": torch.tensor([0, *map(len, recorded)]).cumsum(0),
    }


def _in_noise(speech: Tensor, rate: int, seed: int) -> Tensor:
    """Return (L',) int16: the speech with silence around it, at a random level, in coloured noise."""
    random = np.random.default_rng(seed)
    before, after = (int(seconds * rate) for seconds in random.uniform(*_SILENCE, 2))
    level, ratio, slope = (random.uniform(*bounds) for bounds in (_LEVEL, _SNR, _SLOPE))
    clean = np.pad(_at_level(speech.numpy(), level), (before, after))
    heard = clean + _at_level(_noise(random, len(clean), rate, slope), level - ratio)
    return torch.from_numpy(np.rint(np.clip(heard, -32768, 32767)).astype(np.int16))


def _at_level(sound: _Sound, level: float) -> _Sound:
    """Scale to a root mean square in dB below the full scale of int16."""
    return sound * np.float32(32768 * 10 ** (level / 20) / np.sqrt(np.mean(np.square(sound))))


def _noise(random: np.random.Generator, samples: int, rate: int, slope: float) -> _Sound:
    """Return (samples,) noise whose power falls with frequency to the power `slope`, above 50 Hz."""
    size = 1 << (samples - 1).bit_length()
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / rate), 50.0)
    spectrum = np.fft.rfft(random.standard_normal(size, dtype=np.float32))
    noise = np.fft.irfft(spectrum * np.float32(frequency ** (-slope / 2)), size)
    return noise[:samples].astype(np.float32)
