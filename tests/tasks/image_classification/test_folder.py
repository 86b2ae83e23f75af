import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from resdomains.training import BadSample
from resdomains.vision import read_picture
from resdomains_tasks.image_classification import ImageFolder, RandomFlip, RandomResizedCrop
from resdomains_tasks.image_classification.fitting import fit
from tests.resdomains.vision.support import save_noise

from .support import fetch, ready, small_task


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, because `skip` keeps there what it found."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def classes(root: Path, count: int = 10, names: str = "ab") -> Path:
    for k, name in enumerate(names):
        for i in range(count):
            save_noise(root / name / f"{i}.png", seed=100 * k + i)
    return root


def module(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(**{"root": str(root), "batch_size": 2, "size": 8, **options})


def files(data: ImageFolder, split: Any) -> set[str]:
    part = data.dataset(split)
    if part is None:
        return set()
    return {Path(part.file(i)).relative_to(data.root).as_posix() for i in range(len(part))}  # type: ignore[attr-defined, arg-type]


def test_split_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        classes(tmp_path / split, count)
    data = ready(module(tmp_path))
    sizes = [len(files(data, split)) for split in ("train", "val", "test")]
    assert sizes == [8, 4, 6]
    assert data.spec["classes"] == ["a", "b"]


def test_without_a_val_folder_training_files_validate(tmp_path: Path) -> None:
    classes(tmp_path / "train", 10)
    data = module(tmp_path, val_fraction=0.2)
    assert data.has("val")
    assert not data.has("test")
    train, val = files(data, "train"), files(data, "val")
    assert len(val) == 4
    assert len(train | val) == 20
    assert {name.split("/")[1] for name in val} == {"a", "b"}


def test_class_folders_are_split_by_name_whatever_the_place_and_order(tmp_path: Path) -> None:
    data = ready(module(classes(tmp_path / "one"), val_fraction=0.2, test_fraction=0.1))
    parts = [files(data, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [14, 4, 2]
    assert len(set.union(*parts)) == 20
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    other = ready(module(tmp_path / "two", val_fraction=0.2, test_fraction=0.1, seed=7))
    assert [files(other, split) for split in ("train", "val", "test")] == parts


def test_a_small_class_shows_up_in_every_split(tmp_path: Path) -> None:
    data = ready(module(classes(tmp_path, 3)))
    for split in ("train", "val", "test"):
        assert {name[0] for name in files(data, split)} == {"a", "b"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        for i in range(4):
            save_noise(tmp_path / name / f"{i}.png")
    assert module(tmp_path).spec["classes"] == ["car", "train"]


def write_list(root: Path, name: str, rows: list[dict[str, Any]]) -> str:
    for i, row in enumerate(rows):
        save_noise(root / row["file"], seed=i)
    if name.endswith(".csv"):
        lines = [",".join(rows[0]), *(",".join(str(v) for v in row.values()) for row in rows)]
        (root / name).write_text("\n".join(lines) + "\n")
    else:
        (root / name).write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return name


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_a_list_gives_one_label_a_file(tmp_path: Path, name: str) -> None:
    rows = [
        {"file": f"x/{i}.png", "label": "yn"[i % 2], "split": ["train", "val"][i // 6]}
        for i in range(8)
    ]
    data = ready(module(tmp_path, labels=write_list(tmp_path, name, rows)))
    assert data.spec["classes"] == ["n", "y"]
    assert files(data, "val") == {"x/6.png", "x/7.png"}
    assert data.train_targets().tolist() == [1, 0, 1, 0, 1, 0]
    assert not data.has("test")


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_a_list_may_give_several_labels_or_none(tmp_path: Path, name: str) -> None:
    given = [["sun"], ["sun", "sea"], [], ["sea"]] * 3
    rows = [
        {
            "file": f"{i}.png",
            "labels": "|".join(x) if name.endswith(".csv") else x,
            "split": "train",
        }
        for i, x in enumerate(given)
    ]
    data = ready(module(tmp_path, labels=write_list(tmp_path, name, rows), val_fraction=0.0))
    assert data.spec["multilabel"]
    assert data.spec["classes"] == ["sea", "sun"]
    assert data.train_targets()[:4].tolist() == [[0, 1], [1, 1], [0, 0], [1, 0]]
    assert data.spec["prevalence"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "lists no files"),
        ("file,label\n", "lists no files"),
        (
            "name,label\na.png,x\n",
            r"needs the keys 'file' and either 'label' .* it has label, name",
        ),
        ("file\na.png\n", "needs the keys 'file' and either"),
        ("file,label\na.png\n", r"l\.csv:2: has fewer values"),
        ("file,label\na.png,x,y\n", r"l\.csv:2: has more values"),
        ("file,label\na.png,\n", r"l\.csv:2: 'label' must name one class, got ''"),
        ("file,label\na.png,x\na.png,y\n", r"l\.csv:3: a\.png was listed before, in .*l\.csv:2"),
        ("file,label\nabsent.png,x\n", r"l\.csv:2: .*absent\.png does not exist"),
        (
            "file,label,split\na.png,x,dev\n",
            r"l\.csv:2: 'split' must be train, val or test, got 'dev'",
        ),
        ("file,label,split\na.png,x,train\nb.png,y,\n", r"l\.csv:3: 'split' is missing"),
        (
            "file,label,split\na.png,x,train\nb.png,y,val\n",
            r"l\.csv:3: 'y' is not one of the 1 classes \(x\)",
        ),
    ],
)
def test_a_malformed_csv_is_named_by_line(tmp_path: Path, content: str, reason: str) -> None:
    save_noise(tmp_path / "a.png")
    save_noise(tmp_path / "b.png")
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(ValueError, match=reason):
        module(tmp_path, labels="l.csv").ready()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{file}", r"l\.jsonl:1: not a JSON object"),
        ('["a.png"]', r"l\.jsonl:1: not a JSON object, but"),
        ('{"file": 3, "label": "x"}', "'file' must name a picture, got 3"),
        ('{"file": "a.png", "label": ["x", "y"]}', "'label' must name one class"),
        ('{"file": "a.png", "labels": [{}]}', "labels must be names"),
    ],
)
def test_malformed_json_lines_are_named_by_line(tmp_path: Path, line: str, reason: str) -> None:
    save_noise(tmp_path / "a.png")
    (tmp_path / "l.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=reason):
        module(tmp_path, labels="l.jsonl").ready()


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"root: .*absent does not exist; set --data\.root"):
        module(tmp_path / "absent").ready()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"root: .*empty holds no class folders; put each class's pictures"
    ):
        module(tmp_path / "empty").ready()
    classes(tmp_path / "some")
    (tmp_path / "some" / "c").mkdir()
    (tmp_path / "some" / "c" / "notes.txt").touch()
    with pytest.raises(
        ValueError, match=r"root: the class folder .*c holds no pictures; remove it, or add"
    ):
        module(tmp_path / "some").ready()
    with pytest.raises(ValueError, match=r"labels: .*no\.csv does not exist"):
        module(tmp_path / "some", labels="no.csv").ready()


def test_a_class_only_in_val_is_named(tmp_path: Path) -> None:
    classes(tmp_path / "train", 3)
    classes(tmp_path / "val", 3, "abz")
    with pytest.raises(ValueError, match=r"val.z: 'z' is not one of the 2 classes \(a, b\)"):
        module(tmp_path).ready()


def test_class_names_fix_the_order_and_must_fit(tmp_path: Path) -> None:
    classes(tmp_path, 4)
    assert module(tmp_path, class_names=["b", "a"]).spec["classes"] == ["b", "a"]
    with pytest.raises(ValueError, match=r"'b' is not one of the 1 classes \(a\)"):
        module(tmp_path, class_names=["a"]).ready()
    with pytest.raises(ValueError, match="class_names: c have no training picture"):
        module(tmp_path, class_names=["a", "b", "c"]).ready()


def test_evaluation_pictures_are_made_to_fit(tmp_path: Path) -> None:
    data = ready(module(classes(tmp_path)))
    part = data.ready_dataset("test")
    batch = fetch(data, "test", [0, 1])
    for i in (0, 1):
        assert torch.equal(batch["image"][i], fit(read_picture(part.file(i), 3), data.image_spec))  # type: ignore[attr-defined]
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)


