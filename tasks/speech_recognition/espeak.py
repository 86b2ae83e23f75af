"""Speech from text by eSpeak NG, whose library and voices the package espeakng_loader brings.

The library keeps a state that nobody can reset (its voices flutter on from phrase to phrase), and it could crash; so it
runs in a fresh process each time, this very file as a script, which says the phrases in the order that it is given.
"""

import ctypes
import difflib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

RATE = 22050
"""Samples a second, in Hz, of what is spoken."""

_INSTALL = (
    "pip install 'resdomains[speech-demo]', or train on recordings of your own (`resdomains tasks`)"
)
# Voices are files in two folders of the data, those of West Germanic languages and the variants.
_VOICES, _VARIANTS = ("lang", "gmw"), ("voices", "!v")
# Of speak_lib.h.
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE_PARAMETER, _PITCH_PARAMETER = 1, 3


@dataclass(frozen=True)
class Phrase:
    """What is said, and how.

    Args:
        text: Words.
        voice: One of `voices()`, such as `en-US`.
        variant: One of `variants()`, such as `f3`; the voice itself if empty.
        rate: Words a minute, 80 to 450.
        pitch: 0 to 99.

    Raises:
        ValueError: If a number is out of its range, or there is nothing to say.
    """

    text: str
    voice: str
    variant: str = ""
    rate: int = 175
    pitch: int = 50

    def __post_init__(self) -> None:
        if not self.text.strip() or "\0" in self.text:
            raise ValueError(f"text must hold words and no NUL, got {self.text!r}")
        if not 80 <= self.rate <= 450:
            raise ValueError(f"rate must be 80 to 450 words a minute, got {self.rate}")
        if not 0 <= self.pitch <= 99:
            raise ValueError(f"pitch must be 0 to 99, got {self.pitch}")


def voices() -> list[str]:
    """Return the English voices that are installed.

    Raises:
        ValueError: If none is, or eSpeak NG is not installed.
    """
    return [name for name in _files(*_VOICES) if name.split("-")[0] == "en"]


def variants() -> list[str]:
    """Return the variants that are installed: other throats for any voice.

    Raises:
        ValueError: If none is, or eSpeak NG is not installed.
    """
    return _files(*_VARIANTS)


def version() -> str:
    """Return the version of espeakng_loader: other ones may sound otherwise.

    Raises:
        ValueError: If it is not installed.
    """
    _installed()
    try:
        return metadata.version("espeakng-loader")
    except metadata.PackageNotFoundError:  # put there by hand
        return "unknown"


