"""What the network says of a batch's pictures is measured and reported in pixels of the pictures as they were read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from resdomains.core import Features, ResNet1d, ResNet2d
from resdomains.interop import Checkpoint
from resdomains.training import BadSample, Optimization
from resdomains_tasks.object_detection import FCOSHead, ObjectDetection
from resdomains_tasks.object_detection.fcos import Dense, DetectionHead, Found, Losses
from resdomains_tasks.object_detection.sizes import ShorterSide
from tests.resdomains.vision.support import save_noise

from .support import RectangleData, batch_of, small_backbone, small_spec


def head(out_channels: Sequence[int], strides: Sequence[int], classes: int) -> FCOSHead:
    return FCOSHead(out_channels, strides, classes, levels=[1, 2, 3], channels=8, convs=1)


def small_task(**options: Any) -> ObjectDetection:
    options = {"backbone": small_backbone(), "spec": small_spec().plain(), "head": head, **options}
    torch.manual_seed(0)
    return ObjectDetection(**options)


class Brightest(DetectionHead):
    """Finds one object: the box around what is brighter than the mean, by the pictures themselves."""

    def __init__(self, out_channels: Sequence[int], strides: Sequence[int], classes: int) -> None:
        super().__init__()

    def forward(self, features: Features) -> Dense:
        self.pictures = features.maps[0]
        nothing = torch.zeros(len(self.pictures), 0)
        return Dense(nothing, nothing, nothing, nothing, nothing, ())

    def loss(self, dense: Dense, boxes: Tensor, labels: Tensor, owner: Tensor) -> Losses:
        return Losses({"none": self.pictures.sum() * 0}, {"none": torch.tensor(1.0)})

    def detect(self, dense: Dense, sizes: Tensor, threshold: float) -> list[Found]:
        found = []
        for picture, (height, width) in zip(self.pictures, sizes.tolist(), strict=True):
            seen = picture[0, :height, :width]
            y, x = (seen > (seen.max() + seen.min()) / 2).nonzero().T
            box = torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1)).float()
            found.append(Found(box[None], torch.tensor([0.9]), torch.tensor([1])))
        return found


class Looks(torch.nn.Module):
    """Hands the pictures on as features."""

    in_channels, out_channels, stride = 3, (3,), (1,)

    def forward(self, images: Tensor) -> Features:
        return Features((images,), (None,))


def white_square(path: Path, size: tuple[int, int], box: tuple[int, int, int, int]) -> Path:
    picture = Image.new("RGB", size)
    picture.paste("white", box)
    picture.save(path)
    return path


@pytest.mark.parametrize("tile", [0, 150])
def test_boxes_are_in_pixels_of_the_file(tmp_path: Path, tile: int) -> None:
    task = small_task(backbone=Looks(), head=Brightest, tile=tile, overlap=0.5)
    box = (60, 40, 100, 80)
    files = [white_square(tmp_path / "a.png", (200, 100), box)]
    files += [white_square(tmp_path / "b.png", (120, 130), box)] if not tile else []
    records = task.predict(task.collate(list(task.read([str(f) for f in files]))))
    for record, file in zip(records, files, strict=True):
        assert record["source"] == str(file)
        (found,) = record["objects"]
        assert found["label"] == "blue"
        # A pixel of the network's 64 x 64 is at most 200 / 64 of the file's.
        assert found["box"] == pytest.approx(box, abs=200 / 64)
    assert (records[0]["width"], records[0]["height"]) == (200, 100)


@torch.no_grad()
@pytest.mark.parametrize("size", [None, ShorterSide(48, 100)])
def test_results_do_not_depend_on_batch_mates(size: ShorterSide | None) -> None:
    data = RectangleData(size=size)
    data.ready()
    task = small_task(spec=data.spec).eval()
    alone = [task.step(batch_of(data, "val", [i]), "val") for i in range(6)]
    for metric in task.metrics_of("val").values():
        metric.reset()
    together = task.step(batch_of(data, "val", list(range(6))), "val")
    mean = sum(float(r.loss) for r in alone) / 6
    assert float(together.loss) == pytest.approx(mean, rel=1e-5)
    assert together.items == 6


def test_a_batch_without_objects_trains_and_is_evaluated() -> None:
    data = RectangleData()
    data.ready()
    task = small_task(spec=data.spec)
    result = task.step(batch_of(data, "train", [0, 4]), "train")
    torch.autograd.backward(result.loss)
    assert result.loss.isfinite()
    missing = [
        name
        for name, p in task.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]
    assert missing == []
    task.eval()
    empty = [i for i in range(9) if not len(data.ready_dataset("val").objects(i))]  # type: ignore[attr-defined]
    assert task.step(batch_of(data, "val", empty), "val").loss.isfinite()


def test_a_few_pictures_are_learned_and_scored() -> None:
    data = RectangleData()
    data.ready()
    task = small_task(spec=data.spec)
    batch = batch_of(data, "val", [1, 2, 5, 6])
    optimizer = torch.optim.AdamW(task.parameters(), lr=4e-3)
    for _ in range(150):
        optimizer.zero_grad()
        result = task.step(batch, "train")
        torch.autograd.backward(result.loss)
        optimizer.step()
    task.eval()
    task.step(batch, "val")
    results = next(iter(task.metrics_of("val").values())).compute()
    assert float(task.score(results)) > 0.5
    assert len(task.examples("val", results)) == 1
    assert "red" in task.examples("val", results)[0]


def test_a_score_of_nothing_to_find_is_zero() -> None:
    assert float(small_task().score({"ap": torch.tensor(float("nan"))})) == 0.0
    assert ObjectDetection.chance({}) == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"threshold is a score and must lie in \[0, 1\], got 1.5"),
        ({"tile": -1}, "tile must be at least 0 pixels, got -1"),
        ({"overlap": 1.0}, r"overlap is a share of a tile and must lie in \[0, 1\), got 1.0"),
        (
            {"backbone": small_backbone(1)},
            "backbone takes pictures of 1 channels, the data have 3; set --model.backbone.in_channels 3",
        ),
        (
            {"backbone": ResNet1d(in_channels=3)},
            r"backbone ResNet1d cannot read pictures \(x: expected 3 axes .*ResNet2d or resnet50",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_task(**options)


def test_a_backbone_must_say_what_it_gives() -> None:
    with pytest.raises(TypeError, match="backbone Linear states no out_channels and stride"):
        small_task(backbone=torch.nn.Linear(3, 3))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    good = save_noise(tmp_path / "good.png")
    task = small_task()
    found = list(
        task.read([str(tmp_path / n) for n in ("text.png", "empty", "none.png")] + [str(good)])
    )
    assert [isinstance(x, BadSample) for x in found] == [True, True, True, False]
    reasons = [x.reason for x in found if isinstance(x, BadSample)]
    assert reasons == [
        "not a picture in a format that is read",
        "a folder without pictures",
        "no such file or folder",
    ]


def test_a_picture_is_drawn_as_large_as_it_is(tmp_path: Path) -> None:
    task = small_task(backbone=Looks(), head=Brightest)
    file = white_square(tmp_path / "a.png", (600, 500), (100, 50, 300, 200))
    (record,) = task.predict(task.collate(list(task.read([str(file)]))))
    drawn = task.draw(record)
    assert drawn.shape == (3, 500, 600)
    assert drawn.dtype == torch.uint8
    assert len(set(map(tuple, drawn.flatten(1).T.tolist()))) > 2


def test_training_pictures_are_shown() -> None:
    data = RectangleData()
    data.ready()
    sheet = small_task(spec=data.spec).samples(batch_of(data, "train", [1, 2, 3]))
    assert sheet.dtype == torch.uint8
    assert sheet.shape[0] == 3


def test_an_earlier_run_with_other_classes_keeps_what_both_know(tmp_path: Path) -> None:
    trained = small_task()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter))
    checkpoint: dict[str, Any] = {"state_dict": trained.state_dict()}
    trained.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    spec = small_spec(classes=["green", "blue"]).plain()
    task = small_task(spec=spec, weights=Checkpoint(str(tmp_path / "a.ckpt")))
    ours, theirs = task.head.state_dict(), trained.head.state_dict()
    (rows,) = [name for name in ours if name in FCOSHead.rows and name.endswith("weight")]
    assert torch.equal(ours[rows][1], theirs[rows][1])
    assert not torch.equal(ours[rows][0], theirs[rows][0])
    assert all(torch.equal(ours[k], theirs[k]) for k in ours if k not in FCOSHead.rows)
    assert any("blue" in note or "green" in note for note in task.notes)


def test_frozen_stages_learn_nothing() -> None:
    task = small_task(optimization=Optimization(frozen=1))
    data = RectangleData()
    data.ready()
    torch.autograd.backward(task.step(batch_of(data, "train", [1, 2, 3]), "train").loss)
    assert isinstance(task.backbone, ResNet2d)
    names = {n for n, p in task.backbone.named_parameters() if p.grad is None}
    assert any(n.startswith("stem") for n in names)
    assert any(n.startswith("stages.0") for n in names)
    assert not any(n.startswith("stages.2") for n in names)


def found(label: str, *box: float) -> dict[str, Any]:
    return {"label": label, "score": 0.5, "box": list(box)}


def test_a_table_counts_the_objects_of_each_class() -> None:
    boxes = [found("blue", 0, 0, 1, 1), found("red", 0, 0, 1, 1), found("blue", 0, 0, 1, 1)]
    record = {"source": "a.png", "width": 9, "height": 8, "objects": boxes}
    task = small_task()
    assert task.row(record) == {"source": "a.png", "found": "1 red, 2 blue"}
    assert task.row({**record, "objects": []}) == {"source": "a.png", "found": "nothing"}


def test_detections_are_written_as_coco_has_them() -> None:
    task = small_task(spec=small_spec(category_ids=[7, 3]).plain())
    records: list[dict[str, Any]] = [
        {"source": "a.png", "objects": []},
        {"source": "b.png", "objects": [found("blue", 1.5, 2.0, 4.25, 8.0)]},
    ]
    assert json.loads(task.formats()["coco"](records)) == [
        {
            "image_id": 2,
            "file_name": "b.png",
            "category_id": 3,
            "bbox": [1.5, 2.0, 2.75, 6.0],
            "score": 0.5,
        }
    ]


def test_suppression_is_inside_or_outside() -> None:
    task = small_task()
    assert task.nms == "inside"
    with pytest.raises(ValueError, match="nms must be one of inside, outside, got 'both'"):
        task.nms = "both"
