"""A classifier as ONNX says of pixels what the task says of them."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from resdomains.core import BatchNorm, FirstTokenHead, PatchStem, ResidualEncoder, SelfAttention
from resdomains_tasks.image_classification import ImageClassification

from .support import small_spec, small_task

LABELLED = small_spec(multilabel=True, prevalence=[0.2, 0.4, 0.6], channels=1, mean=[0.3], std=[1])


def probabilities(task: ImageClassification, pixels: torch.Tensor) -> Any:
    """What the task says of pictures that were read."""
    items = [{"image": picture, "source": "a.png"} for picture in pixels]
    with torch.no_grad():
        logits = task(task.collate(items)["image"])
    return task.loss.probabilities(logits).numpy()


@pytest.mark.parametrize("spec", [small_spec(height=12, width=9), LABELLED])
def test_pixels_become_probabilities(tmp_path: Path, spec: Any) -> None:
    task = small_task(spec).eval()
    for norm in task.modules():
        if isinstance(norm, BatchNorm):
            torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    said = task.export(tmp_path, "onnx")
    shape = (spec.channels, spec.height, spec.width)
    assert (
        said
        == f"model.onnx: uint8 pixels (batch, {', '.join(map(str, shape))}) to probabilities of 3 classes"
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 2, 5):
        pixels = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
        (found,) = session.run(["probabilities"], {"images": pixels.numpy()})
        assert np.abs(found - probabilities(task, pixels)).max() < 1e-5
    about = json.loads((tmp_path / "spec.json").read_text())
    assert about["classes"] == ["red", "green", "blue"]
    assert about["spec"] == json.loads(json.dumps(spec.plain()))
    assert about["input"].startswith(f"images: uint8 (batch, {spec.channels}, ")


def test_a_vision_transformer_takes_any_number_of_pictures(tmp_path: Path) -> None:
    spec = small_spec()
    backbone = ResidualEncoder(
        in_channels=3,
        layers=1,
        width=8,
        stem=partial(PatchStem, patch=4, size=8),
        layer=[partial(SelfAttention, heads=2)],
    )
    task = ImageClassification(backbone=backbone, head=FirstTokenHead, spec=spec.plain()).eval()
    task.export(tmp_path, "onnx")
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"images": pixels.numpy()})
    assert np.abs(found - probabilities(task, pixels)).max() < 1e-5
