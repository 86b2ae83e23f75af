"""YOLO's text files become the same objects, or are refused by file and line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resdomains.training import BadSample
from resdomains_tasks.object_detection.voc import VocFiles
from resdomains_tasks.object_detection.yolo import YoloFiles
from tests.resdomains.vision.support import save_noise

BCCD = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "bccd"
YAML = "names: [cat, dog]\ntrain: images/train\nval: images/val\n"


def save(root: Path, name: str, lines: str | None = "", folder: str = "train") -> None:
    save_noise(root / "images" / folder / f"{name}.png", 12, 20)
    labels = root / "labels" / folder
    labels.mkdir(parents=True, exist_ok=True)
    if lines is not None:
        (labels / f"{name}.txt").write_text(lines)


def small(root: Path, yaml: str | None = YAML) -> Path:
    save(root, "a", "1 0.5 0.5 0.5 0.5\n\n0 0.25 0.5 0.1 0.5\n")
    save(root, "b", "")
    save(root, "c", None)
    save(root, "d", "0 0.5 0.5 1 1", "val")
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root


def files(root: Path, **given: Any) -> YoloFiles:
    return YoloFiles(**{"root": str(root), "batch_size": 1, "val_fraction": 0.0, **given})


def test_fractions_become_pixels_and_pictures_without_lines_have_no_objects(tmp_path: Path) -> None:
    found = files(small(tmp_path)).read()
    assert found.classes == ["cat", "dog"]
    train = found.splits["train"]
    assert [Path(x.source).name for x in train] == ["a.png", "b.png", "c.png"]
    assert train[0].objects.tolist() == [
        [5, 3, 15, 9, 1, 0, 0, 60],
        [4, 3, 6, 9, 0, 0, 0, 12],
    ]
    assert [len(x.objects) for x in train] == [2, 0, 0]
    assert found.splits["val"][0].objects[0].tolist() == [0, 0, 20, 12, 0, 0, 0, 240]
    assert found.notes == [
        "1 pictures have no text file, and so no objects, such as images/train/c.png, without labels/train/c.txt"
    ]


def test_fractions_are_of_the_upright_picture(tmp_path: Path) -> None:
    small(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 12)).save(tmp_path / "images" / "train" / "a.png", exif=exif)
    picture = files(tmp_path).read().splits["train"][0]
    assert (picture.picture.height, picture.picture.width) == (20, 12)
    assert picture.objects[0, :4].tolist() == [3, 5, 9, 15]
    pixels = picture.picture.read(3)
    assert picture.picture.upright(picture.objects[:, :4], *pixels.shape[1:]).tolist()[0] == [
        3,
        5,
        9,
        15,
    ]


@pytest.mark.parametrize(
    "yaml",
    [
        "names: {0: cat, 1: dog}\nnc: 2\ntrain: images/train\nval: images/val",
        "path: ../{here}\nnames: [cat, dog]\ntrain: images/train\nval: images/val",
        "path: /none/such\nnames: [cat, dog]\ntrain: [images/train]\nval: [images/val]",
        "names: [cat, dog]\ntrain: ../images/train\nvalid: ../images/val",
        "names: [cat, dog]\ntrain: list.txt\nval: images/val/d.png",
        None,
    ],
)
def test_every_way_to_say_where_pictures_are(tmp_path: Path, yaml: str | None) -> None:
    small(tmp_path, yaml if yaml is None else yaml.replace("{here}", tmp_path.name))
    (tmp_path / "list.txt").write_text("".join(f"./images/train/{x}.png\n" for x in "abc"))
    if yaml is None:
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    found = files(tmp_path).read()
    assert found.classes == ["cat", "dog"]
    assert [len(x.objects) for x in found.splits["train"]] == [2, 0, 0]
    assert [len(x.objects) for x in found.splits["val"]] == [1]


def test_images_may_lie_below_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        save_noise(tmp_path / split / "images" / "a.png", 12, 20)
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    found = files(tmp_path, class_names=["cat"]).read()
    assert [len(x.objects) for split in ("train", "val") for x in found.splits[split]] == [1, 1]


def test_a_single_folder_is_split(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path, str(number), "0 0.5 0.5 0.5 0.5", "")
    found = files(tmp_path, class_names=["cat"], val_fraction=0.2).read()
    assert {split: len(x) for split, x in found.splits.items()} == {"train": 8, "val": 2}


def test_polygons_are_enclosed(tmp_path: Path) -> None:
    small(tmp_path)
    save(tmp_path, "b", "0 0.1 0.5 0.5 0.25 0.3 0.75\n1 0 0 1 0 1 1 0 1\n")
    found = files(tmp_path).read()
    assert found.splits["train"][1].objects[:, :4].tolist() == [[2, 3, 10, 9], [0, 0, 20, 12]]
    assert "2 polygons are taken as the boxes around them" in found.notes


def test_flawed_boxes_are_named_by_their_line(tmp_path: Path) -> None:
    small(tmp_path)
    save(tmp_path, "b", "0 0.5 0.5 0 0.5\n0 0 0 0.5 0.5\n")
    notes = files(tmp_path).read().notes[1:]
    assert notes == [
        "train: 1 of 4 boxes reach out of their pictures and are clipped: labels/train/b.txt:2",
        "train: 1 of 4 boxes have no height or no width and are left out: labels/train/b.txt:1",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "2 0.5 0.5 0.5 0.5",
            r"b\.txt:2: the class must be a number from 0 to 1, .* cat, dog; got '2'",
        ),
        ("-1 0.5 0.5 0.5 0.5", "the class must be a number from 0 to 1"),
        ("0.5 0.5 0.5 0.5 0.5", "the class must be a number from 0 to 1"),
        ("cat 0.5 0.5 0.5 0.5", r"the class must be .* got 'cat'"),
        ("nan 0.5 0.5 0.5 0.5", "the class must be"),
        ("0 0.5 0.5 0.5", r"b\.txt:2: must be `class cx cy w h`.*has 4 columns: '0 0\.5"),
        ("0 0.5 0.5 0.5 0.5 0.9", "has 6 columns"),
        ("0 0.5 0.5 0.5 x", r"must be fractions .* from 0 to 1, got 'x'"),
        ("0 0.5 0.5 0.5 nan", "must be fractions"),
        ("0 0.5 0.5 0.5 1.5", r"b\.txt:2: numbers after the class must be fractions .* got '1\.5'"),
        ("0 -0.1 0.5 0.5 0.5", r"must be fractions .* got '-0\.1'"),
        ("0 0.1 0.1 0.5 0.5 300 400", r"must be fractions .* got '300'"),
        ("0,0.5,0.5,0.5,0.5", "has 1 columns"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    small(tmp_path)
    save(tmp_path, "b", f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(BadSample, match=message):
        files(tmp_path).read()
    skipping = files(tmp_path, bad_samples="skip")
    assert [Path(x.source).name for x in skipping.read().splits["train"]] == ["a.png", "c.png"]
    assert len(skipping.left_out) == 1


def test_rounding_beyond_the_border_is_no_fault(tmp_path: Path) -> None:
    small(tmp_path)
    save(tmp_path, "b", "0.0 0.5 0.5 1.000001 1")
    found = files(tmp_path).read()
    assert found.splits["train"][1].objects[0, :5].tolist() == [0, 0, 20, 12, 0]
    assert len(found.notes) == 1


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "labels" / "train" / "b.txt").write_bytes(b"0 \xff")
    with pytest.raises(BadSample, match=r"b\.txt: not UTF-8 \(at byte 2\)"):
        files(tmp_path).read()


def test_broken_pictures_are_named(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "images" / "train" / "b.png").write_text("no picture")
    with pytest.raises(BadSample, match=r"b\.png: not a picture in a format that is read"):
        files(tmp_path).read()
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/gone.png")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: list.txt")
    with pytest.raises(BadSample, match=r"gone\.png: no such file"):
        files(tmp_path).read()


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [a\ntrain: x", r"data\.yaml:2: not YAML"),
        ("- a", "must have keys such as `names` and `train`"),
        ("names: [cat]\ntrain: none", r"`train` is none, but .*none does not exist"),
        ("names: [cat]\nval: images/val", "`train` must say where"),
        ("names: [cat]\ntrain: 5", "`train` must be a folder, a text file, or a list"),
        ("names: [cat]\nnc: 2\ntrain: images/train", "`nc` is 2, but `names` has 1"),
        ("names: {1: cat}\ntrain: images/train", "must number the classes 0, 1, ... without gaps"),
        ("names: cat\ntrain: images/train", "`names` must be a list of names"),
        ("names: []\ntrain: images/train", "class_names: nothing in .* names the classes"),
        ("train: images/train", "class_names: nothing in .* names the classes"),
        ("names: [cat]\nkpt_shape: [17, 3]\ntrain: images/train", "describes key points"),
        ("names: !!python/object/apply:os.system ['x']", r"data\.yaml:1: not YAML"),
    ],
)
def test_a_wrong_data_yaml_is_refused(tmp_path: Path, yaml: str, message: str) -> None:
    small(tmp_path, yaml)
    with pytest.raises(ValueError, match=message):
        files(tmp_path).read()


def test_classes_are_named_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.yaml already names the classes \(cat, dog\)"):
        files(small(tmp_path), class_names=["x", "y"]).read()


def test_other_layouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no data\.yaml and no folder images/train"):
        files(tmp_path, class_names=["x"]).read()
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text(YAML)
    with pytest.raises(
        ValueError, match=r"holds a\.yaml, b\.yml; call the file that is meant data\.yaml"
    ):
        files(tmp_path).read()
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images/train")
    with pytest.raises(ValueError, match=r"train: .*images/train holds no pictures"):
        files(tmp_path).read()


def test_pictures_without_any_object_are_refused_when_prepared(tmp_path: Path) -> None:
    save(tmp_path, "a", "")
    with pytest.raises(ValueError, match="no training picture with an object"):
        files(tmp_path, class_names=["cat"]).prepare()


@pytest.mark.skipif(not BCCD.is_dir(), reason="the data are not there")
def test_bccd_as_fractions_has_the_boxes_of_its_xml_files(tmp_path: Path) -> None:
    voc = VocFiles(root=str(BCCD), batch_size=8).read()
    for split, pictures in voc.splits.items():
        (tmp_path / "labels" / split).mkdir(parents=True)
        (tmp_path / "images" / split).mkdir(parents=True)
        for found in pictures:
            x1, y1, x2, y2, label = found.objects[:, :5].T
            middle = ((x1 + x2) / 1280, (y1 + y2) / 960, (x2 - x1) / 640, (y2 - y1) / 480)
            lines = np.stack((label, *middle), 1)
            name = Path(found.source)
            np.savetxt(
                tmp_path / "labels" / split / f"{name.stem}.txt", lines, "%d %.6f %.6f %.6f %.6f"
            )
            (tmp_path / "images" / split / name.name).symlink_to(name.resolve())
    yolo = files(tmp_path, class_names=list(voc.classes)).read()
    assert yolo.notes == []
    for split, pictures in voc.splits.items():
        by_name = {Path(x.source).name: x.objects for x in yolo.splits[split]}
        for found in pictures:
            other = by_name[Path(found.source).name]
            np.testing.assert_allclose(other[:, :7], found.objects[:, :7], rtol=0, atol=2e-3)
