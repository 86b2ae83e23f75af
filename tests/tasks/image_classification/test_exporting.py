"""A classifier as ONNX says of pixels what the task says of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

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
        if hasattr(norm, "running_var"):
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
