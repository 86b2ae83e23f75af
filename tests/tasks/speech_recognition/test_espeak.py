import importlib.util
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from resdomains_tasks.speech_recognition import espeak
from resdomains_tasks.speech_recognition.digit_strings import ACCENTS, VARIANTS
from resdomains_tasks.speech_recognition.digits import WORDS
from resdomains_tasks.speech_recognition.espeak import (
    RATE,
    Phrase,
    speak,
    variants,
    version,
    voices,
)

needs_voices = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs the extra speech-demo"
)


def spectra(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Log power in 100 parts of the time and 40 bands of 200 Hz, at one loudness."""
    sound = samples / np.sqrt(np.mean(np.square(samples, dtype=float)))
    begins = np.linspace(0, len(sound) - 882, 100).astype(int)
    frames = np.stack([sound[begin : begin + 882] for begin in begins]) * np.hanning(882)
    power = np.square(np.abs(np.fft.rfft(frames)))[:, 8:328].reshape(100, 40, 8).mean(2)
    found: NDArray[np.float64] = np.log(power + 1e-2)
    return found


@needs_voices
def test_equal_phrases_sound_equal_in_every_process() -> None:
    # Whispers are noise; the others flutter.
    phrases = [Phrase("one two three", "en-US", name) for name in ("whisper", "", "f5", "")]
    first = list(speak(phrases))
    time.sleep(1.1)  # the library would begin its noise by the second
    for once, again in zip(first, speak(phrases), strict=True):
        assert once.dtype == np.int16
        np.testing.assert_array_equal(once, again)
    # Why the order counts, and the process is fresh.
    assert not np.array_equal(first[1], first[3])


@needs_voices
def test_all_shipped_speakers_sound_different() -> None:
    throats = [variant for of_split in VARIANTS.values() for variant in of_split]
    assert len(set(throats)) == len(throats)
    speakers = [(ACCENTS[0], variant) for variant in throats]
    speakers += [(accent, "") for accent in ACCENTS[1:]]
    text = " ".join(WORDS)
    heard = [spectra(x) for x in speak([Phrase(text, *speaker) for speaker in speakers * 2])]
    once, again = heard[: len(speakers)], heard[len(speakers) :]
    same = [np.abs(a - b).mean() for a, b in zip(once, again, strict=True)]
    for i, j in itertools.combinations(range(len(speakers)), 2):
        difference = np.abs(once[i] - once[j]).mean()
        assert difference > 0.4, (speakers[i], speakers[j])
        # Voices flutter: the same one is not quite the same the next time.
        assert difference > 1.4 * max(same[i], same[j]), (speakers[i], speakers[j])


@needs_voices
def test_rate_and_pitch_are_heard() -> None:
    slow, fast, high = speak(
        [
            Phrase("one two three", "en-US", rate=120),
            Phrase("one two three", "en-US", rate=240),
            Phrase("one two three", "en-US", rate=120, pitch=90),
        ]
    )
    assert 0.5 * RATE < 1.5 * len(fast) < len(slow) < 3 * RATE

    def period(samples: NDArray[np.int16]) -> int:
        piece = samples[len(samples) // 8 :][:2048].astype(float)
        correlation = np.correlate(piece, piece, "full")[2047:]
        shortest = RATE // 300
        return shortest + int(correlation[shortest : RATE // 60].argmax())

    assert period(high) < 0.8 * period(slow)


@needs_voices
def test_names_are_those_of_the_files() -> None:
    assert set(ACCENTS) <= set(voices())
    assert {v for of_split in VARIANTS.values() for v in of_split} <= {"", *variants()}
    # The library takes both without a word, and speaks as someone else.
    with pytest.raises(ValueError, match="voice must be one of eSpeak NG's files, got 'en-gb'"):
        list(speak([Phrase("one", "en-gb")]))
    with pytest.raises(ValueError, match=r"variant must be .* got 'f33'; did you mean f3"):
        list(speak([Phrase("one", "en", "f33")]))


@needs_voices
def test_a_voice_that_the_library_replaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "variants", lambda: ["nobody"])
    said = speak([Phrase("one", "en"), Phrase("one", "en", "nobody")])
    assert len(next(said)) > 1000
    with pytest.raises(ValueError, match=r"it chose the voice 'gmw/en', not 'gmw/en\+nobody'"):
        next(said)


@needs_voices
def test_listening_may_end_early() -> None:
    said = speak([Phrase("one two three " * 30, "en")] * 50)
    next(said)
    begin = time.monotonic()
    said.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 5
    assert list(speak([])) == []


def fake(monkeypatch: pytest.MonkeyPatch, library: Path, data: Path) -> None:
    """Pretend that the package has these files, with one voice."""
    for folder, name in ((data / "lang" / "gmw", "en"), (data / "voices" / "!v", "f1")):
        folder.mkdir(parents=True)
        (folder / name).write_text("name English")
    module: Any = type(sys)("espeakng_loader")
    module.get_library_path, module.get_data_path = lambda: str(library), lambda: str(data)
    monkeypatch.setitem(sys.modules, "espeakng_loader", module)


def test_a_broken_library_is_said_and_stops_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library.so"
    fake(monkeypatch, library, tmp_path / "data")
    with pytest.raises(ValueError, match=r"no library .*library\.so: pip install"):
        version()
    library.write_text("not a library")
    with pytest.raises(ValueError, match=r"does not run here: OSError.*install it anew: pip"):
        list(speak([Phrase("one", "en")]))


@needs_voices
def test_a_library_without_its_voices_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import espeakng_loader

    library = Path(espeakng_loader.get_library_path())
    fake(monkeypatch, library, tmp_path / "data")
    with pytest.raises(
        ValueError, match=r"library starts with .*, not with 22050 Hz.*install it anew"
    ):
        list(speak([Phrase("one", "en")]))


@pytest.mark.skipif(sys.platform == "win32", reason="has no such program")
def test_a_crash_of_the_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library.so"
    library.write_text("")
    fake(monkeypatch, library, tmp_path / "data")
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ValueError, match="does not run here: it ended with status -11"):
        list(speak([Phrase("one", "en")]))


def test_without_the_package_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    for ask in (voices, variants, version, lambda: list(speak([Phrase("one", "en")]))):
        with pytest.raises(
            ValueError, match=r"not installed .*resdomains\[speech-demo\].*your own"
        ):
            ask()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": " "}, "text must hold words and no NUL, got ' '"),
        ({"text": "a\0b"}, "no NUL"),
        ({"rate": 79}, "rate must be 80 to 450 words a minute, got 79"),
        ({"rate": 451}, "got 451"),
        ({"pitch": -1}, "pitch must be 0 to 99, got -1"),
        ({"pitch": 100}, "got 100"),
    ],
)
def test_what_cannot_be_said_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Phrase(**{"text": "one", "voice": "en", **arguments})
