import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import BatchNorm, Features, ResNet2d
from resdomains.interop import Checkpoint
from resdomains_tasks.object_detection.fcos import (
    Dense,
    Distances,
    Exponential,
    FCOSHead,
    Found,
    Rectified,
    StrideGrid,
)
from resdomains_tasks.object_detection.spec import DetectionSpec

CLASSES = 3
SIZE = (96, 128)


def backbone() -> ResNet2d:
    return ResNet2d(layers=[1, 1, 1, 1], channels=[4, 8, 16, 16], strides=[4, 2, 2, 2])


def head_of(network: ResNet2d, **changes: Any) -> FCOSHead:
    parts: dict[str, Any] = {"channels": 16, "convs": 2, "levels": (3, 4, 5, 6)}
    return FCOSHead(network.out_channels, network.stride, CLASSES, **(parts | changes))


def batch(count: int) -> dict[str, Tensor]:
    """Objects of the first of two pictures; the second has none."""
    torch.manual_seed(0)
    corner = torch.rand(count, 2) * torch.tensor([80.0, 60.0])
    return {
        "boxes": torch.cat((corner, corner + 4 + torch.rand(count, 2) * 60), 1),
        "labels": torch.randint(0, CLASSES, (count,)),
        "owner": torch.zeros(count).long(),
    }


def test_a_level_is_twice_the_stride_of_the_one_before() -> None:
    network = backbone()
    dense = head_of(network)(network(torch.randn(2, 3, *SIZE)))
    count = 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2
    assert dense.logits.shape == (2, count, CLASSES)
    assert dense.distances.shape == (2, count, 4)
    assert dense.centerness.shape == (2, count)
    assert dense.points.shape == (count, 2)
    assert dense.strides.unique_consecutive().tolist() == [8, 16, 32, 64]
    assert dense.points[:18].tolist()[15:] == [[120, 0], [0, 8], [8, 8]]
    assert dense.points[-1].tolist() == [64, 64]
    assert (dense.distances > 0).all()


def test_every_class_begins_with_the_prior() -> None:
    torch.manual_seed(0)
    network = backbone()
    dense = head_of(network, prior=0.03)(network(torch.randn(1, 3, *SIZE)))
    for of_class in dense.logits.sigmoid().unbind(2):
        assert of_class.mean().item() == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("distances", [Exponential, Rectified])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("count", [0, 7])
