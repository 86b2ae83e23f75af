from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from torch import nn

from resdomains.classification import BinaryCrossEntropy, CrossEntropy
from resdomains.core import (
    Backbone,
    Features,
    FeedForward,
    PatchStem,
    PooledHead,
    ResidualEncoder,
    ResidualMLP,
    ResNet1d,
    ResNet2d,
)
from resdomains.interop import Checkpoint, Loaded, Weights
from resdomains.training import BadSample, Optimization
from resdomains_tasks.image_classification import (
    ImageClassification,
    ImageSpec,
)
from tests.resdomains.vision.support import save_noise

from .support import Squares, ready, small_spec, small_task, squares

LABELLED = small_spec(multilabel=True, prevalence=[0.2, 0.4, 0.6])


def trainer(**options: Any) -> Trainer:
    return Trainer(
        **{
            "max_epochs": 8,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "accelerator": "cpu",
            **options,
        }
    )


def batch(count: int = 6) -> dict[str, Any]:
    images, targets = squares(count)
    images = (images.permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.2
    return {"image": images, "target": targets, "index": torch.arange(count)}


def test_it_overfits_a_tiny_batch() -> None:
    task, data = small_task(head=partial(PooledHead, dropout=0.1)), batch()
    optimizer = torch.optim.Adam(task.parameters(), 0.02)
    losses = []
    for _ in range(40):
        loss = task.step(data, "train").loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 < losses[0]
    assert [r["label"] for r in task.eval().predict(data)] == ["red", "green", "blue"] * 2


def test_multi_label_overfits_too() -> None:
    task = small_task(LABELLED)
    assert isinstance(task.loss, BinaryCrossEntropy)
    data = {**batch(), "target": torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 0]] * 2)}
    optimizer = torch.optim.Adam(task.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        task.step(data, "train").loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    records = task.eval().predict(data)
    assert [sorted(name for name, _ in r["labels"]) for r in records[:3]] == [
        ["blue", "red"],
        ["blue", "green"],
        [],
    ]
    assert len(records[2]["top"]) == 3


def test_lightning_trains_evaluates_and_fills_the_results(tmp_path: Path) -> None:
    task = small_task(
        Squares().image_spec, optimization=Optimization(0.1, partial(torch.optim.SGD, momentum=0.9))
    )
    data, run = Squares(), trainer()
    run.fit(task, datamodule=data)
    run.test(task, datamodule=data, verbose=False)
    results = task.results["test"]
    assert float(results["score"]) == float(results["top1"]) == 1.0
    assert float(results["skill"]) == 1.0
    assert int(results["confusion"].sum()) == 12
    assert "top5" not in results
    for name, figure in task.figures("test", results).items():
        figure.savefig(tmp_path / name)
    assert {p.name for p in tmp_path.iterdir()} == {
        "confusion.png",
        "reliability.png",
    }  # nothing was wrong


def test_the_figures_of_an_untrained_network_show_its_mistakes(tmp_path: Path) -> None:
    task = small_task(Squares().image_spec)
    trainer().validate(task, datamodule=Squares(), verbose=False)
    figures = task.figures("val", task.results["val"])
    assert set(figures) == {"confusion", "reliability", "mistakes"}


def test_training_does_not_touch_the_metrics() -> None:
    task = small_task()
    task.step(batch(), "train")
    task.step(batch(), "val")
    assert int(task.metrics_of("val")["confusion"].compute().sum()) == 6
    task.step(batch(), "train")
    assert int(task.metrics_of("val")["confusion"].compute().sum()) == 6


def test_more_than_five_classes_have_top_5() -> None:
    spec = small_spec(classes=[f"c{i}" for i in range(6)])
    assert "top5" in small_task(spec).build_metrics()


def test_multi_label_results_and_chance() -> None:
    task = small_task(LABELLED)
    task.step({**batch(), "target": torch.tensor([[1.0, 0, 1], [0, 1, 1], [0, 0, 0]] * 2)}, "test")
    results = {name: metric.compute() for name, metric in task.metrics_of("test").items()}
    assert set(results) == {"map", "f1", "average_precision"}
    assert 0 < float(task.score(results)) <= 1
    assert ImageClassification.chance(LABELLED.plain()) == pytest.approx(0.4)
    assert set(task.figures("test", results)) == {"average_precision"}


def test_chance_is_one_in_the_number_of_classes() -> None:
    assert ImageClassification.chance(small_spec().plain()) == pytest.approx(1 / 3)


def test_records_are_plain_and_ranked() -> None:
    spec = small_spec(classes=[f"c{i}" for i in range(7)])
    task = small_task(spec).eval()
    records = task.predict(batch(4))
    probabilities = torch.softmax(task(batch(4)["image"]), 1).detach()
    for i, record in enumerate(records):
        assert list(record) == ["source", "label", "probability", "top"]
        assert record["source"] == f"sample {i}"
        assert record["label"] == f"c{int(probabilities[i].argmax())}"
        assert type(record["probability"]) is float
        assert record["probability"] == pytest.approx(float(probabilities[i].max()))
        assert [name for name, _ in record["top"]] == [
            f"c{k}" for k in probabilities[i].argsort(descending=True)[:5]
        ]


def test_an_embedding_is_what_the_head_is_given() -> None:
    task = small_task().eval()
    embedded = task.embed(batch())
    assert embedded.shape == (6, 8)
    assert torch.allclose(task.head.linear(embedded), task(batch()["image"]), atol=1e-6)


def test_a_file_is_predicted_as_its_sample_was_evaluated(tmp_path: Path) -> None:
    data = ready(Squares())
    part = data.ready_dataset("test")
    evaluated = data.transform(part.__getitems__([0, 1, 2]), "test")["image"]  # type: ignore[attr-defined]
    for i in range(3):
        Image.fromarray(part.images[i].numpy()).save(tmp_path / f"{i}.png")  # type: ignore[attr-defined]
    task = small_task(data.image_spec)
    items = list(task.read([str(tmp_path)]))
    assert [item["source"] for item in items] == [str(tmp_path / f"{i}.png") for i in range(3)]  # type: ignore[index]
    assert torch.equal(task.collate(items)["image"], evaluated)


def test_reading_goes_on_after_a_bad_file_and_names_it(tmp_path: Path) -> None:
    first, last = save_noise(tmp_path / "a.png"), save_noise(tmp_path / "c.png")
    (tmp_path / "b.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    task = small_task()
    items = list(
        task.read(
            [
                str(p)
                for p in (
                    first,
                    tmp_path / "b.png",
                    tmp_path / "empty",
                    tmp_path / "absent.png",
                    last,
                )
            ]
        )
    )
    reasons = [item.reason if isinstance(item, BadSample) else item["source"] for item in items]
    assert reasons == [
        str(first),
        "not a picture in a format that is read",
        "a folder without pictures",
        "no such file or folder",
        str(last),
    ]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_kind_become_what_the_network_takes(
    tmp_path: Path, mode: str, channels: int
) -> None:
    spec = small_spec() if channels == 3 else small_spec(channels=1, mean=[0.4], std=[0.2])
    task = small_task(spec).eval()
    path = save_noise(tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}", 20, 30, mode)
    (record,) = task.predict(task.collate(list(task.read([str(path)]))))
    assert record["source"] == str(path)


def test_a_backbone_of_other_channels_is_refused_with_the_key_to_set() -> None:
    backbone = ResNet2d(layers=[1], channels=[4], in_channels=1)
    with pytest.raises(
        ValueError,
        match=r"takes pictures of 1 channels, the data have 3; set --model\.backbone\.in_",
    ):
        ImageClassification(backbone=backbone, spec=small_spec().plain())


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (ResNet1d(in_channels=3), r"ResNet1d cannot read .* \(x: expected 3 axes .*ResNet2d"),
        (
            ResidualMLP(in_channels=3),
            r"ResidualMLP cannot read .* \(x: expected vectors .*ResNet2d",
        ),
        (
            ResidualEncoder(1, 12, 3, partial(PatchStem, patch=4, size=16), [FeedForward]),
            r"\(3, 16, 16\), .* built, got \(1, 3, 8, 8\)\); give it what it expects, or take",
        ),
    ],
)
def test_a_backbone_over_something_else_is_refused(backbone: Backbone, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageClassification(backbone=backbone, spec=small_spec().plain())


def test_a_backbone_without_stages_is_refused() -> None:
    with pytest.raises(
        TypeError, match="backbone Flatten states no out_channels; take a network of resdomains"
    ):
        ImageClassification(backbone=nn.Flatten(), spec=small_spec().plain())


def test_cross_entropy_on_multi_label_data_is_refused() -> None:
    with pytest.raises(ValueError, match="multi-label"):
        small_task(LABELLED, loss=CrossEntropy())


def test_weights_fill_the_backbone_and_the_checkpoint_needs_them_no_more() -> None:
    source = small_task(small_spec(classes=["x", "y"]))
    for parameter in source.parameters():
        nn.init.normal_(parameter)

    class Ready(Weights):
        def load(self, network: Any, head: Any = None, spec: Any = None) -> Loaded:
            network.load_state_dict(source.backbone.state_dict())
            return Loaded((), (), "its classes are others")

    task = small_task(weights=Ready("any"))
    for ours, theirs in zip(task.backbone.parameters(), source.backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert task.head.linear.out_features == 3
    assert task.notes == ["weights: the head is not all of any: its classes are others"]


def test_a_run_on_other_classes_is_what_a_new_one_begins_with(tmp_path: Path) -> None:
    source = small_task(small_spec(classes=["blue", "grey", "red"]))
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    checkpoint: dict[str, Any] = {"state_dict": source.state_dict()}
    source.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "best.ckpt")
    task = small_task(weights=Checkpoint(str(tmp_path / "best.ckpt")))
    images = batch()["image"]
    (ours,), (theirs,) = task.eval().backbone(images).maps, source.eval().backbone(images).maps
    assert torch.equal(ours, theirs)
    assert torch.equal(task(images)[:, [0, 2]], source(images)[:, [2, 0]])
    (note,) = task.notes
    assert note.endswith("2 of 3 outputs are the source's, the rest begin anew: green")


def test_the_network_is_kept_in_channels_last() -> None:
    class Plain(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> Any:
            return Features((super().forward(x),), (None,))

    backbone = Plain(3, 4, 3)
    backbone.out_channels = (4,)  # type: ignore[assignment]
    task = ImageClassification(backbone=backbone, spec=small_spec().plain())
    assert task(batch()["image"]).shape == (6, 3)
    weights = [p for p in task.parameters() if p.ndim == 4]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_an_item_does_not_depend_on_its_batch() -> None:
    task = small_task().eval()
    whole = task(batch()["image"])
    assert torch.allclose(task(batch()["image"][2:3]), whole[2:3], atol=1e-5)


def test_a_spec_of_other_data_is_refused() -> None:
    with pytest.raises(ValueError, match="spec does not describe pictures"):
        ImageClassification(backbone=ResNet2d(), spec={"vocabulary": ["a"]})


def test_the_spec_is_plain_enough_for_a_checkpoint(tmp_path: Path) -> None:
    spec = Squares().spec
    torch.save(spec, tmp_path / "spec.pt")
    assert ImageSpec.of(torch.load(tmp_path / "spec.pt", weights_only=True)) == ImageSpec.of(spec)
    assert not any(isinstance(v, np.generic) for v in (*spec["mean"], *spec["std"]))
