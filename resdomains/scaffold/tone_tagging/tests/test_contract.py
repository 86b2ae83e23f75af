"""What every task must survive: training, resuming, several processes, bad input and more, a test each."""

import math
import struct
import wave
from collections.abc import Sequence
from pathlib import Path

from resdomains.plugins import find
from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks


def recordings(folder: Path) -> Sequence[Path]:
    """Write three tones of different lengths."""
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
    plugin=find("tone_tagging"),
    config="tone_tagging/tiny",
    inputs=recordings,
    bad_files=[BadFile(name="text.wav", content=b"la la la", message="not a WAV file")],
    bad_arguments=[BadArgument(key="data.batch_size", value="0", message="at least 1, got 0")],
    # Batch norm sees each process's samples alone, so one and two processes are compared without it.
    sample_wise={"model.backbone.norm": "LayerNorm"},
)


@parametrize_with_checks(CASE)
def test_contract(check: Check, tmp_path: Path) -> None:
    """The task keeps the rule that the test's id names."""
    check(tmp_path)
