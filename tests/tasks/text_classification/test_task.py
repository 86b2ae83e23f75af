import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from pytorch_lightning import Trainer
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, r2_score
from torch import Tensor, nn

from resdomains.classification import BinaryCrossEntropy, CrossEntropy, Threshold
from resdomains.core import (
    FirstTokenHead,
    PooledHead,
    ResidualEncoder,
    ResidualMLP,
    ResNet1d,
    SinusoidalPositions,
    TokenStem,
)
from resdomains.training import EMA, BadSample, Optimization
from resdomains.training.callbacks import Pictures
from resdomains_tasks.text_classification.losses import SquaredError
from resdomains_tasks.text_classification.task import TextClassification

from .support import LABELLED, NUMERIC, PAIRED, Opinions, small_spec, small_task


def trainer(**options: Any) -> Trainer:
    return Trainer(
        **{
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "accelerator": "cpu",
            **options,
        }
    )


def batch(target: Any = (1, 0, 1, 0)) -> dict[str, Any]:
    ids = torch.tensor([[1, 3, 9, 0], [2, 3, 0, 0], [5, 1, 4, 9], [6, 2, 8, 0]])
    lengths = torch.tensor([3, 2, 4, 3])
    return {
        "ids": ids,
        "lengths": lengths,
        "target": torch.tensor(target),
        "index": torch.arange(4),
    }


