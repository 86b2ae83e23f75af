import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.audio import (
    TOLERANCE,
    AudioFile,
    Joined,
    find_audio,
    resampled,
    resampled_length,
    undecodable,
)
from resdomains_tasks.speech_recognition.utterances import Audio

from .sounds import cut, noise, save_noise, save_values


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own: what was found of files is kept there."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def refused(path: Path, offset: float = 0.0, seconds: float | None = None) -> str:
    with pytest.raises(BadSample) as caught:
        AudioFile(path, offset, seconds)
    assert caught.value.source == str(path)
    return caught.value.reason


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.4)])
def test_a_file_gives_the_samples_that_were_written(
    tmp_path: Path, suffix: str, tolerance: float
) -> None:
    audio = AudioFile(save_noise(tmp_path / f"a{suffix}", 0.5, 16000))
    assert (audio.rate, audio.samples, audio.seconds) == (16000, 8000, 0.5)
    waveform = audio.read()
    assert waveform.dtype == torch.float32
    assert waveform.shape == (8000,)
    assert (waveform - torch.from_numpy(noise(0.5, 16000)[:, 0])).abs().max() < tolerance


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_part_is_that_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = save_noise(tmp_path / f"a{suffix}", 2.0, 16000)
    whole = AudioFile(path).read()
    assert len(whole) == AudioFile(path).samples == 32000
    part = AudioFile(path, 0.75, 0.5)
    assert part.seconds == 0.5
    assert torch.allclose(part.read(), whole[12000:20000], atol=1e-6)
    assert torch.allclose(AudioFile(path, 1.5).read(), whole[24000:], atol=1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    audio = AudioFile(save_noise(tmp_path / "a.wav", 0.5, channels=3, subtype="FLOAT"))
    assert torch.allclose(audio.read(), torch.from_numpy(noise(0.5, channels=3).mean(1)))


def test_a_long_file_is_read_whole(tmp_path: Path) -> None:
    # More than one piece of 2^20 samples.
    values = noise(140.0)[:, 0]
    assert torch.equal(
        AudioFile(save_values(tmp_path / "a.wav", values)).read(), torch.from_numpy(values)
    )


def test_loud_high_and_tiny_recordings_are_taken(tmp_path: Path) -> None:
    clipped = save_values(tmp_path / "clipped.wav", np.array([1.0, -1.0, 3.5] * 80, np.float32))
    assert AudioFile(clipped).read().max() == 3.5
    high = AudioFile(save_noise(tmp_path / "high.wav", 0.5, 96000))
    assert (high.rate, high.samples) == (96000, 48000)
    single = AudioFile(save_values(tmp_path / "one.wav", np.array([0.25], np.float32)))
    assert single.read().tolist() == [0.25]


def test_the_content_counts_not_the_suffix(tmp_path: Path) -> None:
    path = save_noise(tmp_path / "a.wav", format="FLAC")
    assert path.read_bytes()[:4] == b"fLaC"
    assert AudioFile(path).read().shape == (4000,)


def test_names_may_hold_blanks_and_any_bytes(tmp_path: Path) -> None:
    first = save_noise(tmp_path / "ä b" / "日本 語.wav")
    second = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    second.write_bytes(first.read_bytes())
    for path in (first, second):
        assert AudioFile(path).read().shape == (4000,)
    assert find_audio(tmp_path) == [second, first]
    assert undecodable([AudioFile(first), AudioFile(second)]) == {}


def test_what_is_no_recording_is_named_with_the_reason(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.wav") == "the file does not exist"
    (tmp_path / "empty.wav").touch()
    assert refused(tmp_path / "empty.wav") == "the file is empty (0 bytes)"
    (tmp_path / "text.wav").write_text("hello")
    assert "not a recording that soundfile reads (Format not recognised); give WAV" in refused(
        tmp_path / "text.wav"
    )
    (tmp_path / "a.raw").write_bytes(bytes(100))
    assert "not a recording that soundfile reads" in refused(tmp_path / "a.raw")
    assert refused(tmp_path) == "is a folder, not a file"
    assert refused(save_noise(tmp_path / "none.wav", 0.0)) == "holds no samples"
    assert "its header states 10 samples a second" in refused(
        save_noise(tmp_path / "slow.wav", 5.0, 10)
    )
    assert "File name too long" in refused(tmp_path / ("x" * 300))
    assert refused(tmp_path / "\ud800") == "is not the name of a file"


def test_a_cut_wav_is_told_by_its_header(tmp_path: Path) -> None:
    path = cut(save_noise(tmp_path / "a.wav"))
    assert "cut short: the header states 8,000 bytes of sound, 3,978 are there" in refused(path)


def test_a_wav_that_lacks_hundredths_of_a_second_is_taken(tmp_path: Path) -> None:
    path = cut(save_noise(tmp_path / "a.wav"), 0.95)
    assert AudioFile(path).read().shape == (AudioFile(path).samples,)
    assert 0.45 < AudioFile(path).seconds < 0.5


def test_a_wav_of_unknown_length_is_what_there_is(tmp_path: Path) -> None:
    # As programs that write to a pipe leave it: sizes of 2^32 - 1.
    path = save_noise(tmp_path / "a.wav")
    whole = bytearray(path.read_bytes())
    place = whole.index(b"data") + 4
    whole[4:8] = whole[place : place + 4] = b"\xff" * 4
    path.write_bytes(whole)
    assert AudioFile(path).read().shape == (4000,)


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_a_cut_file_is_named_when_it_is_read(tmp_path: Path, suffix: str) -> None:
    path = cut(save_noise(tmp_path / f"a{suffix}", 3.0, 16000))
    with pytest.raises(BadSample, match=r"damaged.*copy it again") as caught:
        AudioFile(path).read()
    assert caught.value.source == str(path)


def test_a_header_that_states_hours_takes_no_memory_for_them(tmp_path: Path) -> None:
    path = save_noise(tmp_path / "a.flac", 0.5, 16000)
    whole = bytearray(path.read_bytes())
    # STREAMINFO: the last 36 of the 64 bits from byte 18 are the number of samples.
    whole[22:26] = (2**29).to_bytes(4, "big")
    path.write_bytes(whole)
    audio = AudioFile(path)
    assert audio.samples == 2**29
    with pytest.raises(BadSample, match="damaged"):
        audio.read()
    # Minutes of FLAC can really hold years of silence.
    whole[21] |= 0x0F
    path.write_bytes(whole)
    with pytest.raises(BadSample, match=r"samples, more than the 1,073,741,824 that are read"):
        AudioFile(path)
    assert AudioFile(path, 0.0, 0.25).samples == 4000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    values = noise(0.5)[:, 0]
    values[1000:1002] = value
    path = save_values(tmp_path / "a.wav", values)
    with pytest.raises(BadSample, match="2 of its 4,000 samples are NaN or infinite") as caught:
        AudioFile(path).read()
    assert caught.value.source == str(path)
    assert AudioFile(path, 0.25).read().shape == (2000,)


@pytest.mark.parametrize(
    ("offset", "seconds", "reason"),
    [
        (0.5, None, "the part from 0.5 s is not in the file, which lasts 0.500 s"),
        (0.25, 0.4, "the part from 0.25 to 0.65 s is not in the file, which lasts 0.500 s"),
        (1e300, 1e300, "is not in the file"),
        (-0.1, None, "a part must begin at 0 s or later, got -0.1 s"),
        (float("nan"), None, "a part must begin at 0 s or later, got nan s"),
        (0.0, 0.0, "a part must be longer than 0 s, got 0 s"),
        (0.0, float("inf"), "a part must be longer than 0 s, got inf s"),
        (0.0, 1e-5, "a part of 1e-05 s is shorter than one sample"),
    ],
)
def test_a_part_must_be_in_the_file(
    tmp_path: Path, offset: float, seconds: float | None, reason: str
) -> None:
    assert reason in refused(save_noise(tmp_path / "a.wav"), offset, seconds)


def test_a_rounded_end_is_the_end(tmp_path: Path) -> None:
    path = save_noise(tmp_path / "a.wav")
    assert AudioFile(path, 0.25, 0.25 + 0.9 * TOLERANCE).samples == 2000
    assert "not in the file" in refused(path, 0.25, 0.25 + 1.1 * TOLERANCE)


def test_an_audio_file_travels_to_loader_processes_as_a_few_bytes(tmp_path: Path) -> None:
    audio = AudioFile(save_noise(tmp_path / "a.wav"), 0.1, 0.2)
    sent = pickle.dumps(audio)
    assert len(sent) < 200 + len(str(tmp_path))
    assert torch.equal(pickle.loads(sent).read(), audio.read())


def test_joined_recordings_are_one_after_another_with_zeros_between(tmp_path: Path) -> None:
    parts = [AudioFile(save_noise(tmp_path / f"{i}.wav", 0.1 * i, seed=i)) for i in (1, 2, 3)]
    joined = Joined(parts, [0.05, 0.0])
    waveform = joined.read()
    assert waveform.shape == (joined.samples,) == (800 + 400 + 1600 + 2400,)
    first, gap, second, third = torch.split(waveform, [800, 400, 1600, 2400])
    assert not gap.any()
    for found, part in zip((first, second, third), parts, strict=True):
        assert torch.equal(found, part.read())
    assert torch.equal(pickle.loads(pickle.dumps(joined)).read(), waveform)


def test_recordings_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    one = AudioFile(save_noise(tmp_path / "1.wav"))
    other = AudioFile(save_noise(tmp_path / "2.wav", rate=16000))
    with pytest.raises(ValueError, match="got 0 recordings and 0 gaps"):
        Joined([], [])
    with pytest.raises(ValueError, match="got 2 recordings and 0 gaps"):
        Joined([one, one], [])
    with pytest.raises(ValueError, match=r"must have one rate, got \[8000, 16000\] Hz"):
        Joined([one, other], [0.1])
    with pytest.raises(ValueError, match=r"gaps must be at least 0 s, got -0\.1"):
        Joined([one, one], [-0.1])


def test_a_folders_recordings_are_found_by_suffix_in_order(tmp_path: Path) -> None:
    for name in ("b/2.FLAC", "b/1.wav", "a.mp3", ".hidden.wav", ".cache/x.wav", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert found == ["a.mp3", "b/1.wav", "b/2.FLAC"]
    assert find_audio(tmp_path / "no") == []


def tone(rate: int) -> Tensor:
    """A second of 440 Hz."""
    return torch.sin(2 * torch.pi * 440.0 * torch.arange(rate, dtype=torch.float64) / rate).float()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 768000])
def test_resampling_keeps_a_tone(rate: int) -> None:
    waveform = resampled(tone(rate), rate, 16000)
    assert len(waveform) == 16000
    assert (waveform - tone(16000))[200:-200].abs().max() < 2e-2


@pytest.mark.parametrize("rate", [16001, 15999, 12345, 44101])
def test_a_ratio_of_large_terms_moves_a_tone_by_less_than_a_thousandth(rate: int) -> None:
    waveform = resampled(tone(rate), rate, 16000)[:16000]
    spectrum = torch.fft.rfft(waveform * torch.hann_window(len(waveform)), 2**20).abs()
    assert int(spectrum.argmax()) * 16000 / 2**20 == pytest.approx(440.0, rel=1e-3)


@pytest.mark.parametrize("samples", [1, 2, 7, 1000, 12347])
@pytest.mark.parametrize("rates", [(96000, 16000), (44100, 16000), (8000, 16000), (7919, 16001)])
def test_the_resampled_length_is_known_before(samples: int, rates: tuple[int, int]) -> None:
    for rate, to in (rates, rates[::-1]):
        waveform = resampled(torch.rand(samples), rate, to)
        assert len(waveform) == resampled_length(samples, rate, to) >= 1
        assert waveform.isfinite().all()


def test_equal_rates_change_nothing() -> None:
    waveform = torch.rand(2, 100)
    assert torch.equal(resampled(waveform, 16000, 16000), waveform)
    assert resampled_length(100, 16000, 16000) == 100


def test_odd_ratios_take_no_seconds() -> None:
    waveform = torch.rand(16000)
    for rate, to in ((16000, 15999), (44101, 16000), (16000, 44101)):
        begin = time.perf_counter()
        resampled(waveform, rate, to)
        # By torchaudio's own filter of these ratios: 5 s and more.
        assert time.perf_counter() - begin < 2.0


class Spoken(Audio):
    """Sound that stands in no file."""

    def __init__(self, reason: str | None) -> None:
        self.rate, self.samples, self.reason = 8000, 10, reason

    def read(self) -> Tensor:
        if self.reason is not None:
            raise BadSample("spoken", self.reason)
        return torch.zeros(10)


@pytest.mark.parametrize("workers", [0, 1])
def test_every_recording_that_cannot_be_decoded_is_found(tmp_path: Path, workers: int) -> None:
    good = AudioFile(save_noise(tmp_path / "good.wav"))
    path = save_values(tmp_path / "nan.wav", np.array([0.0] * 500 + [np.nan] * 500, np.float32))
    broken = AudioFile(cut(save_noise(tmp_path / "cut.flac", 3.0, 8000)))
    audios = [
        good,
        AudioFile(path),
        AudioFile(path, 0.0, 0.05),
        Joined([good, broken, AudioFile(path)], [0.1, 0.1]),
        Spoken("no voice"),
        Spoken(None),
        Joined([good, Spoken("silent")], [0.0]),
    ]
    bad = undecodable(audios, workers)
    assert list(bad) == [1, 3, 4, 6]
    assert [bad[i].source for i in bad] == [
        str(path),
        str(tmp_path / "cut.flac"),
        "spoken",
        "spoken",
    ]
    assert "NaN" in bad[1].reason
    assert "damaged" in bad[3].reason


def test_what_was_decoded_once_is_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audios = [AudioFile(save_noise(tmp_path / f"{i}.wav", seed=i)) for i in range(3)]
    decoded = 0
    read = soundfile.SoundFile.read

    def count(*args: object, **options: object) -> object:
        nonlocal decoded
        decoded += 1
        return read(*args, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", count)
    joined = [*audios, Joined(audios, [0.0, 0.0])]
    assert undecodable(joined) == {}
    assert decoded == 3
    assert undecodable(joined) == {}
    assert decoded == 3
    save_values(tmp_path / "1.wav", np.full(4000, np.nan, np.float32))
    assert list(undecodable(joined)) == [1, 3]
    assert decoded == 6


def test_all_of_fsdd_is_listed_and_decoded_in_seconds(shared_data: Path) -> None:
    if not (shared_data / "fsdd").is_dir():
        pytest.skip("FSDD is not there")
    begin = time.perf_counter()
    audios = [AudioFile(path) for path in find_audio(shared_data / "fsdd")]
    # 0.3 s on one core; ten times as long on a busy one.
    assert time.perf_counter() - begin < 3.0
    assert len(audios) == 3000
    assert sum(audio.seconds for audio in audios) == pytest.approx(1312, abs=1)
    assert undecodable(audios) == {}
