"""Torchvision's FCOS is the independent answer: equal detections and equal losses with equal weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from resdomains.core import FrozenBatchNorm, GroupNorm, ResNet2d, resnet50
from resdomains_tasks.object_detection.fcos import (
    Dense,
    Exponential,
    FCOSHead,
    Rectified,
    SpreadGrid,
    StrideGrid,
)
from resdomains_tasks.object_detection.losses import Equal
from resdomains_tasks.object_detection.spec import DetectionSpec
from resdomains_tasks.object_detection.weights import TorchvisionDetector

CLASSES = 4


def network(frozen: bool = False) -> ResNet2d:
    return resnet50(norm=FrozenBatchNorm) if frozen else resnet50()


def theirs() -> nn.Module:
    """Torchvision's detector with weights of some size, so that boxes and scores differ."""
    torch.manual_seed(0)
    model: nn.Module = fcos_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=224,
        max_size=320,
        score_thresh=0.2,
        detections_per_img=10_000,
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
    )
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            if name.endswith(("cls_logits", "bbox_reg", "bbox_ctrness")):
                nn.init.normal_(module.weight, std=0.05)
                nn.init.normal_(module.bias, mean=0.5, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    return theirs()


@pytest.fixture(scope="module")
def state(reference: nn.Module) -> Mapping[str, Tensor]:
    return reference.state_dict()


def head_of(backbone: ResNet2d, classes: int = CLASSES, **changes: Any) -> FCOSHead:
    parts: dict[str, Any] = {"distances": Rectified, "grid": SpreadGrid(), "weighting": Equal()}
    return FCOSHead(backbone.out_channels, backbone.stride, classes, **(parts | changes))


def saved(state: Mapping[str, Tensor], path: Path) -> str:
    torch.save(dict(state), path)
    return str(path)


@pytest.mark.parametrize("frozen", [False, True])
def test_torchvisions_detections_are_equal(
    frozen: bool, reference: Any, state: Mapping[str, Tensor], tmp_path: Path
) -> None:
    """Two pictures of one batch; 224 is no multiple of 64, so that torchvision's grid is spread."""
    backbone = network(frozen)
    head = head_of(backbone, detections=10_000)
    loaded = TorchvisionDetector(saved(state, tmp_path / "a.pth")).load(backbone, head)
    assert loaded.reason == ""
    assert not loaded.left_out
    pictures = [torch.rand(3, 224, 320), torch.rand(3, 224, 250)]
    batch = torch.zeros(2, 3, 224, 320)
    for place, picture in zip(batch, pictures, strict=True):
        place[:, :, : picture.shape[2]] = picture
    backbone.eval(), head.eval()
    with torch.no_grad():
        expected = reference(pictures)
        dense = head(backbone(batch))
        found = head.detect(dense, torch.tensor([[224, 320], [224, 250]]), 0.2)
    assert any(level.down != level.stride for level in dense.levels)
    for own, other in zip(found, expected, strict=True):
        box = other["boxes"]
        real = (box[:, 2:] > box[:, :2]).all(1)  # boxes without area are not ours
        assert len(own.boxes) > 50
        assert set(own.labels.tolist()) == set(range(CLASSES))
        torch.testing.assert_close(own.scores, other["scores"][real], rtol=1e-4, atol=1e-5)
        # Rounding may swap neighbours of nearly equal scores, so boxes are matched by what they are.
        expected_rows = described(box, other["scores"], other["labels"])[real]
        same = torch.cdist(described(*own), expected_rows, p=1)
        assert (same.amin(0) < 0.02).all()
        assert (same.amin(1) < 0.02).all()


def described(boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Rows of numbers that lie 0.02 apart where one of a box's properties differs by what matters."""
    rows = (boxes, scores[:, None] * 1000, labels[:, None] * 1000.0)
    return torch.cat(rows, 1)


def scenes(count: int) -> list[dict[str, Tensor]]:
    """Targets of two pictures of 512 x 256 pixels, as torchvision takes them."""
    targets = []
    for _ in range(2):
        corner = torch.rand(count, 2) * torch.tensor([200.0, 400.0])
        boxes = torch.cat((corner, corner + 10 + torch.rand(count, 2) * 300), 1)
        targets.append({"boxes": boxes, "labels": torch.randint(0, CLASSES, (count,))})
    return targets


@pytest.mark.parametrize("count", [12, 0])
def test_torchvisions_losses_and_their_gradients_are_equal(count: int, reference: Any) -> None:
    torch.manual_seed(1)
    targets = scenes(count)
    strides = (8, 16, 32, 64, 128)
    features = [torch.randn(2, 256, 512 // s, 256 // s) for s in strides]
    with torch.no_grad():
        outputs = {key: value.requires_grad_() for key, value in reference.head(features).items()}
    images = ImageList(torch.zeros(2, 3, 512, 256), [(512, 256)] * 2)
    anchors = reference.anchor_generator(images, features)
    sizes = [f.shape[2] * f.shape[3] for f in features]
    expected = reference.compute_loss(targets, outputs, anchors, sizes)
    (sum(expected.values()) * 1.0).backward()
    gradients = {key: value.grad.clone() for key, value in outputs.items()}

    head = head_of(network())
    stride = anchors[0][:, 2] - anchors[0][:, 0]
    dense = Dense(
        outputs["cls_logits"],
        outputs["bbox_regression"] * stride[:, None],
        outputs["bbox_ctrness"].squeeze(2),
        (anchors[0][:, :2] + anchors[0][:, 2:]) / 2,
        stride,
        tuple(StrideGrid().level(512 // s, 256 // s, s, (512, 256)) for s in strides),
    )
    boxes, labels = (torch.cat([target[key] for target in targets]) for key in ("boxes", "labels"))
    owner = torch.arange(2).repeat_interleave(count)
    for value in outputs.values():
        value.grad = None
    losses = head.loss(dense, boxes, labels, owner)
    positives = losses.divisors["classification"]
    assert count == 0 or positives > 30
    each = {key: value / positives.clamp(min=1) for key, value in losses.terms.items()}
    # Of logits of 0 the cross-entropy is log 2 whatever is true, which tells the least that it can be.
    unsure = head.loss(
        dense._replace(centerness=torch.zeros_like(dense.centerness)), boxes, labels, owner
    )
    least = math.log(2.0) - unsure.terms["centerness"] / positives if count else 0.0
    absolute = {**each, "centerness": each["centerness"] + least}
    for ours, other in (
        ("classification", "classification"),
        ("boxes", "bbox_regression"),
        ("centerness", "bbox_ctrness"),
    ):
        torch.testing.assert_close(absolute[ours], expected[other], rtol=1e-5, atol=1e-6)
    torch.autograd.backward(list(each.values()))
    for key, value in outputs.items():
        torch.testing.assert_close(value.grad, gradients[key], rtol=1e-4, atol=1e-6, msg=key)


def filled(state: Mapping[str, Tensor], path: Path, classes: list[str]) -> tuple[FCOSHead, Any]:
    backbone = network()
    head = head_of(backbone, len(classes))
    spec = DetectionSpec(
        channels=3,
        mean=[0.0] * 3,
        std=[1.0] * 3,
        size={"shorter": 64, "longer": 64},
        classes=classes,
    )
    return head, TorchvisionDetector(saved(state, path / "a.pth")).load(backbone, head, spec)


def test_a_first_output_for_the_background_is_left_out(
    state: Mapping[str, Tensor], tmp_path: Path
) -> None:
    head, loaded = filled(state, tmp_path, ["a", "b", "c"])
    assert loaded.reason == ""
    assert torch.equal(
        head.classify.weight, state["head.classification_head.cls_logits.weight"][1:]
    )


def test_cocos_outputs_are_filled_by_name_and_others_begin_anew(
    state: Mapping[str, Tensor], tmp_path: Path
) -> None:
    key = "head.classification_head.cls_logits."
    rows = {
        f"{key}weight": torch.arange(91.0).view(91, 1, 1, 1).expand(91, 256, 3, 3),
        f"{key}bias": torch.arange(91.0),
    }
    head, loaded = filled({**state, **rows}, tmp_path, ["zebra", "platelet", "person"])
    assert loaded.reason == "2 of 3 outputs are COCO's, the rest begin anew: platelet"
    bias = head.classify.bias
    assert bias is not None
    assert bias[[0, 2]].tolist() == [24, 1]
    assert bias[1].item() == pytest.approx(-4.595, abs=1e-3), "the prior of 0.01"
    assert (head.classify.weight[0] == 24).all()


def test_other_numbers_of_classes_leave_the_outputs(
    state: Mapping[str, Tensor], tmp_path: Path
) -> None:
    head, loaded = filled(state, tmp_path, ["a", "b"])
    assert loaded.reason == "the source has 4 classes, the head 2"
    assert len(loaded.left_out) == 2
    assert "head.locate.weight" in loaded.filled
    assert head.classify.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_without_a_head_the_backbone_is_filled(state: Mapping[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(dict(state), path)
    backbone = network()
    loaded = TorchvisionDetector(str(path)).load(backbone)
    assert loaded.reason == "no head was given"
    assert torch.equal(
        backbone.get_parameter("stem.conv.weight"), state["backbone.body.conv1.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": Exponential}, "Rectified distances, not with Exponential"),
        ({"channels": 64}, r"do not fit this FCOSHead:(.|\n)*laterals.0.conv.weight: expected"),
        ({"convs": 2}, r"unexpected: 16\n"),
        ({"norm": GroupNorm, "convs": 5}, r"missing: 8\n"),
        ({"levels": (3, 4, 5)}, r"unexpected: 4\n  backbone.fpn.extra_blocks.p6.weight"),
    ],
)
def test_heads_that_do_not_fit_are_refused_and_nothing_changes(
    change: dict[str, Any], message: str, state: Mapping[str, Tensor], tmp_path: Path
) -> None:
    backbone = network()
    head = head_of(backbone, **change)
    before = {k: v.clone() for m in (backbone, head) for k, v in m.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        TorchvisionDetector(saved(state, tmp_path / "a.pth")).load(backbone, head)
    after = {k: v for m in (backbone, head) for k, v in m.state_dict().items()}
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_backbone_that_does_not_fit_leaves_the_head(
    state: Mapping[str, Tensor], tmp_path: Path
) -> None:
    backbone = ResNet2d(layers=[1, 1, 1], channels=[512, 1024, 2048], strides=[8, 2, 2])
    head = head_of(backbone)
    before = head.locate.weight.clone()
    with pytest.raises(ValueError, match="do not fit this ResNet2d"):
        TorchvisionDetector(saved(state, tmp_path / "a.pth")).load(backbone, head)
    assert torch.equal(head.locate.weight, before)


def test_names_and_files_go_their_ways(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        TorchvisionDetector(str(tmp_path / "none.pth")).load(network())
    with pytest.raises(ValueError, match="is a run's checkpoint"):
        TorchvisionDetector("best.ckpt").load(network())
