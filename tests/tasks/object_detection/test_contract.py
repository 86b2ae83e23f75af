"""Object detection keeps the contract of all tasks."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from resdomains.plugins import find
from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks
from resdomains.vision import read_picture

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
DETECTION = "resdomains_tasks.object_detection"

CONFIG = {
    "seed": 0,
    "model": {
        "class_path": f"{DETECTION}.ObjectDetection",
        "init_args": {
            "backbone": {
                "class_path": "resdomains.core.ResNet2d",
                "init_args": {
                    "in_channels": 3,
                    "layers": [2, 1],
                    "channels": [16, 16],
                    "strides": [4, 2],
                },
            },
            "head": {
                "class_path": f"{DETECTION}.FCOSHead",
                "init_args": {"levels": [2, 3], "channels": 16, "convs": 1},
            },
            "optimization": {"lr": 5e-3, "optimizer": {"class_path": "torch.optim.AdamW"}},
        },
    },
    "data": {
        "class_path": f"{DETECTION}.Scenes",
        "init_args": {
            "batch_size": 12,
            "train": 48,
            "val": 26,
            "test": 12,
            "height": 64,
            "width": 64,
            "digits": [1, 3],
            "sizes": [16, 32],
            "augment": [{"class_path": f"{DETECTION}.ScaleJitter"}],
        },
    },
}


def pictures(folder: Path) -> Sequence[Path]:
    random = np.random.default_rng(0)
    paths = []
    for number, size in enumerate([(64, 64), (80, 50), (40, 90), (64, 64)]):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def half_a_jpeg() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()[: file.tell() // 2]


def run_onnx(folder: Path, paths: Sequence[Path]) -> list[dict[str, object]]:
    """What onnxruntime finds in the pictures that have the size of the data."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    records: list[dict[str, object]] = []
    for pixels in (read_picture(path, 3) for path in paths):
        if pixels.shape != (3, 64, 64):
            records.append({})
            continue
        boxes, scores, _, _ = session.run(None, {"images": pixels[None].numpy()})
        found = zip(boxes, scores, strict=True)
        records.append({"objects": [{"score": float(s), "box": b.tolist()} for b, s in found]})
    return records


CASE = TaskCase(
    plugin=find("object_detection"),
    config=CONFIG,
    inputs=pictures,
    # Untrained for long, the network is sure of nothing: what it reports must be compared all the same.
    changes={"model.threshold": "0.05"},
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
            key="model.threshold", value="2", message=r"threshold .* must lie in \[0, 1\], got 2.0"
        ),
        BadArgument(
            key="model.backbone.in_channels",
            value="1",
            message="backbone takes pictures of 1 channels, the data have 3",
        ),
        BadArgument(
            key="model.head.levels", value="[6, 7]", message="levels begin at 6, a stride of 64"
        ),
        BadArgument(key="model.optimization.lr", value="-1", message="lr must be positive, got -1"),
    ],
    exported={"onnx": run_onnx},
    shipped={"object_detection/scenes": {"data.train": "16", "data.val": "4", "data.test": "4"}},
    sample_wise={"model.backbone.norm": "resdomains.core.LayerNorm"},
    roots={"object_detection/bccd": SHARED / "bccd"} if (SHARED / "bccd").is_dir() else {},
)


@parametrize_with_checks(CASE)
def test_contract(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_the_case_exempts_nothing() -> None:
    assert not CASE.exempt
