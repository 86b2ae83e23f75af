import hashlib
import importlib.util
import os
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resdomains.schema import Split
from resdomains_tasks.speech_recognition import digit_strings
from resdomains_tasks.speech_recognition.digit_strings import (
    ACCENTS,
    MOST_DIGITS,
    VARIANTS,
    AudioArray,
    DigitStrings,
    plan,
)
from resdomains_tasks.speech_recognition.digits import WORDS
from resdomains_tasks.speech_recognition.utterances import Corpus

needs_voices = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs the extra speech-demo"
)
SIZES: dict[Split, int] = {"train": 30, "val": 6, "test": 10}
SUM = """
import hashlib
from resdomains_tasks.speech_recognition.digit_strings import DigitStrings
corpus = DigitStrings(train=30, val=6, test=10).read()
digest = hashlib.sha256()
for split, utterances in corpus.splits.items():
    for u in utterances:
        digest.update(f"{split} {u.text} {u.speaker} {u.source}".encode() + u.audio.array.tobytes())
print(digest.hexdigest())
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "resdomains" / "digit_strings"


def data(**arguments: Any) -> DigitStrings:
    sizes: dict[str, Any] = dict(SIZES.items())
    return DigitStrings(**(sizes | arguments))


def arrays(corpus: Corpus) -> list[Any]:
    return [u.audio.array for found in corpus.splits.values() for u in found]  # type: ignore[attr-defined]


@needs_voices
def test_strings_are_words_of_all_digits_and_lengths() -> None:
    spoken = plan({"train": 2000, "val": 100, "test": 100})
    assert Counter(one.split for one in spoken) == {"train": 2000, "val": 100, "test": 100}
    words = Counter(word for one in spoken for word in one.text.split(" "))
    assert set(words) == set(WORDS)
    assert min(words.values()) > 0.08 * words.total()
    lengths = Counter(len(one.text.split(" ")) for one in spoken)
    assert set(lengths) == set(range(1, MOST_DIGITS + 1))
    assert min(lengths.values()) > 0.1 * len(spoken)
    # What is said is what is written, but for pauses.
    assert all(one.phrase.text.replace(",", "") == one.text for one in spoken)
    assert sum("," in one.phrase.text for one in spoken) > 300


@needs_voices
def test_nobody_is_heard_in_two_splits() -> None:
    spoken = plan({"train": 3000, "val": 300, "test": 500})
    throats = {s: {one.phrase.variant for one in spoken if one.split == s} for s in VARIANTS}
    assert throats == {split: set(names) for split, names in VARIANTS.items()}
    assert len(set.union(*throats.values())) == sum(map(len, throats.values()))
    for split in VARIANTS:
        assert {one.phrase.voice for one in spoken if one.split == split} == set(ACCENTS)
    assert {one.speaker for one in spoken} > {"en-US", "en+f3", "en-029+whisper"}


@needs_voices
def test_a_larger_split_begins_with_the_smaller_ones() -> None:
    few, many = (plan({**SIZES, "train": size}) for size in (30, 90))
    assert many[:30] == few[:30]
    assert many[90:] == few[30:]


@needs_voices
def test_equal_arguments_give_equal_samples_in_every_process(cache: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256()
    for split, utterances in data().read().splits.items():
        for u in utterances:
            digest.update(f"{split} {u.text} {u.speaker} {u.source}".encode())
            digest.update(u.audio.array.tobytes())  # type: ignore[attr-defined]
    other = subprocess.run(
        [sys.executable, "-c", SUM],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "other")},
        capture_output=True,
        check=True,
    )
    assert other.stdout.decode().strip() == digest.hexdigest()
    assert len(list((tmp_path / "other" / "resdomains" / "digit_strings").iterdir())) == 1


@needs_voices
def test_sounds_are_plausible(cache: Path) -> None:
    corpus = data().read()
    assert {split: len(found) for split, found in corpus.splits.items()} == SIZES
    for found in corpus.splits.values():
        for u in found:
            digits = len(u.text.split(" "))
            assert 0.15 * digits + 0.04 < u.audio.seconds < 0.8 * digits + 1.5
            sound = u.audio.read()
            assert sound.dtype == torch.float32
            assert len(sound) == u.audio.samples
            assert 0.02 < sound.abs().max() < 1.0
            # Loud in speech, and never silent.
            frames = sound[: len(sound) // 160 * 160].view(-1, 160).square().mean(1)
            assert frames.max() > 10 * frames.min() > 0
    assert corpus.splits["test"][3].source == "digit strings, test 3"
    assert len({hashlib.sha256(x).digest() for x in arrays(corpus)}) == sum(SIZES.values())


@needs_voices
def test_what_was_spoken_is_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data().read()
    (path,) = cache.iterdir()
    monkeypatch.setattr(digit_strings, "speak", lambda *_: pytest.fail("spoken again"))
    again = data(seed=3, batch_size=8).read()
    assert all(map(np.array_equal, arrays(first), arrays(again)))
    assert [path] == list(cache.iterdir())


@needs_voices
def test_whatever_changes_the_samples_changes_the_place_in_the_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data().read()
    data(sample_rate=8000).read()
    data(train=31).read()
    monkeypatch.setattr(digit_strings, "version", lambda: "0.0")
    data().read()
    assert len(list(cache.iterdir())) == 4


@needs_voices
def test_a_damaged_cache_is_said_and_made_anew(cache: Path) -> None:
    first = data().read()
    (path,) = cache.iterdir()
    before = [x.copy() for x in arrays(first)]
    path.unlink()
    path.write_bytes(b"\0" * 100)
    with pytest.warns(UserWarning, match="cannot be read and is made anew"):
        again = data().read()
    assert all(map(np.array_equal, before, arrays(again)))


@needs_voices
def test_a_cache_that_cannot_be_written_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="spoken digit strings are not kept for the next run"):
        assert len(arrays(data().read())) == sum(SIZES.values())


@needs_voices
def test_other_rates_and_sizes(cache: Path) -> None:
    half, whole = data(sample_rate=8000).read(), data().read()
    for low, high in zip(arrays(half), arrays(whole), strict=True):
        assert abs(2 * len(low) - len(high)) <= 6
    assert list(data(val=0, test=0).read().splits) == ["train"]


@needs_voices
def test_the_data_describe_themselves(cache: Path) -> None:
    module = data()
    module.prepare()
    # 15 letters, the separator and the blank.
    assert module.speech_spec.vocabulary == 17
    assert module.describe("test", 0)["speaker"].split("+")[1] in VARIANTS["test"]
    found = module.dataset("val")
    assert found is not None
    assert len(found) == 6
    assert torch.equal(found.waveform(2), found.utterances[2].audio.read())


def test_noise_has_the_loudness_that_was_drawn() -> None:
    tone = torch.sin(torch.arange(16000) * 2 * torch.pi / 16)  # 1 kHz
    ratios, levels, silences = [], [], []
    for seed in range(60):
        heard = digit_strings._in_noise(tone, 16000, seed).double().numpy()
        silences.append((len(heard) - 16000) / 16000)
        middle = heard[7000:15000]  # silence before is 6400 samples at most
        steps = np.arange(len(middle)) * 2 * np.pi / 16
        waves = np.stack([np.sin(steps), np.cos(steps)], 1)
        weights, *_ = np.linalg.lstsq(waves, middle, rcond=None)
        signal, noise = waves @ weights, middle - waves @ weights
        ratios.append(10 * np.log10(np.mean(signal**2) / np.mean(noise**2)))
        levels.append(10 * np.log10(np.mean((signal / 32768) ** 2)))
    # Of noise below a kilohertz, half a second is a short sample: 3 dB of room.
    for found, (low, high), room in (
        (ratios, digit_strings._SNR, 3.0),
        (levels, digit_strings._LEVEL, 0.2),
        (silences, (0.04, 0.8), 0.0),
    ):
        assert low - room <= min(found) < low + 0.25 * (high - low)
        assert high - 0.25 * (high - low) < max(found) <= high + room


def test_the_slope_of_the_noise_is_that_of_its_power() -> None:
    random = np.random.default_rng(0)
    frequency = np.fft.rfftfreq(2**16, 1 / 16000)
    low, high = (frequency > 200) & (frequency < 400), (frequency > 3200) & (frequency < 6400)
    for slope in (0.0, 1.0, 2.0):
        power = np.abs(np.fft.rfft(digit_strings._noise(random, 2**16, 16000, slope))) ** 2
        # 16 times the frequency: 4 octaves of 3.01 dB for each unit of the slope.
        fall = 10 * np.log10(power[low].mean() / power[high].mean())
        assert fall == pytest.approx(12.04 * slope, abs=0.7)


def test_sound_in_memory_travels_without_its_neighbours() -> None:
    everything = np.arange(1_000_000, dtype=np.int16)
    audio = AudioArray(everything[500:1500], 16000)
    assert audio.samples == 1000
    assert audio.seconds == 0.0625
    assert torch.equal(audio.read(), torch.arange(500, 1500) / 32768)
    assert len(pickle.dumps(audio)) < 5000
    assert torch.equal(pickle.loads(pickle.dumps(audio)).read(), audio.read())


def test_without_the_voices_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    message = "pip install 'resdomains[speech-demo]', or train on recordings of your own"
    with pytest.raises(ValueError, match=re.escape(message)):
        data().prepare()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: DigitStrings(train=0), "train must be at least 1 utterances, got 0"),
        (lambda: DigitStrings(val=-1), "val must be at least 0 utterances, got -1"),
        (lambda: DigitStrings(sample_rate=0), "sample_rate must be at least 1 Hz"),
    ],
)
def test_sizes_that_cannot_be_are_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
