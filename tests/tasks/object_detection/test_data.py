"""Boxes follow their pictures into a batch, and what is drawn depends on (seed, epoch, picture) alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from resdomains.training import BadSample
from resdomains.vision import denormalise
from resdomains_tasks.object_detection.annotations import Corpus, objects
from resdomains_tasks.object_detection.data import prepared
from resdomains_tasks.object_detection.mosaic import Mosaic
from resdomains_tasks.object_detection.sizes import Letterbox, ShorterSide

from .support import COLOURS, RectangleData, batch_of, rectangles, small_spec


def colours_in(batch: dict[str, Any], data: RectangleData) -> Tensor:
    """(N, 3): the colour in the middle of every box."""
    pixels = denormalise(batch["image"], data.detection_spec) * 255
    middles = ((batch["boxes"][:, :2] + batch["boxes"][:, 2:]) / 2).long()
    return torch.stack(
        [pixels[owner, :, y, x] for owner, (x, y) in zip(batch["owner"], middles, strict=True)]
    )


@pytest.mark.parametrize("size", [Letterbox(64, 96), ShorterSide(40, 70)])
def test_boxes_lie_where_their_objects_do(size: Any) -> None:
    data = RectangleData(size=size)
    data.ready()
    for split in ("train", "val", "test"):
        batch = batch_of(data, split, [1, 2, 3])
        assert batch["image"].shape[-2] % 32 == batch["image"].shape[-1] % 32 == 0
        # Later rectangles may cover earlier ones, so the middle of some shows another's colour.
        near = (colours_in(batch, data) - COLOURS[batch["labels"]]).abs().amax(1) < 12
        assert near.float().mean() >= 0.6
        assert (batch["boxes"][:, 2:] <= batch["sizes"][batch["owner"]].flip(1) + 1e-3).all()


def test_crowds_are_evaluated_and_not_trained_on() -> None:
    data = RectangleData()
    data.ready()
    pictures = data.ready_dataset("train")
    many = [i for i in range(24) if len(pictures.objects(i)) == 3]  # type: ignore[attr-defined]
    assert len(batch_of(data, "train", many)["boxes"]) == 2 * len(many)
    validated = data.ready_dataset("val")
    many = [i for i in range(9) if len(validated.objects(i)) == 3]  # type: ignore[attr-defined]
    batch = batch_of(data, "val", many)
    assert len(batch["boxes"]) == len(batch["truth"]) == 3 * len(many)
    assert batch["truth"][:, 5].sum() == len(many)


def test_the_truth_is_what_was_annotated() -> None:
    data = RectangleData(size=ShorterSide(40, 70))
    data.ready()
    pictures = data.ready_dataset("val")
    batch = batch_of(data, "val", [3, 6])
    expected = np.concatenate([pictures.objects(i) for i in (3, 6)])  # type: ignore[attr-defined]
    assert np.array_equal(batch["truth"].numpy(), expected)
    ratio = (batch["sizes"] / batch["original"]).flip(1).repeat(1, 2)[batch["owner"]]
    assert torch.allclose(batch["boxes"], (batch["truth"][:, :4] * ratio).float(), atol=1e-4)


def test_a_picture_without_objects_and_a_batch_without_any() -> None:
    data = RectangleData()
    data.ready()
    batch = batch_of(data, "train", [0, 4])
    assert batch["boxes"].shape == (0, 4)
    assert batch["labels"].shape == batch["owner"].shape == (0,)
    assert batch["image"].shape == (2, 3, 64, 64)


def test_what_is_behind_a_picture_is_zero() -> None:
    spec = small_spec()
    images = torch.full((2, 3, 64, 64), 200, dtype=torch.uint8)
    sizes = torch.tensor([[64, 40], [30, 64]])
    x = prepared(images, sizes, spec)
    assert (x[0, :, :, 40:] == 0).all()
    assert (x[1, :, 30:] == 0).all()
    assert (x[0, :, :, :40] != 0).all()
    assert (x[1, :, :30] != 0).all()
    assert x.is_contiguous(memory_format=torch.channels_last)


AUGMENT: list[v2.Transform] = [v2.RandomHorizontalFlip(), v2.ColorJitter(0.3, 0.3)]


@pytest.mark.parametrize("mosaic", [None, Mosaic(0.5)])
def test_augmentation_depends_on_seed_epoch_and_picture_alone(mosaic: Mosaic | None) -> None:
    first, second, other = (
        RectangleData(augment=AUGMENT, mosaic=mosaic, seed=seed) for seed in (0, 0, 1)
    )
    for data in (first, second, other):
        data.ready()
    torch.manual_seed(1)
    mates = batch_of(first, "train", [24 + i for i in (7, 2, 11)])
    torch.manual_seed(2)
    alone = batch_of(second, "train", [24 + 2])
    assert torch.equal(mates["image"][1], alone["image"][0])
    assert torch.equal(mates["boxes"][mates["owner"] == 1], alone["boxes"])
    pictures = [batch_of(second, "train", [24 * epoch + 2])["image"] for epoch in range(6)]
    assert any(not torch.equal(pictures[0], later) for later in pictures[1:])
    assert any(
        not torch.equal(a["image"], b["image"])
        for a, b in (
            (batch_of(data, "train", [i]) for data in (second, other)) for i in range(1, 8)
        )
    )


def test_evaluation_is_not_augmented() -> None:
    plain, augmented = RectangleData(), RectangleData(augment=AUGMENT, mosaic=Mosaic(1.0))
    for data in (plain, augmented):
        data.ready()
    assert torch.equal(
        batch_of(plain, "val", [1])["image"], batch_of(augmented, "val", [1])["image"]
    )


def test_kept_pictures_are_those_that_were_read() -> None:
    kept, read = (
        RectangleData(augment=AUGMENT, kept_mib=1),
        RectangleData(augment=AUGMENT, kept_mib=0),
    )
    for data in (kept, read):
        data.ready()
    for epoch in range(3):
        numbers = [24 * epoch + i for i in (1, 2, 3)]
        a, b = batch_of(kept, "train", numbers), batch_of(read, "train", numbers)
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["boxes"], b["boxes"])


def test_a_picture_that_cannot_be_read_is_named() -> None:
    data = RectangleData(broken=True)
    data.ready()
    with pytest.raises(BadSample, match=r"cannot be read \(--data\.bad_samples skip leaves"):
        batch_of(data, "train", [4, 5])


def test_batches_hold_pictures_of_similar_shapes() -> None:
    data = RectangleData(size=ShorterSide(64, 640), batch_size=6)
    data.ready()
    sampler = data.batch_sampler("train", 0, 1)
    wide = [batch_of(data, "train", numbers)["image"].shape for numbers in sampler]
    padded = sum(b * h * w for b, _, h, w in wide)
    every = [batch_of(data, "train", [i])["image"].shape for i in range(24)]
    assert padded < 1.35 * sum(h * w for _, _, h, w in every)


class Unlabelled(RectangleData):
    def read(self) -> Corpus:
        corpus = super().read()
        for found in corpus.splits["train"]:
            found.objects = objects([], [])
        return corpus


def test_training_without_any_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no training picture with an object: of 24 pictures none"):
        Unlabelled().ready()


def test_classes_are_numbered_as_a_checkpoint_numbers_them() -> None:
    data = RectangleData()
    spec = small_spec(
        classes=["blue", "green", "red"], category_ids=[5, 6, 7], channels=1, mean=[0.5], std=[0.2]
    ).plain()
    data.adopt(spec)
    plain = RectangleData()
    data.ready()
    plain.ready()
    theirs, ours = (batch_of(d, "val", [1, 2, 3])["labels"] for d in (data, plain))
    assert torch.equal(theirs, torch.tensor([2, 0])[ours])
    assert data.detection_spec.classes == ["blue", "green", "red"]
    assert data.detection_spec.category_ids == [5, 6, 7]
    assert batch_of(data, "val", [1])["image"].shape[1] == 1
    other = RectangleData()
    other.adopt(small_spec(classes=["blue", "green"]).plain())
    with pytest.raises(
        ValueError, match="the classes red, which the checkpoint does not know; it knows blue"
    ):
        other.ready()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ({"kept_mib": -1}, "kept_mib must be at least 0, got -1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RectangleData(**arguments)


def test_the_amounts_are_said() -> None:
    data = RectangleData()
    objects_of = {
        s: sum(len(p.objects) for p in rectangles(*r))
        for s, r in {"train": (0, 24), "val": (24, 9)}.items()
    }
    assert (
        f"train 24 with {objects_of['train']} objects, val 9 with {objects_of['val']}"
        in data.notes[0]
    )