def test_training_cuts_depend_on_seed_epoch_and_sample_alone(tmp_path: Path) -> None:
    data = ready(module(classes(tmp_path), augment=[RandomFlip()]))
    count = len(data.ready_dataset("train"))  # type: ignore[arg-type]
    whole = fetch(data, "train", list(range(count)))["image"]
    assert torch.equal(fetch(data, "train", [5, 2])["image"], whole[[5, 2]])
    later = fetch(data, "train", [count + i for i in range(count)])
    assert later["index"].tolist() == list(range(count))
    assert not torch.equal(later["image"], whole)
    other = ready(module(tmp_path, seed=1))
    assert not torch.equal(fetch(other, "train", list(range(count)))["image"], whole)


def test_the_sampler_stamps_the_epoch_on_training_batches_only(tmp_path: Path) -> None:
    data = ready(module(classes(tmp_path)))
    count = len(data.ready_dataset("train"))  # type: ignore[arg-type]
    sampler = data.batch_sampler("train", 0, 1)
    sampler.sampler.set_epoch(3)
    stamps = [number for batch in sampler for number in batch]
    assert {number // count for number in stamps} == {3}
    assert sorted(number % count for number in stamps) == list(range(count))
    assert len(sampler) == count // 2
    assert [n for batch in data.batch_sampler("val", 0, 1) for n in batch] == [0, 1]


@pytest.mark.parametrize("workers", [0, 1])
def test_lightning_hands_every_epoch_its_own_cuts(tmp_path: Path, workers: int) -> None:
    data = module(classes(tmp_path), num_workers=workers)
    seen: list[torch.Tensor] = []

    class Watch(ImageFolder):
        def transform(self, batch: Any, split: Any) -> Any:
            if split == "train":
                seen.append(batch["image"][batch["index"].argsort()].clone())
            return super().transform(batch, split)

    data = Watch(root=str(tmp_path), batch_size=16, size=8, num_workers=workers)
    task = small_task(data.image_spec)
    trainer = Trainer(
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        accelerator="cpu",
    )
    trainer.fit(task, datamodule=data)
    for epoch, images in enumerate(seen):
        expected = fetch(data, "train", [epoch * 16 + i for i in range(16)])["image"]
        assert torch.equal(images, expected)
    assert len(seen) == 2


def test_a_cut_lies_inside_the_picture_and_has_the_stated_share() -> None:
    crop = RandomResizedCrop(scale=(0.2, 0.5))
    generator = torch.Generator().manual_seed(0)
    for height, width in ((100, 80), (37, 200), (64, 64)):
        for u in torch.rand(200, crop.draws, generator=generator).tolist():
            top, left, tall, wide = crop.box(height, width, u)
            assert 0 <= top <= height - tall
            assert 0 <= left <= width - wide
            assert 0.19 < tall * wide / (height * width) < 0.52
            assert 0.7 < wide / tall < 1.4


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1)])
def test_a_cut_of_an_extreme_shape_is_its_middle(height: int, width: int) -> None:
    crop = RandomResizedCrop(scale=(0.9, 1.0))
    top, left, tall, wide = crop.box(height, width, [0.5] * crop.draws)
    assert min(tall, wide) == 1
    assert abs(top - (height - tall) / 2) <= 1
    assert abs(left - (width - wide) / 2) <= 1


