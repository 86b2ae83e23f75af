"""Words that are tones: recordings that a small network learns to write down within seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from resdomains.core import ResNet1d, SpectrogramStem
from resdomains.training import BadSample
from resdomains_tasks.speech_recognition import (
    Audio,
    Characters,
    Corpus,
    LogMel,
    SpeechData,
    SpeechRecognition,
    SpeechSpec,
    Tokenizer,
    Utterance,
)

SPEECH = "resdomains_tasks.speech_recognition"
RATE = 2000
TONES = {"low": 150.0, "mid": 400.0, "high": 800.0}


def spoken(words: list[str], seed: int = 0) -> npt.NDArray[np.float32]:
    """(L,) float32: a tone of 0.16 to 0.24 s for each word, with short silences around."""
    draw = np.random.default_rng(seed)
    parts = [np.zeros(100)]
    for word in words:
        time = np.arange(draw.integers(320, 480)) / RATE
        parts += [0.4 * np.sin(2 * np.pi * TONES[word] * time), np.zeros(draw.integers(100, 200))]
    sound = np.concatenate(parts)
    return (sound + 0.005 * draw.standard_normal(len(sound))).astype(np.float32)


def write_corpus(folder: Path, count: int = 80) -> Path:
    """Write recordings of one to four words, each with its transcript beside it."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        words = draw.choice(list(TONES), draw.integers(1, 5)).tolist()
        soundfile.write(folder / f"{number:03}.wav", spoken(words, number), RATE)
        (folder / f"{number:03}.txt").write_text(" ".join(words) + "\n")
    return folder


def small_config(root: Path | str) -> dict[str, Any]:
    """A run of seconds over what `write_corpus` wrote."""
    return {
        "seed": 0,
        "model": {
            "class_path": f"{SPEECH}.SpeechRecognition",
            "init_args": {
                "frontend": {"class_path": f"{SPEECH}.LogMel", "init_args": {"bands": 12}},
                "masking": {
                    "class_path": f"{SPEECH}.SpecAugment",
                    "init_args": {"frequency_width": 2},
                },
                "backbone": {
                    "class_path": "resdomains.core.ResNet1d",
                    "init_args": {
                        "in_channels": 12,
                        "layers": [2, 1],
                        "channels": [24, 24],
                        "strides": [1, 1],
                        "stem": {
                            "class_path": "resdomains.core.SpectrogramStem",
                            "init_args": {"kernel": 5},
                        },
                    },
                },
                "optimization": {"lr": 0.003},
            },
        },
        "data": {
            "class_path": f"{SPEECH}.TranscribedFolder",
            "init_args": {
                "root": str(root),
                "sample_rate": RATE,
                "batch_size": 8,
                "augment": [{"class_path": f"{SPEECH}.SpeedPerturbation"}],
            },
        },
    }


class Kept(Audio):
    """Sound in memory that counts how often it is read."""

    def __init__(self, waveform: Tensor, rate: int = RATE) -> None:
        self.waveform, self.rate, self.samples = waveform, rate, len(waveform)
        self.reads = 0

    def read(self) -> Tensor:
        self.reads += 1
        return self.waveform


class Damaged(Audio):
    """Sound whose header looks well."""

    rate, samples = RATE, 400

    def read(self) -> Tensor:
        raise BadSample("damaged.wav", "cannot be decoded")


def said(words: str, source: str = "", *, speaker: str | None = None, seed: int = 0) -> Utterance:
    """An utterance of tones, named by its words if not otherwise."""
    audio = Kept(torch.from_numpy(spoken(words.split(), seed)))
    return Utterance(audio, words, source or words, speaker)


class Given(SpeechData):
    """The utterances that it is given."""

    def __init__(
        self, train: Sequence[Utterance], *, notes: Sequence[str] = (), **options: Any
    ) -> None:
        self.given = {"train": list(train)}
        for split in ("val", "test"):
            if split in options:
                self.given[split] = list(options.pop(split))
        self.told = list(notes)
        super().__init__(**{"batch_size": 2, "sample_rate": RATE, **options})

    def read(self) -> Corpus:
        return Corpus(dict(self.given), list(self.told))  # type: ignore[arg-type]


def spec_of(*texts: str, rate: int = RATE) -> SpeechSpec:
    """The description of recordings whose tokens are the texts' characters."""
    tokenizer = Tokenizer(Characters().train(texts).to_str())
    return SpeechSpec(sample_rate=rate, tokenizer=tokenizer.json, vocabulary=tokenizer.size)


WORDS = spec_of("low mid high")


def small_task(spec: SpeechSpec = WORDS, **options: Any) -> SpeechRecognition:
    """The network of `small_config`; the same weights each time."""
    torch.manual_seed(0)
    backbone = ResNet1d(
        in_channels=12,
        layers=[2, 1],
        channels=[24, 24],
        strides=[1, 1],
        stem=lambda place: SpectrogramStem(place, kernel=5),
    )
    chosen = {"frontend": lambda rate: LogMel(rate, bands=12), **options}
    return SpeechRecognition(**{"backbone": backbone, "spec": spec.plain(), **chosen})
