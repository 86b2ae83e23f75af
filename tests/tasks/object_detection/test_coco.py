"""COCO's JSON becomes the same objects, or is refused by file and id."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.object_detection.coco import CocoFiles
from tests.resdomains.vision.support import save_noise


def small() -> dict[str, Any]:
    """Three pictures, one of them without objects, and categories with gaps in no order."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 12, "width": 20},
            {"id": 3, "file_name": "b.png", "height": 12, "width": 20},
            {"id": 5, "file_name": "c.png", "height": 12, "width": 20},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 5.5},
            {"id": 2, "image_id": 5, "category_id": 3, "bbox": [0.5, 0, 4, 4], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 3, "bbox": [2, 2, 2, 2], "ignore": 1},
        ],
        "categories": [
            {"id": 90, "name": "cat"},
            {"id": 3, "name": "dog", "supercategory": "animal"},
            {"id": 17, "name": "owl"},
        ],
    }


def save(
    root: Path,
    content: dict[str, Any],
    name: str = "annotations/instances_train2017.json",
    pictures: str = "train2017",
) -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content))
    for image in content["images"]:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str):
            save_noise(root / pictures / image["file_name"], 12, 20)
    return root


def files(root: Path, **given: Any) -> CocoFiles:
    return CocoFiles(**{"root": str(root), "batch_size": 1, "val_fraction": 0.0, **given})


def test_objects_crowds_areas_and_empty_pictures_are_read(tmp_path: Path) -> None:
    found = files(save(tmp_path, small())).read()
    assert found.classes == ["dog", "owl", "cat"]
    assert found.category_ids == [3, 17, 90]
    train = found.splits["train"]
    assert [x.number for x in train] == [7, 3, 5]
    assert [x.source for x in train] == [str(tmp_path / "train2017" / f"{n}.png") for n in "abc"]
    assert train[0].objects.tolist() == [[1, 2, 4, 6, 2, 0, 0, 5.5], [2, 2, 4, 4, 0, 0, 1, 4]]
    assert train[1].objects.shape == (0, 8)
    assert train[2].objects.tolist() == [[0.5, 0, 4.5, 4, 0, 1, 0, 16]]
    assert found.notes == []


LAYOUTS: list[tuple[dict[str, tuple[str, str]], list[str]]] = [
    (
        {
            "train": ("annotations/instances_train2017.json", "train2017"),
            "val": ("annotations/instances_val2017.json", "val2017"),
        },
        ["train", "val"],
    ),
    (
        {
            "train": ("annotations/train.json", "images/train"),
            "val": ("annotations/val.json", "images/val"),
            "test": ("annotations/test.json", "images/test"),
        },
        ["train", "val", "test"],
    ),
    (
        {
            "train": ("train/_annotations.coco.json", "train"),
            "val": ("valid/_annotations.coco.json", "valid"),
            "test": ("test/_annotations.coco.json", "test"),
        },
        ["train", "val", "test"],
    ),
    ({"train": ("annotations/instances_default.json", "images/default")}, ["train"]),
]


@pytest.mark.parametrize(("layout", "splits"), LAYOUTS)
def test_the_usual_layouts_are_found(
    tmp_path: Path, layout: dict[str, tuple[str, str]], splits: list[str]
) -> None:
    for name, pictures in layout.values():
        save(tmp_path, small(), name, pictures)
    found = files(tmp_path).read()
    assert list(found.splits) == splits
    for split, (_, pictures) in layout.items():
        assert found.splits[split][0].source == str(tmp_path / pictures / "a.png")  # type: ignore[index]


def test_other_layouts_are_named(tmp_path: Path) -> None:
    save(tmp_path, small(), "lists/boxes.json", "data/x")
    with pytest.raises(ValueError, match=r"no JSON file in a layout that is known.*--data\.train"):
        files(tmp_path).read()
    with pytest.raises(BadSample, match=r"image 7: a\.png is in none of the folders"):
        files(tmp_path, train="lists/boxes.json").read()
    found = files(tmp_path, train="lists/boxes.json", train_pictures="data/x")
    assert len(found.read().splits["train"]) == 3
    with pytest.raises(ValueError, match=r"train: .*none\.json does not exist"):
        files(tmp_path, train="none.json").read()
    with pytest.raises(ValueError, match=r"train: .*lists is a folder"):
        files(tmp_path, train="lists").read()
    with pytest.raises(ValueError, match=r"train_pictures: .*none is no folder"):
        files(tmp_path, train="lists/boxes.json", train_pictures="none").read()
    with pytest.raises(ValueError, match="train must name a JSON file where val does"):
        files(tmp_path, val="lists/boxes.json")


