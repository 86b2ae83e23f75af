"""The launcher on recordings: from a folder to transcripts, and what it says of recordings that cannot be used."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from .conftest import Run
from .test_fitting import run_folder

RATE = 2000
TONES = {"low": 150.0, "mid": 400.0, "high": 800.0}

CONFIG = """
seed: 0
model:
  class_path: resdomains_tasks.speech_recognition.SpeechRecognition
  init_args:
    frontend: {class_path: LogMel, init_args: {bands: 12}}
    backbone:
      class_path: resdomains.core.ResNet1d
      init_args:
        in_channels: 12
        layers: [1, 1]
        channels: [16, 16]
        strides: [1, 1]
        stem: {class_path: resdomains.core.SpectrogramStem, init_args: {kernel: 5}}
    decoder: {class_path: PrefixBeam, init_args: {width: 4}}
    windows: {seconds: 2.0, overlap: 0.4}
    optimization: {lr: 0.003}
data:
  class_path: resdomains_tasks.speech_recognition.TranscribedFolder
  init_args: {root: words, sample_rate: 2000, batch_size: 8}
trainer: {max_epochs: 1, precision: 32-true, accelerator: cpu, enable_progress_bar: false}
run: {wandb: {mode: disabled}}
"""


def sound(words: str) -> Any:
    time = np.arange(400) / RATE
    gap = np.zeros(150)
    parts = [np.append(np.sin(2 * np.pi * TONES[w] * time), gap) for w in words.split()]
    return 0.4 * np.concatenate([gap, *parts])


def save(path: str, words: str, rate: int = RATE, channels: int = 1) -> None:
    samples = np.repeat(sound(words), rate // RATE)
    soundfile.write(path, np.stack([samples] * channels, 1), rate)


@pytest.fixture
def words(folder: Path) -> Path:
    """Recordings with their transcripts, of several rates and numbers of channels."""
    (folder / "words").mkdir()
    Path("speech.yaml").write_text(CONFIG)
    draw = np.random.default_rng(0)
    for number in range(32):
        text = " ".join(draw.choice(list(TONES), draw.integers(1, 4)))
        save(f"words/{number}.wav", text, 48 * RATE if number == 1 else RATE, 1 + number % 2)
        Path(f"words/{number}.txt").write_text(text)
    return folder / "words"


@pytest.fixture
def best(cli: Run, words: Path) -> str:
    """The best checkpoint of a short run."""
    status, _, errors = cli("fit", "--config", "speech.yaml")
    assert status == 0, errors
    return str(run_folder() / "checkpoints" / "best.ckpt")


def test_recordings_are_written_down_from_a_checkpoint_alone(cli: Run, best: str) -> None:
    Path("new calls").mkdir()
    save("new calls/a b.flac", "low mid", 8000, 2)
    save("new calls/long.wav", "low mid high " * 12)
    soundfile.write("new calls/one sample.wav", np.zeros(1), RATE)
    exact = ("--ckpt_path", best, "--precision", "32", "--accelerator", "cpu")
    status, out, errors = cli("predict", *exact, "new calls", "--format", "json")
    assert status == 0, errors
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["source"] for record in records] == [
        f"new calls/{name}" for name in ("a b.flac", "long.wav", "one sample.wav")
    ]
    assert [record["seconds"] for record in records] == [0.625, 9.975, 0.001]
    for record in records:
        assert [word["word"] for word in record["words"]] == record["text"].split()
    status, out, _ = cli("predict", *exact, "new calls", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["text"] for row in rows] == [record["text"] for record in records]
    assert [json.loads(row["words"] or "[]") for row in rows] == [r["words"] for r in records]
    status, out, _ = cli("predict", *exact, "new calls")
    assert out.splitlines()[0].split() == ["source", "seconds", "text"]
    assert "{" not in out

    Path("new calls/aa.wav").write_text("no sound")
    broken = "new calls/aa.wav: not a recording that soundfile reads"
    status, out, errors = cli("predict", *exact, "new calls")
    assert (status, out) == (2, "")
    assert errors.startswith(f"error: {broken}")
    status, out, errors = cli("predict", *exact, "new calls", "--bad_samples", "skip")
    assert status == 0
    assert f"skipped {broken}" in errors
    assert out.count("new calls/") == 3


def test_other_recordings_are_evaluated_with_the_checkpoints_tokens(cli: Run, best: str) -> None:
    Path("other").mkdir()
    for number in range(12):
        save(f"other/{number}.wav", "low mid")
        Path(f"other/{number}.txt").write_text("low")  # without most of the letters
    command = ("--config", "speech.yaml", "--data.root", "other", "--ckpt_path", best)
    status, out, errors = cli("test", *command, "--format", "json")
    assert status == 0, errors
    assert json.loads(out)["test/wer"] >= 0.0
    for number in range(12):
        Path(f"other/{number}.txt").write_text("zoo")
    status, _, errors = cli("validate", *command)
    assert status == 2
    assert "wav: no token spells 'z' (U+007A LATIN SMALL LETTER Z)" in errors


def test_an_utterance_too_short_for_its_text_is_named_and_left_out(
    cli: Run, words: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (3, 4, 5):
        (words / f"{number}.txt").write_text("low mid high " * 40)
    status, _, errors = cli("fit", "--config", "speech.yaml", "--trainer.max_epochs", "2")
    assert status == 0, errors
    said = [r.getMessage() for r in caplog.records if "do not fit into" in r.getMessage()]
    assert sorted(line.partition(":")[0] for line in said) == ["3.wav", "4.wav", "5.wav"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("7.wav", b"", r"7.wav: the file is empty (0 bytes) (--data.bad_samples skip leaves"),
        ("7.txt", b" ", "7.wav: the transcript '' has no words (--data.bad_samples skip leaves"),
        ("7.txt", b"\xff", "7.txt: not UTF-8 (byte 0xff)"),
        ("new.wav", b"RIFF", "new.wav: has no transcript: there is no new.txt beside it"),
    ],
)
def test_what_cannot_be_used_is_named_or_skipped(
    cli: Run, words: Path, name: str, content: bytes, message: str
) -> None:
    (words / name).write_bytes(content)
    step = ("--config", "speech.yaml", "--trainer.max_steps", "1", "--test_after_fit", "false")
    status, _, errors = cli("fit", *step)
    assert status == 2
    assert errors.startswith("error: data: ")
    assert message in errors
    status, out, errors = cli("fit", *step, "--data.bad_samples", "skip")
    assert status == 0, errors
    assert "1 recordings are left out (--data.bad_samples skip): " in out


def test_samples_that_are_no_numbers_stop_the_run_with_the_file(cli: Run, words: Path) -> None:
    values = np.full(900, 0.1, np.float32)
    values[5:8] = np.nan
    for number in range(32):
        soundfile.write(words / f"{number}.wav", values, RATE, subtype="FLOAT")
    status, _, errors = cli("fit", "--config", "speech.yaml")
    assert status == 1
    assert ".wav: 3 of its 900 samples are NaN or infinite (--data.bad_samples skip" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data.root", "nowhere"), "root: nowhere does not exist; set --data.root"),
        (("--data.root", "."), "has no transcript"),
        (("--model.frontend.band", "3"), "model.frontend.band: unknown key; did you mean 'bands'"),
        (("--model.windows.seconds", "0.5"), "model.windows: seconds must be at least 1, got 0.5"),
        (("--model.masking", "SpecAugment"), "frequency_width 15 could hide all 12 channels"),
        (("--data.tokens", "BytePairs", "--data.tokens.vocabulary", "9"), "vocabulary must have"),
        (("--data.longest", "0.15"), "no training recording that can be used"),
    ],
)
def test_what_a_user_gets_wrong_is_said_in_one_line(
    cli: Run, words: Path, arguments: tuple[str, ...], message: str
) -> None:
    Path("x.wav").write_bytes(b"")
    status, _, errors = cli("fit", "--config", "speech.yaml", *arguments)
    assert status == 2, errors
    assert message in errors
    assert len(errors.splitlines()) == 1