def spoil(root: Path) -> tuple[Path, Path]:
    cut, text = root / "a" / "cut.jpg", root / "b" / "text.png"
    whole = save_noise(cut, 64, 64).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("no picture")
    return cut, text


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_stops_training_by_name_when_refused(tmp_path: Path, workers: int) -> None:
    cut, text = spoil(classes(tmp_path))
    data = module(tmp_path, test_fraction=0.0, num_workers=workers)
    task = small_task(data.image_spec)
    trainer = Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        accelerator="cpu",
    )
    with pytest.raises(BadSample, match=r"--data\.bad_samples skip") as caught:
        trainer.fit(task, datamodule=data)
    assert caught.value.source in (str(cut), str(text))


def test_bad_files_are_named_counted_and_left_out_when_skipped(
    tmp_path: Path,
) -> None:
    cut, text = spoil(classes(tmp_path))
    data = ready(module(tmp_path, bad_samples="skip"))
    (message,) = data.notes
    assert message.startswith(
        f"2 pictures are left out (--data.bad_samples skip): {cut}: damaged picture"
    )
    assert f"{text}: not a picture" in message
    assert [error.source for error in data.left_out] == [str(cut), str(text)]
    together = set().union(*(files(data, split) for split in ("train", "val", "test")))
    assert len(together) == 20
    assert not together & {"a/cut.jpg", "b/text.png"}


