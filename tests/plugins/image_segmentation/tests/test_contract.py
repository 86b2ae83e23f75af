"""The plugin's own tests, as its authors would run them: `pytest` where it is installed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resdomains.plugins import find
from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks


def pictures(folder: Path) -> Sequence[Path]:
    random = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(24, 24), (50, 40), (20, 30)]):
        paths.append(folder / f"{number}.png")
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(paths[-1])
    return paths


CASE = TaskCase(
    plugin=find("image_segmentation"),
    config="image_segmentation/digits",
    changes={
        "data.train": "96",
        "model.backbone.layers": "[2, 1]",
        "model.backbone.channels": "[8, 16]",
    },
    inputs=pictures,
    bad_files=[BadFile(name="text.png", content=b"no picture", message="not a picture")],
    bad_arguments=[BadArgument(key="data.batch_size", value="0", message="at least 1, got 0")],
    overfit_steps=150,
    sample_wise={"model.backbone.norm": "LayerNorm"},
)


@parametrize_with_checks(CASE)
def test_contract(check: Check, tmp_path: Path) -> None:
    check(tmp_path)
