"""Speech recognition keeps the contract of all tasks."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from resdomains.plugins import find
from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks

from .support import RATE, small_config, spoken, write_corpus

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
# Lives as long as the tests do.
_FOLDER = tempfile.TemporaryDirectory(prefix="resdomains-speech-")


def recordings(folder: Path) -> Sequence[Path]:
    paths = []
    for number, words in enumerate((["low"], ["high", "mid", "low"], ["mid", "mid"])):
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], spoken(words, number), RATE)
    return paths


def wav(samples: object) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


CASE = TaskCase(
    plugin=find("speech_recognition"),
    roots={
        f"speech_recognition/{name}": SHARED / folder
        for name, folder in (
            ("yesno", "yesno"),
            ("fsdd", "fsdd"),
            ("fsdd_strings", "fsdd"),
            ("fsdd_waveform", "fsdd"),
        )
        if (SHARED / folder).is_dir()
    },
    config=small_config(write_corpus(Path(_FOLDER.name) / "tones")),
    # Not all of the thousands that the config says.
    shipped={
        "speech_recognition/digit_strings": {"data.train": "64", "data.val": "8", "data.test": "8"}
    },
    inputs=recordings,
    overfit_steps=150,
    sample_wise={
        "model.backbone.norm": "resdomains.core.LayerNorm",
        "model.masking": "null",
        "model.frontend.dither": "0",
    },
    bad_files=[
        BadFile(name="empty.wav", content=b"", message=r"the file is empty \(0 bytes\)"),
        BadFile(name="text.wav", content=b"no sound at all", message="not a recording"),
        BadFile(name="none.wav", content=wav(np.zeros(0, np.float32)), message="holds no samples"),
        BadFile(
            name="nan.wav",
            content=wav(np.array([0.1, np.nan, 0.2], np.float32)),
            message="1 of its 3 samples are NaN or infinite",
        ),
    ],
    bad_arguments=[
        BadArgument(
            key="data.batch_size", value="0", message="batch_size must be at least 1, got 0"
        ),
        BadArgument(
            key="data.shortest", value="30", message="must be rising seconds from 0, got 30.0 and"
        ),
        BadArgument(
            key="data.longest",
            value="0.11",
            message="no training recording that can be used; 64 training recordings of more than 0.11 s",
        ),
        BadArgument(
            key="model.backbone.in_channels",
            value="64",
            message=r"reads 64 channels, the frontend LogMel gives 12; set --model\.backbone\.in_channels 12",
        ),
        BadArgument(key="model.backbone.stem", value="CharacterStem", message="cannot read frames"),
        BadArgument(key="model.frontend.bands", value="0", message="bands must be at least 1"),
    ],
)


@parametrize_with_checks(CASE)
def test_contract(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_the_case_exempts_nothing() -> None:
    assert not CASE.exempt