LABELS = [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
NUMBERS = [1.0, 7.5, 3.0, 2.0]


def learn(task: TextClassification, data: dict[str, Any], steps: int = 60) -> list[float]:
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    losses = []
    for _ in range(steps):
        loss = task.step(data, "train").loss
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    task.eval()
    return losses


def read(task: TextClassification, *inputs: str) -> Sequence[dict[str, Any]]:
    items = list(task.read(inputs))
    assert not any(isinstance(item, BadSample) for item in items)
    return cast(Sequence[dict[str, Any]], items)


def predict(task: TextClassification, *inputs: str) -> list[dict[str, Any]]:
    return task.eval().predict(task.collate(read(task, *inputs)))


def test_classes_labels_and_numbers_of_a_tiny_batch_are_learned() -> None:
    task = small_task()
    losses = learn(task, batch())
    assert losses[-1] < 0.05 * losses[0]
    assert [r["label"] for r in task.predict(batch())] == ["pos", "neg"] * 2

    task = small_task(LABELLED)
    learn(task, batch(LABELS))
    found = [{name for name, _ in r["labels"]} for r in task.predict(batch(LABELS))]
    assert found == [{"a", "c"}, {"b", "c"}, set(), {"a", "b", "c"}]

    task = small_task(NUMERIC)
    learn(task, batch(NUMBERS), 200)
    values = [r["value"] for r in task.predict(batch(NUMBERS))]
    assert values == pytest.approx(NUMBERS, abs=0.2)


def test_the_usual_loss_follows_the_kind_of_target() -> None:
    assert isinstance(small_task().loss, CrossEntropy)
    assert isinstance(small_task(LABELLED).loss, BinaryCrossEntropy)
    assert isinstance(small_task(NUMERIC).loss, SquaredError)


@pytest.mark.parametrize(
    ("spec", "loss", "message"),
    [
        (
            None,
            SquaredError(),
            r"SquaredError is not for targets that are classes; set --model\.loss Cro",
        ),
        (
            NUMERIC,
            CrossEntropy(),
            r"CrossEntropy is not for targets that are numbers; set --model\.loss Squ",
        ),
        (LABELLED, CrossEntropy(), "multi-label"),
    ],
)
def test_a_loss_for_other_targets_is_refused(spec: Any, loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_task(spec, loss=loss)


def encoder(**options: Any) -> ResidualEncoder:
    stem = options.pop("stem", TokenStem)
    return ResidualEncoder(**{"layers": 1, "width": 8, "in_channels": 10, "stem": stem, **options})


@pytest.mark.parametrize(
    ("backbone", "spec", "message"),
    [
        (
            lambda: encoder(in_channels=11),
            small_spec(),
            r"reads 11 different tokens, the data have 10; set --model\.backbone\.in_channels 10",
        ),
        (
            lambda: encoder(stem=lambda place: TokenStem(place, length=5)),
            small_spec(),
            r"has 5 positions, texts have up to 6 tokens; set --model\.backbone\.stem\.length 6, or "
            r"--data\.max_length 5",
        ),
        (
            lambda: ResNet1d(in_channels=10),
            small_spec(),
            "ResNet1d cannot read token ids .*TokenStem",
        ),
        (
            lambda: ResidualMLP(in_channels=10),
            small_spec(),
            "ResidualMLP cannot read token ids .*TokenStem",
        ),
    ],
)
def test_a_backbone_that_cannot_read_the_texts_is_refused_when_built(
    backbone: Any, spec: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextClassification(backbone=backbone(), spec=spec.plain())


def test_a_stem_without_types_reads_pairs_by_what_stands_between_them() -> None:
    task = TextClassification(backbone=encoder(), spec=PAIRED.plain()).eval()
    one, two = (torch.tensor([[[1, 2, 3], types]]) for types in ([0, 1, 1], [0, 0, 1]))
    lengths = torch.tensor([3])
    assert torch.equal(task(one, lengths), task(two, lengths))
    typed = small_task(PAIRED).eval()
    assert not torch.equal(typed(one, lengths), typed(two, lengths))


def test_positions_without_a_table_take_texts_of_any_length() -> None:
    def stem(place: Any) -> TokenStem:
        return TokenStem(place, length=2, positions=SinusoidalPositions)

    task = TextClassification(backbone=encoder(stem=stem), spec=small_spec().plain())
    assert task(torch.zeros(1, 6, dtype=torch.long), torch.tensor([6])).shape == (1, 2)


def test_a_backbone_without_stages_and_a_spec_of_other_data_are_refused() -> None:
    with pytest.raises(TypeError, match="backbone Flatten states no out_channels"):
        TextClassification(backbone=nn.Flatten(), spec=small_spec().plain())
    with pytest.raises(ValueError, match="spec does not describe texts"):
        TextClassification(backbone=encoder(), spec={"classes": ["a", "b"]})


def test_chance_is_what_a_guess_without_reading_gets() -> None:
    def chance(**changes: Any) -> float | None:
        return TextClassification.chance(small_spec(**changes).plain())

    assert chance() == 0.75
    assert chance(prevalence=None) == 0.5
    assert chance(prevalence=[1.0, 0.0]) is None
    assert TextClassification.chance(LABELLED.plain()) == pytest.approx(0.4)
    assert TextClassification.chance(NUMERIC.plain()) == 0.0


@pytest.mark.parametrize(
    ("prevalence", "rarer"), [([0.2, 0.8], 0), ([0.8, 0.2], 1), ([0.5, 0.5], 1), (None, 1)]
)
def test_the_rarer_of_two_classes_is_measured(prevalence: Any, rarer: int) -> None:
    task = small_task(small_spec(prevalence=prevalence))
    assert task.rarer == rarer
    task.step(batch((1, 1, 1, 0)), "val")
    curve = task.metrics_of("val")["f1_curve"]
    labels = torch.cat(cast(list[Tensor], curve.labels))
    assert int(labels.sum()) == (1 if rarer == 0 else 3)


def evaluated(kind: str, **options: Any) -> tuple[TextClassification, Opinions, dict[str, Tensor]]:
    data = Opinions(kind=kind)
    data.ready()
    task = small_task(data.text_spec, optimization=Optimization(0.01), **options)
    run = trainer(max_epochs=3)
    run.fit(task, datamodule=data)
    run.test(task, datamodule=data, verbose=False)
    return task, data, task.results["test"]


def answers(task: TextClassification, data: Opinions) -> tuple[list[dict[str, Any]], Any]:
    part = data.ready_dataset("test")
    given = part.__getitems__(list(range(33)))  # type: ignore[attr-defined]
    return task.eval().predict(given), given["target"].numpy()


def test_two_classes_are_measured_as_scikit_learn_does() -> None:
    task, data, results = evaluated("class")
    records, targets = answers(task, data)
    classes = data.text_spec.classes
    rarer = classes.index("praise")
    assert task.rarer == rarer
    said = [classes.index(r["label"]) for r in records]
    p = [dict(r["top"])["praise"] for r in records]
    assert float(results["score"]) == pytest.approx(accuracy_score(targets, said))
    expected = {
        "f1": f1_score(targets, said, average="macro"),
        "f1_rarer": f1_score(targets == rarer, [s == rarer for s in said]),
        "average_precision_rarer": average_precision_score(targets == rarer, p),
        "f1_at_threshold": f1_score(
            targets == rarer, [r["label_at_threshold"] == "praise" for r in records]
        ),
    }
    for name, value in expected.items():
        assert float(results[name]) == pytest.approx(value), name
    assert "top5" not in results


def test_the_test_uses_the_threshold_of_the_last_validation() -> None:
    task, _, results = evaluated("class")
    val = task.results["val"]
    assert float(val["f1_at_threshold"]) == pytest.approx(float(val["f1_curve"][1].max()))
    assert task.threshold == float(val["threshold"]) == float(results["threshold"])


def test_labels_are_named_at_the_threshold() -> None:
    task, data, results = evaluated("labels")
    records, targets = answers(task, data)
    names = data.text_spec.classes
    said = [[name in dict(r["labels"]) for name in names] for r in records]
    assert float(results["f1_at_threshold"]) == pytest.approx(
        f1_score(targets, said, average="macro")
    )
    assert float(results["score"]) == float(results["map"])
    task.chosen = {"threshold": 0.0}
    assert all(len(r["labels"]) == 2 for r in answers(task, data)[0])
    task.chosen = {"threshold": 1.1}
    assert not any(r["labels"] for r in answers(task, data)[0])


def test_numbers_are_scored_by_r2_and_never_below_0() -> None:
    task, data, results = evaluated("number")
    records, targets = answers(task, data)
    expected = r2_score(targets, [r["value"] for r in records])
    assert float(results["r2"]) == pytest.approx(expected, abs=1e-5)
    assert float(results["score"]) == pytest.approx(max(float(results["r2"]), 0.0))
    assert float(task.score({"r2": torch.tensor(-3.0)})) == 0.0
    assert task.chosen == {}


def test_averaged_weights_keep_the_threshold_that_was_chosen_for_them(tmp_path: Path) -> None:
    data = Opinions()
    data.ready()
    task = small_task(data.text_spec, optimization=Optimization(0.01))
    run = trainer(max_epochs=2, callbacks=[EMA()])
    run.fit(task, datamodule=data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["resdomains"]["chosen"]
    assert saved == {"threshold": float(task.results["val"]["threshold"])}


def test_more_than_five_classes_have_top_5_and_no_threshold() -> None:
    task = small_task(small_spec(classes=list("abcdef"), prevalence=None))
    assert "top5" in task.build_metrics()
    assert not any(isinstance(metric, Threshold) for metric in task.build_metrics().values())


def test_training_does_not_touch_the_metrics() -> None:
    task = small_task()
    task.step(batch(), "train")
    task.step(batch(), "val")
    assert int(task.metrics_of("val")["confusion"].compute().sum()) == 4
    task.step(batch(), "train")
    assert int(task.metrics_of("val")["confusion"].compute().sum()) == 4


FIGURES = {
    "class": {"classes", "confusion", "reliability", "f1_over_threshold", "mistakes"},
    "labels": {"classes", "average_precision", "f1_over_threshold", "mistakes"},
    "number": {"predicted_against_true", "mistakes"},
}


@pytest.mark.parametrize("kind", list(FIGURES))
def test_figures_and_tables_say_which_text_was_judged_how(kind: str, tmp_path: Path) -> None:
    data = Opinions(kind=kind)
    data.ready()
    task = small_task(data.text_spec)
    pictures = Pictures(tmp_path / "pictures", tmp_path / "tables", tmp_path / "metrics.csv")
    trainer(callbacks=[pictures]).test(task, datamodule=data, verbose=False)
    drawn = {p.name for p in (tmp_path / "pictures").iterdir()}
    assert drawn == {f"test_{name}.png" for name in FIGURES[kind]}
    with (tmp_path / "tables" / "test_mistakes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = dict(zip((t := data.read().splits["test"]).sources, t.texts, strict=True))
    assert rows
    for row in rows:
        assert row["text"] == texts[row["source"]]
        assert row["true"] != row["predicted"]
    if kind != "number":
        with (tmp_path / "tables" / "test_classes.csv").open(newline="") as file:
            by_class = list(csv.DictReader(file))
        assert [row["class"] for row in by_class] == data.text_spec.classes
        assert list(by_class[0]) == ["class", "precision", "recall", "f1", "support"]


def test_records_are_plain_and_ranked() -> None:
    task = small_task(small_spec(classes=[f"c{i}" for i in range(7)], prevalence=None))
    [record] = predict(task, "good film .")
    assert list(record) == ["source", "text", "label", "probability", "top"]
    assert (record["source"], record["text"]) == ("argument 1", "good film .")
    item = read(task, "good film .")[0]
    logits = task(item["ids"][None].long(), torch.tensor([3])).detach()
    probabilities = torch.softmax(logits, 1)[0]
    assert record["label"] == f"c{int(probabilities.argmax())}"
    assert type(record["probability"]) is float
    assert record["probability"] == pytest.approx(float(probabilities.max()))
    assert [n for n, _ in record["top"]] == [
        f"c{k}" for k in probabilities.argsort(descending=True)[:5]
    ]
    assert list(predict(small_task(NUMERIC), "good")[0]) == ["source", "text", "value"]
    assert list(predict(small_task(), "good")[0])[-2:] == ["label_at_threshold", "top"]


def test_a_text_is_predicted_as_its_sample_was_evaluated(tmp_path: Path) -> None:
    data = Opinions()
    data.ready()
    task = small_task(data.text_spec)
    texts = data.read().splits["test"]
    evaluated = data.ready_dataset("test").__getitems__([0, 1, 2])  # type: ignore[attr-defined]
    collated = task.collate(read(task, *texts.texts[:3]))
    assert torch.equal(collated["ids"], evaluated["ids"])
    assert torch.equal(collated["lengths"], evaluated["lengths"])


def test_a_batch_is_as_long_as_its_longest_text_and_its_mates_change_nothing() -> None:
    task = small_task()
    inputs = ("good", "bad film very long", "not . short")
    items = read(task, *inputs)
    assert [task.size(item) for item in items] == [1, 4, 3]
    assert task.collate(items)["ids"].shape == (3, 4)
    together = predict(task, *inputs)
    for text, record in zip(inputs, together, strict=True):
        [alone] = predict(task, text)
        assert alone["probability"] == pytest.approx(record["probability"], rel=1e-5)


def test_pairs_are_read_with_the_text_that_each_token_is_of() -> None:
    task = small_task(PAIRED)
    [item] = read(task, '["good film", "bad"]')
    assert item["ids"].tolist() == [[1, 3, 2], [0, 0, 1]]
    assert (item["text"], item["pair"]) == ("good film", "bad")
    [record] = predict(task, '["good film", "bad"]')
    assert list(record)[:3] == ["source", "text", "pair"]


def test_reading_goes_on_after_a_bad_text_and_names_it() -> None:
    items = list(small_task().read(["good", "gone.csv", " ", "bad"]))
    said = [(i.source, i.reason) if isinstance(i, BadSample) else i["text"] for i in items]
    assert said == [
        "good",
        ("gone.csv", "no such file"),
        ("argument 3", "the text is empty"),
        "bad",
    ]


def test_more_texts_than_are_encoded_at_once_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"good {'film ' * (n % 4)}" for n in range(2500)))
    items = read(small_task(), str(path))
    assert [item["source"] for item in items] == [f"many.txt:{n + 1}" for n in range(2500)]
    assert [item["ids"].shape[-1] for item in items] == [1 + n % 4 for n in range(2500)]


def test_texts_that_are_cut_are_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    task = small_task(small_spec(truncation="tail"))
    read(task, "good " * 6, "good " * 7, "bad " * 9)
    assert [r.message for r in caplog.records] == [
        "2 of 3 texts were cut to 6 tokens (the tail kept), as in training"
    ]


def test_an_embedding_is_what_the_heads_linear_map_reads() -> None:
    for head in (PooledHead, FirstTokenHead):
        task = small_task(head=head).eval()
        embedded = task.embed(batch())
        assert embedded.shape == (4, 16)
        expected = task(batch()["ids"], batch()["lengths"])
        assert torch.allclose(task.head.linear(embedded), expected, atol=1e-6)