def speak(phrases: Sequence[Phrase]) -> Iterator[NDArray[np.int16]]:
    """Say phrases, in a fresh process: equal lists of phrases give equal samples.

    Args:
        phrases: What is said.

    Yields:
        (L,) samples of each phrase at `RATE`, with the short silences that eSpeak NG puts around it.

    Raises:
        ValueError: If eSpeak NG is not installed, does not run here, or lacks a voice or a variant.
    """
    library, data = _installed()
    _known("voice", {phrase.voice for phrase in phrases}, voices())
    _known("variant", {phrase.variant for phrase in phrases if phrase.variant}, variants())
    with tempfile.TemporaryFile() as requests, tempfile.TemporaryFile() as errors:
        requests.write(json.dumps([asdict(phrase) for phrase in phrases]).encode())
        requests.seek(0)
        # Isolated: neither the working folder nor the environment can put modules in the way.
        command = [sys.executable, "-I", str(Path(__file__)), str(library), str(data)]
        with subprocess.Popen(
            command, stdin=requests, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            assert process.stdout is not None
            try:
                for _ in phrases:
                    yield _received(process.stdout)
                process.wait()
            except EOFError:
                process.wait()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                reason = said[-1] if said else f"it ended with status {process.returncode}"
                raise ValueError(
                    f"eSpeak NG does not run here: {reason}; install it anew: {_INSTALL}"
                ) from None
            finally:
                process.kill()


def _received(stream: IO[bytes]) -> NDArray[np.int16]:
    head = stream.read(4)
    size = int.from_bytes(head, "little") if len(head) == 4 else 0
    data = stream.read(size)
    if not size or len(data) != size:
        raise EOFError
    return np.frombuffer(data, "<i2").astype(np.int16)


def _installed() -> tuple[Path, Path]:
    """The library and the folder of its data."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise ValueError(
            f"the digit strings are spoken by eSpeak NG, which is not installed ({error}): {_INSTALL}"
        ) from error
    try:
        library, data = (
            Path(espeakng_loader.get_library_path()),
            Path(espeakng_loader.get_data_path()),
        )
    except RuntimeError as error:
        raise ValueError(f"eSpeak NG has no voices ({error}): {_INSTALL}") from error
    if not library.is_file():
        raise ValueError(f"eSpeak NG has no library {library}: {_INSTALL}")
    return library, data


def _files(*folder: str) -> list[str]:
    where = _installed()[1].joinpath(*folder)
    found = sorted(path.name for path in where.glob("*") if path.is_file())
    if not found:
        raise ValueError(f"eSpeak NG has no voices in {where}: {_INSTALL}")
    return found


def _known(what: str, asked: set[str], known: Sequence[str]) -> None:
    for name in sorted(asked - set(known)):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else f", such as {', '.join(known[:5])}"
        raise ValueError(f"{what} must be one of eSpeak NG's files, got {name!r}{hint}")


class _Voice(ctypes.Structure):
    """The beginning of espeak_VOICE."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Speaker:
    """The library, in the process that is made for it.

    Raises:
        RuntimeError: If it does not start.
    """

    def __init__(self, library: str, data: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
        if rate != RATE:
            raise RuntimeError(f"its library starts with {rate}, not with {RATE} Hz, from {data}")
        # The noise of breathing voices, which else begins by the clock; the flutter of all others begins anew only in a
        # new process.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))
        self._pieces: list[bytes] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: int | None, count: int, _: int | None) -> int:
        if samples and count > 0:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, phrase: Phrase) -> bytes:
        """Return the samples.

        Raises:
            RuntimeError: If the library does something else.
        """
        # A voice by its file: of languages, `en-gb` is listed and cannot be chosen.
        name = f"gmw/{phrase.voice}" + (f"+{phrase.variant}" if phrase.variant else "")
        self._checked("SetVoiceByName", self._library.espeak_SetVoiceByName(name.encode()), phrase)
        voice = self._library.espeak_GetCurrentVoice()
        chosen = (voice.contents.identifier or b"").decode(errors="replace") if voice else ""
        if chosen != name:
            raise RuntimeError(f"{phrase}: it chose the voice {chosen!r}, not {name!r}")
        for parameter, value in ((_RATE_PARAMETER, phrase.rate), (_PITCH_PARAMETER, phrase.pitch)):
            code = self._library.espeak_SetParameter(parameter, value, 0)
            self._checked("SetParameter", code, phrase)
        self._pieces.clear()
        text = phrase.text.encode() + b"\0"
        code = self._library.espeak_Synth(
            text, ctypes.c_size_t(len(text)), 0, 1, 0, _UTF8, None, None
        )
        self._checked("Synth", code, phrase)
        samples = b"".join(self._pieces)
        if not samples:
            raise RuntimeError(f"{phrase}: it said nothing")
        return samples

    @staticmethod
    def _checked(call: str, code: int, phrase: Phrase) -> None:
        if code != 0:
            raise RuntimeError(f"{phrase}: espeak_{call} returned {code}")


def _main(library: str, data: str) -> None:
    """Say what stdin asks for: JSON in, and out for each phrase its number of bytes, 4 of them, and its samples."""
    requests: list[dict[str, Any]] = json.load(sys.stdin)
    speaker = _Speaker(library, data)
    for request in requests:
        samples = speaker.say(Phrase(**request))
        sys.stdout.buffer.write(len(samples).to_bytes(4, "little") + samples)


if __name__ == "__main__":
    _main(*sys.argv[1:])
