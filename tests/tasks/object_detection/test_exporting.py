"""A detector as ONNX finds what the task finds."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from resdomains.core import ResNet2d
from resdomains.interop import onnx_graph, save_onnx
from resdomains_tasks.object_detection import exporting
from resdomains_tasks.object_detection.data import padded, prepared
from resdomains_tasks.object_detection.exporting import write_onnx
from resdomains_tasks.object_detection.fcos import Dense, FCOSHead, Found
from resdomains_tasks.object_detection.sizes import MULTIPLE

from .support import small_spec

SPEC = small_spec(size={"shorter": 64, "longer": 128}, std=[0.2, 0.3, 0.25])


@cache
def network() -> tuple[nn.Module, FCOSHead]:
    """A network of random weights that finds much."""
    torch.manual_seed(0)
    backbone = ResNet2d(layers=[1] * 5, channels=[4, 4, 8, 8, 8], strides=[2] * 5).eval()
    head = FCOSHead(
        backbone.out_channels, backbone.stride, 2, (4, 5, 6), channels=16, convs=1, detections=12
    ).eval()
    nn.init.normal_(head.classify.weight, std=0.3)
    nn.init.normal_(head.locate.weight, std=0.1)
    assert head.classify.bias is not None
    nn.init.zeros_(head.classify.bias)
    return backbone, head


def seen(pixels: Tensor, spec: Any = SPEC) -> tuple[Dense, Tensor]:
    """What the head says of pictures of one size as they are padded in evaluation, and their sizes."""
    batch = padded(list(pixels), spec.fitting)
    backbone, head = network()
    with torch.no_grad():
        dense = head(backbone(prepared(batch["image"], batch["sizes"], spec)))
    return dense, batch["sizes"]


@cache
def graph() -> Any:
    """The network's own graph, which takes torch ten seconds."""
    made: list[Any] = []

    def kept(*arguments: Any) -> Any:
        made.append(onnx_graph(*arguments))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "onnx_graph", kept)
        patch.setattr(exporting, "save_onnx", lambda *_: None)
        write_onnx(*network(), SPEC, Path(), "outside", 0.5)
    return made[0]


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all tests share that graph."""
    whole = graph()
    monkeypatch.setattr(exporting, "onnx_graph", lambda *_: copy.deepcopy(whole))


def session(folder: Path, nms: str, threshold: float = 0.7) -> onnxruntime.InferenceSession:
    backbone, head = network()
    said = write_onnx(backbone, head, SPEC, folder, nms, threshold)
    assert said.endswith(
        f"(batch, 3, height, width) to boxes of 2 classes, non-maximum suppression {nms}"
    )
    return onnxruntime.InferenceSession(folder / "model.onnx")


def noise(*shape: int) -> Tensor:
    torch.manual_seed(sum(shape))
    return torch.randint(0, 256, shape, dtype=torch.uint8)


SHAPES = [(1, 3, 64, 64), (3, 3, 70, 128), (2, 3, 1, 90)]


def test_suppression_inside_leaves_what_predict_leaves(tmp_path: Path) -> None:
    run = session(tmp_path, "inside")
    _, head = network()
    numbers = []
    for shape in SHAPES:
        pixels = noise(*shape)
        found: list[Found] = head.detect(*seen(pixels), 0.7)
        boxes, scores, labels, pictures = run.run(None, {"images": pixels.numpy()})
        assert pictures.tolist() == [i for i, own in enumerate(found) for _ in own.scores]
        expected = [torch.cat(part).numpy() for part in zip(*found, strict=True)]
        assert np.abs(boxes - expected[0]).max() < 1e-3
        assert np.abs(scores - expected[1]).max() < 1e-5
        assert labels.tolist() == expected[2].tolist()
        numbers += [len(own.scores) for own in found]
    assert max(numbers) == 12 > min(numbers) > 0  # the limit is met, and not always
    about = json.loads((tmp_path / "spec.json").read_text())
    assert (about["threshold"], about["iou"], about["detections"]) == (0.7, 0.6, 12)
    assert about["classes"] == SPEC.classes


def test_nothing_found_is_no_failure(tmp_path: Path) -> None:
    out = session(tmp_path, "inside", 1.0).run(None, {"images": noise(2, 3, 64, 64).numpy()})
    assert [part.shape for part in out] == [(0, 4), (0,), (0,), (0,)]


def test_suppression_outside_gives_every_position(tmp_path: Path) -> None:
    run = session(tmp_path, "outside")
    for shape in SHAPES:
        pixels = noise(*shape)
        dense, sizes = seen(pixels)
        boxes, scores = run.run(["boxes", "scores"], {"images": pixels.numpy()})
        edge = sizes[0].flip(0).repeat(2)
        corners = torch.cat(
            (dense.points - dense.distances[..., :2], dense.points + dense.distances[..., 2:]), 2
        )
        expected = torch.minimum(corners.clamp(min=0), edge)
        assert np.abs(boxes - expected.numpy()).max() < 1e-3
        probability = dense.logits.sigmoid() * dense.centerness.sigmoid()[..., None]
        real = (expected[..., 2:] > expected[..., :2]).all(2, keepdim=True)
        assert np.abs(scores - (probability.sqrt() * real).numpy()).max() < 1e-5
    assert not real.all()  # some positions lie beyond the flat picture
    assert "threshold" not in json.loads((tmp_path / "spec.json").read_text())


@pytest.mark.parametrize(
    ("size", "padded_to"),
    [({"shorter": 64, "longer": 99}, (96, 64)), ({"height": 128, "width": 64}, (128, 64))],
)
def test_pictures_are_normalised_and_padded_as_in_evaluation(
    tmp_path: Path, size: dict[str, int], padded_to: tuple[int, int]
) -> None:
    spec = small_spec(size=size, mean=[0.1, 0.5, 0.9], std=[0.2, 0.3, 0.25])
    save_onnx(exporting._before(spec), tmp_path, {})
    pixels = noise(2, 3, 70, 33)
    run = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = run.run(None, {"images": pixels.numpy()})
    batch = padded(list(pixels), spec.fitting)
    assert found.shape == (2, 3, *padded_to)
    assert padded_to[0] % MULTIPLE == 0
    expected = prepared(batch["image"], batch["sizes"], spec)
    assert np.abs(found - expected.numpy()).max() < 1e-5


def test_another_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the head Linear has no form in ONNX, only FCOSHead has"):
        write_onnx(network()[0], nn.Linear(1, 1), SPEC, tmp_path, "inside", 0.5)
