import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import TINY, Run
from .test_fitting import run_folder, summary

PLUGIN = TINY[:2]


@pytest.fixture
def best(cli: Run) -> str:
    """The best checkpoint of a run of two epochs."""
    assert cli("fit", *TINY, "--trainer.precision", "32-true")[0] == 0
    return str(run_folder() / "checkpoints" / "best.ckpt")


def test_a_checkpoint_alone_gives_the_scores_of_its_run(cli: Run, best: str) -> None:
    status, out, errors = cli("test", *PLUGIN, "--ckpt_path", best, "--format", "json")
    assert status == 0, errors
    kept = summary()
    values = json.loads(out)
    assert values == {name: pytest.approx(kept[name]) for name in values}
    status, out, _ = cli("validate", *PLUGIN, "--ckpt_path", best, "--format", "json")
    assert json.loads(out)["val/score"] == pytest.approx(kept["best"]["val/score"])


def test_the_trainer_of_the_run_is_not_asked_for(cli: Run, best: str) -> None:
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["resdomains"]["recipe"]["trainer"]["devices"] = 64
    checkpoint["resdomains"]["recipe"]["trainer"]["strategy"] = "ddp"
    torch.save(checkpoint, "many.ckpt")
    assert cli("test", *PLUGIN, "--ckpt_path", "many.ckpt")[0] == 0


def test_results_are_one_table(cli: Run, best: str) -> None:
    status, out, _ = cli("test", *PLUGIN, "--ckpt_path", best)
    assert status == 0
    assert "skill" in out


def test_overrides_and_missing_splits(cli: Run, best: str) -> None:
    status, _, errors = cli("test", *PLUGIN, "--ckpt_path", best, "--data.tested", "false")
    assert (status, errors) == (2, "error: data: Points has no test split\n")
    status, _, errors = cli("test", *PLUGIN, "--ckpt_path", best, "--data.root", "gone")
    assert (status, errors) == (2, "error: data: root: no folder gone\n")
    status, _, errors = cli("test", *PLUGIN, "--ckpt_path", best, "--model.backbone.width", "3")
    assert status == 2
    assert "its weights do not fit Tiny as configured" in errors


def test_a_checkpoint_of_other_classes_is_refused(cli: Run, best: str) -> None:
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["resdomains"]["spec"]["classes"] = ["cat", "dog"]
    torch.save(checkpoint, "other.ckpt")
    status, _, errors = cli("test", *PLUGIN, "--ckpt_path", "other.ckpt")
    assert status == 2
    assert "classes differ from those that the checkpoint was trained with" in errors


def test_a_checkpoint_of_another_tokenizer_is_refused(cli: Run, best: str) -> None:
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["resdomains"]["spec"]["tokenizer"] = "{}"
    torch.save(checkpoint, "other.ckpt")
    for command in (("test",), ("fit", "--trainer.max_epochs", "3")):
        status, _, errors = cli(*command, *PLUGIN, "--ckpt_path", "other.ckpt")
        assert status == 2
        assert "tokenizer is another than the checkpoint was trained with" in errors


def test_data_follow_the_checkpoints_description(
    cli: Run, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["resdomains"]["spec"]["classes"] = ["one", "zero"]
    torch.save(checkpoint, "other.ckpt")
    points = sys.modules["tiny_domain"].Points

    def adopt(self: Any, spec: Any) -> None:
        monkeypatch.setattr(points, "spec", property(lambda _: dict(spec)))

    monkeypatch.setattr(points, "adopt", adopt)
    assert cli("test", *PLUGIN, "--ckpt_path", "other.ckpt")[0] == 0


def test_evaluation_needs_a_checkpoint(cli: Run) -> None:
    assert cli("test", *TINY)[2] == "error: `resdomains test` needs --ckpt_path FILE\n"


@pytest.fixture
def points(folder: Path) -> Path:
    """A folder of two files that can be read and one that cannot."""
    data = folder / "points"
    data.mkdir()
    (data / "a.txt").write_text("-1 1")
    (data / "b.txt").write_text("1 -1")
    (data / "c.txt").write_text("no numbers")
    return data


def predict(cli: Run, best: str, *arguments: str) -> tuple[int, str, str]:
    # float32, in which a number does not depend on the size of its batch.
    exact = ("--accelerator", "cpu", "--precision", "32")
    return cli("predict", *PLUGIN, "--ckpt_path", best, *exact, *arguments)


def test_predictions_as_json_csv_and_table(cli: Run, best: str, points: Path) -> None:
    files = (str(points / "a.txt"), str(points / "b.txt"))
    status, out, _ = predict(cli, best, *files, "--format", "json", "--batch_size", "1")
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["source"] for record in records] == list(files)
    status, out, _ = predict(cli, best, *files, "--format", "csv", "--top", "1")
    head, first, _ = out.splitlines()
    assert head == "source,probability,top_1,top_1_value"
    assert first.startswith(f"{files[0]},{records[0]['probability']}")
    status, out, _ = predict(cli, best, *files)
    assert f"one {records[0]['probability']:.4f}" in out


