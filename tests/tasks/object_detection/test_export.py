"""What is written as COCO's JSON is read as the same objects, by us and by others."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from resdomains_tasks.object_detection.annotations import Annotated, Corpus, Picture, objects
from resdomains_tasks.object_detection.coco import CocoFiles
from resdomains_tasks.object_detection.export import write_coco
from resdomains_tasks.object_detection.files import PictureFile
from resdomains_tasks.object_detection.voc import VocFiles
from tests.resdomains.vision.support import save_noise

BCCD = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "bccd"


class Drawn(Picture):
    """A picture that is no file."""

    def __init__(self, seed: int) -> None:
        self.height, self.width, self.seed = 12, 20, seed

    def read(self, channels: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(0, 256, (channels, 12, 20), dtype=torch.uint8, generator=generator)


def drawn() -> Corpus:
    many = objects(
        [[0.1, 0.2, 3.3, 4.7], [1.0, 2.0, 20.0, 12.0], [1.0, 1.0, 2.0, 2.0]],
        [1, 0, 1],
        crowd=[0, 1, 0],
        difficult=[0, 0, 1],
        area=[7.25, 100, 1],
    )
    none = objects(np.empty((0, 4)), [])
    return Corpus(
        ["cat", "dog"],
        {
            "train": [
                Annotated(Drawn(0), many, "scene 0", 10),
                Annotated(Drawn(1), none, "scene 1", 11),
            ],
            "val": [Annotated(Drawn(2), many[:1], "scene 2", 10)],
        },
        category_ids=[18, 3],
    )


def read(folder: Path) -> Corpus:
    return CocoFiles(root=str(folder), batch_size=1, class_names=["cat", "dog"]).read()


def assert_alike(found: Corpus, expected: Corpus) -> None:
    assert (found.classes, found.category_ids) == (expected.classes, expected.category_ids)
    assert list(found.splits) == list(expected.splits)
    for split, pictures in expected.splits.items():
        for one, other in zip(found.splits[split], pictures, strict=True):
            np.testing.assert_allclose(one.objects, other.objects, rtol=0, atol=1e-12)
            assert one.number == other.number
            assert torch.equal(one.picture.read(3), other.picture.read(3))


def test_drawn_pictures_are_read_again_as_they_were(tmp_path: Path) -> None:
    written = write_coco(drawn(), tmp_path / "new" / "folder")
    assert {split: path.name for split, path in written.items()} == {
        "train": "instances_train.json",
        "val": "instances_val.json",
    }
    assert_alike(read(tmp_path / "new" / "folder"), drawn())


def test_pycocotools_reads_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco").COCO(write_coco(drawn(), tmp_path)["train"])
    assert sorted(coco.getImgIds()) == [10, 11]
    assert [coco.anns[i]["category_id"] for i in coco.getAnnIds([10])] == [3, 18, 3]
    assert coco.getAnnIds([10], iscrowd=True) == [2]
    capsys.readouterr()


def test_files_are_copied_and_turned_ones_stand_upright(tmp_path: Path) -> None:
    plain = save_noise(tmp_path / "in" / "a.jpg", 12, 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(plain).save(tmp_path / "in" / "b.png", exif=exif)
    rows = objects([[2, 3, 9, 5]], [0])
    found = Corpus(
        ["cat"],
        {
            "train": [
                Annotated(PictureFile(str(tmp_path / "in" / name), *size), rows, name, number)
                for number, (name, size) in enumerate([("a.jpg", (12, 20)), ("b.png", (12, 20))], 1)
            ]
        },
    )
    path = write_coco(found, tmp_path / "out")["train"]
    assert (tmp_path / "out" / "train" / "a.jpg").read_bytes() == plain.read_bytes()
    turned = Image.open(tmp_path / "out" / "train" / "b.png")
    assert turned.size == (12, 20)
    assert turned.getexif().get(0x0112, 1) == 1
    content = json.loads(path.read_text())
    assert [(x["height"], x["width"]) for x in content["images"]] == [(12, 20), (20, 12)]
    assert [x["bbox"] for x in content["annotations"]] == [[2, 3, 7, 2], [7, 2, 2, 7]]


def test_pictures_of_one_name_or_number_do_not_meet(tmp_path: Path) -> None:
    paths = [
        save_noise(tmp_path / folder / "a.png", 12, 20, seed=i) for i, folder in enumerate("xyz")
    ]
    found = Corpus(
        ["cat"],
        {
            "train": [
                Annotated(PictureFile(str(path), 12, 20), objects([[0, 0, i + 1, 1]], [0]), "", 1)
                for i, path in enumerate(paths)
            ]
        },
    )
    write_coco(found, tmp_path / "out")
    train = (
        CocoFiles(root=str(tmp_path / "out"), batch_size=1, val_fraction=0).read().splits["train"]
    )
    assert [x.objects[0, 2] for x in train] == [1, 2, 3]
    for one, path in zip(train, paths, strict=True):
        assert Path(one.source).read_bytes() == path.read_bytes()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("x")
    with pytest.raises(ValueError, match=r"folder: .* is not empty; give a new one"):
        write_coco(drawn(), tmp_path)
    with pytest.raises(ValueError, match=r"folder: .*note is a file"):
        write_coco(drawn(), tmp_path / "note")


@pytest.mark.skipif(not BCCD.is_dir(), reason="the data are not there")
def test_bccd_survives_the_way_through_coco(tmp_path: Path) -> None:
    data = VocFiles(root=str(BCCD), batch_size=8)
    write_coco(data, tmp_path / "out")
    found, expected = CocoFiles(root=str(tmp_path / "out"), batch_size=8).read(), data.read()
    assert found.classes == expected.classes
    assert found.notes == []
    for split, pictures in expected.splits.items():
        for one, other in zip(found.splits[split], pictures, strict=True):
            assert np.array_equal(one.objects, other.objects)
            assert Path(one.source).name == Path(other.source).name
