"""Image classification keeps the contract of all tasks."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from resdomains.plugins import find
from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks
from resdomains.vision import read_picture

FASHION_MNIST = Path(__file__).resolve().parents[4] / "shared" / "data" / "fashion_mnist"
CLASSIFICATION = "resdomains_tasks.image_classification"

CONFIG = {
    "seed": 0,
    "model": {
        "class_path": f"{CLASSIFICATION}.ImageClassification",
        "init_args": {
            "backbone": {
                "class_path": "resdomains.core.ResNet2d",
                "init_args": {"in_channels": 1, "layers": [2, 1], "channels": [8, 16]},
            },
            "optimization": {
                "lr": 0.1,
                "optimizer": {
                    "class_path": "torch.optim.SGD",
                    "init_args": {"momentum": 0.9, "weight_decay": 5e-4},
                },
            },
        },
    },
    "data": {
        "class_path": f"{CLASSIFICATION}.Digits",
        "init_args": {
            "batch_size": 64,
            "augment": [{"class_path": f"{CLASSIFICATION}.RandomAffine"}],
        },
    },
}


def pictures(folder: Path) -> Sequence[Path]:
    random = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(8, 8), (11, 9), (20, 30), (8, 8)]):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def half_a_jpeg() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()[: file.tell() // 2]


def run_onnx(folder: Path, paths: Sequence[Path]) -> list[dict[str, object]]:
    """What onnxruntime says of the pictures that have the size of the data."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    classes = json.loads((folder / "spec.json").read_text())["classes"]
    records: list[dict[str, object]] = []
    for pixels in (read_picture(path, 1) for path in paths):
        if pixels.shape != (1, 8, 8):
            records.append({})
            continue
        [[row]] = session.run(["probabilities"], {"images": pixels[None].numpy()})
        records.append({"label": classes[row.argmax()], "probability": float(row.max())})
    return records


CASE = TaskCase(
    plugin=find("image_classification"),
    config=CONFIG,
    inputs=pictures,
    bad_files=[
        BadFile(name="half.jpg", content=half_a_jpeg(), message="damaged picture"),
        BadFile(name="text.png", content=b"no picture at all", message="not a picture"),
        BadFile(name="empty.png", content=b"", message="not a picture"),
    ],
    bad_arguments=[
        BadArgument(
            key="data.batch_size", value="0", message="batch_size must be at least 1, got 0"
        ),
        BadArgument(
            key="data.val_fraction", value="1.5", message=r"val_fraction.*\[0, 1\), got 1.5"
        ),
        BadArgument(
            key="model.backbone.in_channels",
            value="3",
            message="backbone takes pictures of 3 channels, the data have 1",
        ),
        BadArgument(key="model.optimization.lr", value="-1", message="lr must be positive, got -1"),
    ],
    exported={"onnx": run_onnx},
    sample_wise={"model.backbone.norm": "LayerNorm"},
    roots={"image_classification/fashion_mnist": FASHION_MNIST} if FASHION_MNIST.is_dir() else {},
)


@parametrize_with_checks(CASE)
def test_contract(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_the_case_exempts_nothing() -> None:
    assert not CASE.exempt