def test_it_is_not_guessed_which_of_two_files_is_meant(tmp_path: Path) -> None:
    save(tmp_path, small())
    save(tmp_path, small(), "annotations/instances_train2014.json", "train2014")
    with pytest.raises(
        ValueError, match=r"instances_train2014\.json, instances_train2017\.json; name"
    ):
        files(tmp_path).read()


def test_a_share_validates_where_nothing_else_does(tmp_path: Path) -> None:
    content = small()
    content["images"] = [{"id": i, "file_name": f"{i}.png"} for i in range(1, 31)]
    for number, annotation in enumerate(content["annotations"], 1):
        annotation["image_id"] = number
    found = files(save(tmp_path, content), val_fraction=0.1).read()
    assert {split: len(x) for split, x in found.splits.items()} == {"train": 27, "val": 3}


def test_a_path_from_another_machine_is_found_by_its_name(tmp_path: Path) -> None:
    content = small()
    save(tmp_path, content)
    content["images"][0]["file_name"] = "/home/somebody/pictures/a.png"
    content["images"][1]["file_name"] = "C:\\pictures\\b.png"
    content["images"][2]["file_name"] = str(tmp_path / "train2017" / "c.png")
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    train = files(tmp_path).read().splits["train"]
    assert [x.source for x in train] == [str(tmp_path / "train2017" / f"{n}.png") for n in "abc"]


def test_sizes_that_are_not_stated_are_those_of_the_picture(tmp_path: Path) -> None:
    content = small()
    for image in content["images"]:
        del image["height"], image["width"]
    train = files(save(tmp_path, content)).read().splits["train"]
    assert [(x.picture.height, x.picture.width) for x in train] == [(12, 20)] * 3


def test_a_category_that_only_groups_others_is_no_class(tmp_path: Path) -> None:
    content = small()
    content["categories"].append({"id": 0, "name": "animal", "supercategory": "none"})
    found = files(save(tmp_path, content)).read()
    assert found.classes == ["dog", "owl", "cat"]
    assert found.notes == ["no class, as it only groups others and no object has it: animal"]
    content["annotations"].append({"id": 9, "image_id": 3, "category_id": 0, "bbox": [1, 1, 1, 1]})
    assert files(save(tmp_path, content)).read().classes == ["animal", "dog", "owl", "cat"]


def test_chosen_classes_keep_their_order_and_ids(tmp_path: Path) -> None:
    found = files(save(tmp_path, small()), class_names=["cat", "dog"]).read()
    assert (found.classes, found.category_ids) == (["cat", "dog"], [90, 3])
    assert found.splits["train"][0].objects[:, 4].tolist() == [0, 1]
    with pytest.raises(ValueError, match="no category is called cow; there are dog, owl, cat"):
        files(tmp_path, class_names=["cow"]).read()
    with pytest.raises(ValueError, match=r"no training picture in .* has owl"):
        files(tmp_path, class_names=["owl"]).read()


def test_splits_tell_categories_by_their_names(tmp_path: Path) -> None:
    save(tmp_path, small())
    other = small()
    for category in other["categories"]:
        category["id"] += 100
    for annotation in other["annotations"]:
        annotation["category_id"] += 100
    save(tmp_path, other, "annotations/instances_val2017.json", "val2017")
    found = files(tmp_path).read()
    assert found.splits["val"][0].objects[:, 4].tolist() == [2, 0]
    assert "val: categories have other ids than in train" in found.notes[0]


def test_repeated_annotation_ids_are_noted_and_kept(tmp_path: Path) -> None:
    content = small()
    content["annotations"][2]["id"] = 1
    found = files(save(tmp_path, content)).read()
    assert len(found.splits["train"][0].objects) == 2
    assert "1 annotation ids occur more than once, and all are kept: 1" in found.notes[0]


