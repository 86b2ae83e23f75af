"""The plugin's own test, as its authors would run it: `pytest tests` where it is installed."""

import math
import struct
import wave
from collections.abc import Sequence
from pathlib import Path

from tone_tagging.plugin import plugin  # type: ignore[import-not-found]  # installed where this runs

from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks


def recordings(folder: Path) -> Sequence[Path]:
    paths = []
    for number, length in enumerate((200, 333, 250)):
        samples = [int(9000 * math.sin(number * i / 2)) for i in range(length)]
        path = folder / f"{number}.wav"
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 4000, 0, "NONE", ""))
            file.writeframes(struct.pack(f"<{length}h", *samples))
        paths.append(path)
    return paths


CASE = TaskCase(
    plugin=plugin,
    config="tone_tagging/tiny",
    inputs=recordings,
    bad_files=[BadFile(name="text.wav", content=b"la la la", message="not a WAV file")],
    bad_arguments=[BadArgument(key="data.batch_size", value="0", message="at least 1, got 0")],
    sample_wise={"model.backbone.norm": "LayerNorm"},
)


@parametrize_with_checks(CASE)
def test_contract(check: Check, tmp_path: Path) -> None:
    check(tmp_path)