def test_gradients_of_all_weights_are_finite(
    count: int, bf16: bool, distances: Callable[[int], Distances]
) -> None:
    network = backbone()
    head = head_of(network, distances=distances)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = head.loss(head(network(torch.randn(2, 3, *SIZE))), **batch(count))
    assert all((divisor > 0) == (count > 0) for divisor in losses.divisors.values())
    assert list(losses.terms) == ["classification", "boxes", "centerness"]
    for term in losses.terms.values():
        assert term.dtype == torch.float32
        assert term.shape == ()
        assert term.isfinite()
    torch.autograd.backward(list(losses.terms.values()))
    for name, parameter in [*network.named_parameters(), *head.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_far_too_long_distances_keep_finite_gradients() -> None:
    part = Exponential(2)
    x = torch.tensor([1e4, 0.0], requires_grad=True)
    y = part(x, 1)
    torch.autograd.backward(y.sum())
    assert y.tolist() == [pytest.approx(1000), 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1]
    assert part.scale.grad is not None
    assert part.scale.grad.isfinite().all()


def test_bfloat16_is_near_float32() -> None:
    network = backbone()
    head = head_of(network)
    x, objects = torch.randn(2, 3, *SIZE), batch(7)
    exact = head.loss(head(network(x)), **objects)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = head.loss(head(network(x)), **objects)
    assert rounded.divisors == exact.divisors
    for name, term in exact.terms.items():
        torch.testing.assert_close(rounded.terms[name], term, rtol=0.02, atol=0)


def test_layout_changes_nothing() -> None:
    network = backbone().eval()
    head = head_of(network).eval()
    features = network(torch.randn(2, 3, *SIZE))
    plain = Features(tuple(v.contiguous() for v in features.maps), features.valid)
    for a, b in zip(head(features), head(plain), strict=True):
        if isinstance(a, Tensor):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_loss_learns_to_find_the_objects() -> None:
    """The whole way: a small batch by heart, then found again from its pictures alone."""
    torch.manual_seed(0)
    network = backbone()
    head = head_of(network)
    boxes = torch.tensor([[8.0, 8, 40, 40], [60, 20, 120, 90], [10, 30, 50, 60]])
    objects = {"boxes": boxes, "labels": torch.tensor([0, 2, 1]), "owner": torch.tensor([0, 0, 1])}
    x = torch.zeros(2, 3, *SIZE)
    for (x1, y1, x2, y2), label, owner in zip(
        boxes.long().tolist(), objects["labels"], objects["owner"], strict=True
    ):
        x[owner, label, y1:y2, x1:x2] = 1
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    for _ in range(120):
        losses = head.loss(head(network(x)), **objects)
        optimizer.zero_grad()
        torch.autograd.backward(losses.total())
        optimizer.step()
    network.eval(), head.eval()
    with torch.no_grad():
        found = head.detect(head(network(x)), torch.tensor([SIZE, SIZE]), 0.3)
    assert sorted(found[0].labels[:2].tolist()) == [0, 2]
    assert found[1].labels[:1].tolist() == [1]
    best = boxes[:2] if found[0].labels[0] == 0 else boxes[:2].flip(0)
    assert (found[0].boxes[:2] - best).abs().max() < 6
    assert (found[1].boxes[0] - boxes[2]).abs().max() < 6


def said(boxes: Tensor, scores: Tensor, strides: tuple[int, ...] = (8, 16)) -> Dense:
    """One picture of 64 x 64 whose positions say these boxes (L, 4), with scores (L, K)."""
    levels = tuple(StrideGrid().level(64 // s, 64 // s, s, (64, 64)) for s in strides)
    points = torch.cat(
        [
            torch.cartesian_prod(*[torch.arange(v.height) * float(v.stride)] * 2).flip(1)
            for v in levels
        ]
    )
    distances = torch.cat((points - boxes[:, :2], boxes[:, 2:] - points), 1)
    stride = torch.cat([torch.full((v.height * v.width,), float(v.stride)) for v in levels])
    sure = torch.full((1, len(points)), 100.0)
    return Dense(scores.square().logit()[None], distances[None], sure, points, stride, levels)


def nothing(classes: int = 2, strides: tuple[int, ...] = (8, 16)) -> tuple[Tensor, Tensor]:
    count = sum((64 // s) ** 2 for s in strides)
    return torch.zeros(count, 4), torch.full((count, classes), 1e-4)


def detect(boxes: Tensor, scores: Tensor, **changes: Any) -> Found:
    network = backbone()
    head = FCOSHead(network.out_channels, network.stride, scores.shape[1], channels=16, **changes)
    return head.detect(said(boxes, scores), torch.tensor([[60, 50]]), 0.05)[0]


def test_the_surest_of_overlapping_boxes_of_a_class_stays() -> None:
    boxes, scores = nothing()
    boxes[[3, 9, 70]] = torch.tensor([[0.0, 0, 20, 20], [1, 1, 20, 20], [0, 0, 20, 19]])
    scores[3, 0], scores[9, 0], scores[70, 1] = 0.5, 0.8, 0.3
    found = detect(boxes, scores)
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.3]))
    assert found.labels.tolist() == [0, 1]
    assert found.boxes.tolist() == [[1, 1, 20, 20], [0, 0, 20, 19]]


def test_boxes_end_at_the_picture_and_those_beyond_it_are_dropped() -> None:
    boxes, scores = nothing()
    boxes[:2] = torch.tensor([[-5.0, -5, 90, 90], [52, 10, 60, 20]])
    scores[:2, 0] = 0.9
    found = detect(boxes, scores)
    assert found.boxes.tolist() == [[0, 0, 50, 60]]


def test_numbers_of_candidates_and_detections_are_kept() -> None:
    torch.manual_seed(0)
    boxes, scores = nothing()
    corner = torch.rand(80, 2) * 40
    boxes[:] = torch.cat((corner, corner + 1), 1)
    scores[:] = torch.rand(80, 2)
    every = detect(boxes, scores, iou=1.0)
    assert 90 < len(every.scores) <= 100
    assert every.scores.tolist() == sorted(every.scores.tolist(), reverse=True)
    assert len(detect(boxes, scores, iou=1.0, detections=7).scores) == 7
    few = detect(boxes, scores, iou=1.0, candidates=2)
    best = torch.cat([scores[:64].flatten().topk(2).values, scores[64:].flatten().topk(2).values])
    torch.testing.assert_close(few.scores, best.sort(descending=True).values)


def test_nothing_above_the_threshold_is_nothing_found() -> None:
    found = detect(*nothing())
    assert [tuple(part.shape) for part in found] == [(0, 4), (0,), (0,)]
    assert found.labels.dtype == torch.long


def test_eighty_classes_at_twenty_thousand_positions_take_little_time() -> None:
    """Every class of every position lies above the threshold, as before training."""
    torch.manual_seed(0)
    network = backbone()
    head = FCOSHead(network.out_channels, network.stride, 80, channels=16, convs=0)
    features = Features(
        tuple(
            torch.randn(1, c, 992 // s, 1312 // s)
            for c, s in zip(network.out_channels, network.stride, strict=True)
        ),
        (None,) * 4,
    )
    with torch.no_grad():
        dense = head(features)
        assert dense.logits.shape[1] > 20_000
        head.detect(dense, torch.tensor([[992, 1312]]), 0.01)
        began = time.perf_counter()
        found = head.detect(dense, torch.tensor([[992, 1312]]), 0.01)
    assert time.perf_counter() - began < 1.5
    assert len(found[0].scores) == 100


def test_state_names_the_rows_of_classes() -> None:
    head = head_of(backbone())
    state = head.state_dict()
    assert all(len(state[key]) == CLASSES for key in head.rows)
    assert state["classify.bias"].tolist() == [pytest.approx(-math.log(99))] * CLASSES


def test_an_earlier_run_gives_the_classes_that_both_know(tmp_path: Path) -> None:
    """What is new begins with the prior, and the boxes are known already."""
    specs = [
        DetectionSpec(
            channels=3,
            mean=[0.0] * 3,
            std=[1.0] * 3,
            size={"height": 96, "width": 128},
            classes=names,
        )
        for names in (["red", "white", "platelet"], ["malaria", "white", "red"])
    ]
    earlier, network = backbone(), backbone()
    trained, head = head_of(earlier), head_of(network)
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    state = {f"backbone.{key}": value for key, value in earlier.state_dict().items()}
    state |= {f"head.{key}": value for key, value in trained.state_dict().items()}
    said = {"format": 1, "recipe": None, "spec": specs[0].plain()}
    torch.save({"resdomains": said, "state_dict": state}, tmp_path / "a.ckpt")
    loaded = Checkpoint(str(tmp_path / "a.ckpt")).load(network, head, specs[1])
    assert loaded.reason == "2 of 3 outputs are the source's, the rest begin anew: malaria"
    assert torch.equal(head.classify.weight[1:], trained.classify.weight[[1, 0]])
    bias = head.state_dict()["classify.bias"]
    assert bias[0].item() == pytest.approx(-math.log(99))
    assert head.classify.weight[0].std().item() == pytest.approx(0.01, rel=0.3)
    assert torch.equal(head.locate.weight, trained.locate.weight)


def test_towers_take_any_norm() -> None:
    head = head_of(backbone(), norm=BatchNorm)
    assert sum(isinstance(m, BatchNorm) for m in head.modules()) == 4
    assert not any(isinstance(m, nn.GroupNorm) for m in head.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (3, 5)}, r"levels must be numbers one after another.*got \[3, 5\]"),
        ({"levels": ()}, r"levels must be numbers one after another.*got \[\]"),
        ({"levels": (1, 2, 3)}, r"begin at 1, a stride of 2 pixels.*strides \[4, 8, 16, 32\]"),
        ({"levels": (3, 4)}, "do not use the backbone's map of stride 32"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"convs": -1}, "convs must be at least 0, got -1"),
        ({"prior": 1.0}, "prior is a probability between 0 and 1, got 1.0"),
        ({"iou": 1.5}, r"iou must lie in \[0, 1\], got 1.5"),
        ({"box_weight": -1.0}, "box_weight must be at least 0, got -1.0"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"detections": 0}, "detections must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head_of(backbone(), **changes)


def test_processes_have_the_mean_loss_of_one_with_all_pictures() -> None:
    torch.manual_seed(0)
    network = backbone()
    head = head_of(network)
    pictures = torch.randn(3, 3, *SIZE)
    boxes = torch.tensor([[4.0, 6, 40, 50], [10, 10, 90, 60], [20, 4, 60, 44]])
    labels, owner = torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1])
    with torch.no_grad():
        dense = head(network.eval()(pictures))
        whole = head.loss(dense, boxes, labels, owner)
        parts = [
            head.loss(
                dense.picture(i), boxes[owner == i], labels[owner == i], owner[owner == i] * 0
            )
            for i in range(3)
        ]
        stacked = [torch.stack([part.divisors[n] for n in part.terms]) for part in parts]
        mean = torch.stack(stacked).mean(0)
        losses = [part.total(lambda _: mean) for part in parts]
    torch.testing.assert_close(torch.stack(losses).mean(), whole.total())