def test_flawed_boxes_are_named_by_their_annotation(tmp_path: Path) -> None:
    content = small()
    content["annotations"][0]["bbox"] = [5, 5, -2, 3]
    content["annotations"][1]["bbox"] = [5, 5, 2, float("nan")]
    where = "annotations/instances_train2017.json: annotation"
    assert files(save(tmp_path, content)).read().notes == [
        f"train: 1 of 3 boxes end before they begin and are left out: {where} 1",
        f"train: 1 of 3 boxes are not numbers and are left out: {where} 2",
    ]


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        at: Any = content
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message", "left"),
    [
        (
            put("annotations", 0, "category_id", value=4),
            r"2017\.json: annotation 1: unknown category 4; there are 3 \(dog\), 17 \(owl\)",
            2,
        ),
        (
            put("annotations", 0, "category_id", value=[4]),
            r"annotation 1: unknown category \[4\]",
            2,
        ),
        (put("annotations", 0, "image_id", value=99), "annotation 1: no image has the id 99", 3),
        (put("annotations", 0, "image_id", value={}), r"annotation 1: no image has the id \{\}", 3),
        (
            put("annotations", 0, "bbox", value=[1, 2, 3]),
            r"annotation 1: 'bbox' must be four numbers, .* got \[1, 2, 3\]",
            2,
        ),
        (put("annotations", 0, "bbox", value=[1, 2, 3, "4"]), "must be four numbers", 2),
        (put("annotations", 0, "bbox", value=[1, 2, 3, 10**400]), "must be four numbers", 2),
        (put("annotations", 0, "bbox", value=None), "must be four numbers.*got None", 2),
        (put("annotations", 1, "id", value="x"), r"annotations\[1\]: must be an object with a", 3),
        (put("annotations", 1, value=5), r"annotations\[1\]: must be an object .* got 5", 3),
        (put("images", 1, "id", value=7), "image 7: another image has the same id", 1),
        (put("images", 1, "id", value=None), r"images\[1\]: must be an object", 2),
        (put("images", 1, "file_name", value="a.png"), r"image 3: a\.png is also image 7", 2),
        (put("images", 1, "file_name", value="gone.png"), r"image 3: gone\.png is in none of", 2),
        (put("images", 1, "file_name", value=""), "image 3: 'file_name' must name a file", 2),
        (put("images", 1, "file_name", value="a\0b"), "image 3: 'file_name' must name a file", 2),
        (put("images", 1, "width", value=-5), "image 3: 'height' and 'width' must be whole", 2),
        (put("images", 1, "width", value=4.5), "must be whole pixels from 1, got 12 and 4.5", 2),
    ],
)
def test_what_cannot_be_used_is_named_by_its_id(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str, left: int
) -> None:
    content = small()
    save(tmp_path, content)
    change(content)
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    with pytest.raises(BadSample, match=message):
        files(tmp_path).read()
    skipping = files(tmp_path, bad_samples="skip")
    assert len(skipping.read().splits["train"]) == left
    assert skipping.left_out


def test_a_later_sound_object_does_not_make_up_for_a_bad_one(tmp_path: Path) -> None:
    content = small()
    content["annotations"][0]["category_id"] = 4  # of the picture that annotation 3 is of too
    skipping = files(save(tmp_path, content), bad_samples="skip")
    assert [x.number for x in skipping.read().splits["train"]] == [3, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"images": [,]}', r"2017\.json:2: not JSON"),
        ("", r"2017\.json:1: not JSON"),
        ("[" * 100_000, r"2017\.json: not JSON \(.*recursion"),
        ("[]", "not COCO's JSON, which has lists .* it has list"),
        ('{"images": [], "info": 1}', "it has images, info"),
        ('{"images": [], "annotations": {}, "categories": []}', "not COCO's JSON"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": "1"}]}',
            r"categories\[0\] must have a whole number as 'id' and a 'name', got \{'id': '1'\}",
        ),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            r"categories\[1\], 2 \(a\), has the id or the name of another",
        ),
        ('{"images": [' + "9" * 5000 + "]}", "not JSON"),
    ],
)
def test_broken_files_are_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = save(tmp_path, small()) / "annotations" / "instances_train2017.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        files(tmp_path).read()
    with pytest.raises(ValueError, match=message):  # nothing is left without the file
        files(tmp_path, bad_samples="skip").read()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, small()) / "annotations" / "instances_train2017.json"
    path.write_bytes(b'{"images": ["\xff"]}')
    with pytest.raises(ValueError, match=r"not UTF-8 \(at byte 13\)"):
        files(tmp_path).read()


def test_a_folder_in_place_of_a_picture_is_no_picture(tmp_path: Path) -> None:
    save(tmp_path, small())
    (tmp_path / "train2017" / "b.png").unlink()
    (tmp_path / "train2017" / "b.png").mkdir()
    with pytest.raises(BadSample, match=r"image 3: b\.png is in none of"):
        files(tmp_path).read()