def test_bad_samples_are_refused_by_name_or_skipped(cli: Run, best: str, points: Path) -> None:
    status, _, errors = predict(cli, best, str(points))
    assert status == 2
    assert "c.txt: could not convert" in errors
    status, out, errors = predict(
        cli, best, str(points), "--bad_samples", "skip", "--format", "json"
    )
    assert (status, len(out.splitlines())) == (0, 2)
    assert "skipped" in errors
    status, _, errors = predict(cli, best, str(points / "c.txt"), "--bad_samples", "skip")
    assert status == 1
    assert "nothing to predict" in errors


def test_a_file_that_is_not_there_is_refused_by_name(cli: Run, best: str) -> None:
    status, out, errors = predict(cli, best, "gone.txt")
    assert (status, out, errors) == (2, "", "error: gone.txt: No such file or directory\n")


def test_items_of_like_size_share_a_batch_and_come_back_in_order(
    cli: Run, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [3, 1, 2, 3, 1, 2, 1]
    for number, blanks in enumerate(sizes):
        Path(f"{number}.txt").write_text(f"{number} -{number}" + " " * blanks)
    files = [f"{number}.txt" for number in range(len(sizes))]
    file = ("--format", "json", "--embeddings", "e.npz", "--batch_size", "3")
    expected = [json.loads(line) for line in predict(cli, best, *files, *file)[1].splitlines()]
    with np.load("e.npz") as saved:
        features = saved["embedding"]
    seen: list[list[int]] = []
    task = sys.modules["tiny_domain"].Tiny
    collate = task.collate

    def size(self: Any, item: Any) -> int:
        return len(Path(item["source"]).read_text())

    def watched(self: Any, items: Any) -> Any:
        seen.append([size(self, item) for item in items])
        return collate(self, items)

    monkeypatch.setattr(task, "collate", watched)
    monkeypatch.setattr(task, "size", size)
    found = [json.loads(line) for line in predict(cli, best, *files, *file)[1].splitlines()]
    assert seen == [[5, 5, 5], [6, 6, 7], [7]]
    assert [r["source"] for r in found] == files
    for one, other in zip(found, expected, strict=True):
        assert one["probability"] == pytest.approx(other["probability"])
    with np.load("e.npz") as saved:
        assert np.allclose(saved["embedding"], features)
        assert list(saved["source"]) == files


def test_embeddings_are_the_features_before_the_head(cli: Run, best: str, points: Path) -> None:
    file = str(points / "a.txt")
    assert (
        predict(cli, best, file, "--embeddings", "e.npz", "--output", "p.csv", "--format", "csv")[0]
        == 0
    )
    with np.load("e.npz") as saved:
        assert saved["embedding"].shape == (1, 8)
        assert list(saved["source"]) == [file]
    assert Path("p.csv").read_text().startswith("source,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("tiny.yaml", "--output", "no/where.csv"),
            "--output no/where.csv: its folder does not exist",
        ),
        (("tiny.yaml", "--precision", "16"), "--precision 16"),
        (("tiny.yaml", "--model.x", "3"), "no option --model.x"),
        (("tiny.yaml", "--pictures", "tiny.yaml"), "tiny.yaml: is a file; give a new or empty"),
        (("tiny.yaml", "--pictures", "."), "is not empty; give a new or empty folder"),
        (("tiny.yaml", "--pictures", "no/seen"), "no/seen: its folder does not exist"),
    ],
)
def test_bad_arguments_of_predict(cli: Run, arguments: tuple[str, ...], message: str) -> None:
    status, _, errors = predict(cli, "best.ckpt", *arguments)
    assert (status, message in errors) == (2, True), errors


def test_predict_does_not_import_what_nobody_allowed(cli: Run, best: str, points: Path) -> None:
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["resdomains"]["recipe"]["model"]["class_path"] = "planted.Tiny"
    torch.save(checkpoint, "other.ckpt")
    Path("planted.py").write_text("import pathlib; pathlib.Path('ran').touch()\n")
    status, _, errors = predict(cli, "other.ckpt", str(points / "a.txt"))
    assert status == 2
    assert "planted.Tiny" in errors
    assert not Path("ran").exists()


def test_the_learning_rate_finder_draws_and_suggests(cli: Run) -> None:
    status, out, errors = cli("lr-find", *TINY, "--steps", "20", "--output", "curve.png")
    assert status in (0, 1), errors
    assert Path("curve.png").stat().st_size > 1000
    assert ("suggestion  --model.optimization.lr" in out) == (status == 0)
    assert sorted(path.name for path in Path().glob(".lr_find*")) == []


def test_the_learning_rate_finder_checks_its_range(cli: Run) -> None:
    assert cli("lr-find", *TINY, "--min_lr", "1", "--max_lr", "0.1")[0] == 2
    assert cli("lr-find", *TINY, "--min_lr", "zero")[0] == 2