def test_what_skip_found_is_kept_until_a_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, text = spoil(classes(tmp_path))

    def left_out() -> list[str]:
        return [error.source for error in ready(module(tmp_path, bad_samples="skip")).left_out]

    assert left_out() == [str(cut), str(text)]
    assert len(list(cache.rglob("*.json"))) == 1

    def read_again(*_: Any) -> None:
        raise AssertionError("the files were read again")

    with monkeypatch.context() as patch:
        patch.setattr("resdomains_tasks.image_classification.folder.read_picture", read_again)
        assert left_out() == [str(cut), str(text)]
    save_noise(cut, 64, 64)
    assert left_out() == [str(text)]
    # Spoilt again at the same size: the time of the change tells.
    size = cut.stat().st_size
    cut.write_bytes(bytes(size))
    os.utime(cut, ns=(1, 1))
    assert left_out() == [str(cut), str(text)]


def test_a_cache_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(classes(tmp_path))
    (cache / "resdomains").touch()
    assert len(ready(module(tmp_path, bad_samples="skip")).left_out) == 2
    assert "the next run reads every file again" in caplog.messages[0]


def test_grey_channels_and_normalisation(tmp_path: Path) -> None:
    spec = module(classes(tmp_path, 4), channels=1).spec
    assert (spec["channels"], spec["mean"], spec["std"]) == (1, [0.449], [0.226])
    spec = module(tmp_path, mean=[0.1, 0.2, 0.3], std=[1, 2, 3]).spec
    assert (spec["mean"], spec["std"]) == ([0.1, 0.2, 0.3], [1, 2, 3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"test_fraction": -0.1}, "test_fraction is a share"),
        ({"bad_samples": "ignore"}, "bad_samples must be 'refuse' or 'skip', got 'ignore'"),
        ({"size": 0}, "height and width must be at least 1"),
        ({"interpolation": "nearest"}, "interpolation must be one of"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(classes(tmp_path, 3), **options).ready()
    with pytest.raises(ValueError, match="scale must be two rising shares"):
        RandomResizedCrop(scale=(0.0, 1.0))
    with pytest.raises(ValueError, match="ratio must be two rising"):
        RandomResizedCrop(ratio=(2.0, 1.0))


def test_file_names_beyond_ascii(tmp_path: Path) -> None:
    for name in ("ä", "日本"):
        for i in range(3):
            save_noise(tmp_path / name / f"ö{i}.png")
    data = ready(module(tmp_path))
    assert data.spec["classes"] == sorted(("ä", "日本"))
    assert fetch(data, "val", [0])["image"].shape == (1, 3, 8, 8)
