"""Pascal VOC's XML files become the same objects, or are refused by file and line."""

from collections import Counter
from pathlib import Path

import pytest

from resdomains.training import BadSample
from resdomains_tasks.object_detection.voc import VocFiles
from tests.resdomains.vision.support import save_noise

BCCD = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "bccd"

XML = """<annotation>
  <filename>{name}.png</filename>
  <size><width>20</width><height>12</height><depth>3</depth></size>
  {objects}
</annotation>
"""
OBJECT = """<object>
    <name>{name}</name>
    <difficult>{difficult}</difficult>
    <bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>"""


def an_object(name: str, *corners: object, difficult: int = 0) -> str:
    return OBJECT.format(*corners, name=name, difficult=difficult)


def save(root: Path, name: str, *objects: str, xml: str = XML) -> None:
    save_noise(root / "JPEGImages" / f"{name}.png", 12, 20)
    (root / "Annotations").mkdir(exist_ok=True)
    text = xml.format(name=name, objects="\n  ".join(objects))
    (root / "Annotations" / f"{name}.xml").write_text(text)


def save_lists(root: Path, **lists: str) -> None:
    sets = root / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    for name, lines in lists.items():
        (sets / f"{name}.txt").write_text("\n".join(lines.split()) + "\n")


def small(root: Path) -> Path:
    save(root, "a", an_object("dog", 1, 2, 10, 12), an_object("cat", 3, 3, 5, 6, difficult=1))
    save(root, "b", an_object("cat", 4, 4, 8, 9))
    save(root, "c")
    save_lists(root, train="a c", val="b")
    return root


def test_boxes_reach_from_the_first_to_the_end_of_the_last_pixel(tmp_path: Path) -> None:
    found = VocFiles(root=str(small(tmp_path)), batch_size=1).read()
    assert found.classes == ["cat", "dog"]
    assert [x.source for x in found.splits["train"]] == [
        str(tmp_path / "JPEGImages" / f"{name}.png") for name in "ac"
    ]
    assert found.splits["train"][0].objects.tolist() == [
        [0, 1, 10, 12, 1, 0, 0, 110],
        [2, 2, 5, 6, 0, 0, 1, 12],
    ]
    assert found.splits["train"][1].objects.shape == (0, 8)
    assert found.splits["val"][0].objects[:, :5].tolist() == [[3, 3, 8, 9, 0]]
    assert "test" not in found.splits
    assert found.notes == []


def test_pixels_may_count_from_zero(tmp_path: Path) -> None:
    save(tmp_path, "a", an_object("dog", 0, 2, 10, 12))
    zero = VocFiles(root=str(tmp_path), batch_size=1, first_pixel=0).read()
    assert zero.splits["train"][0].objects[0, :4].tolist() == [0, 2, 10, 12]
    assert zero.notes == []
    one = VocFiles(root=str(tmp_path), batch_size=1).read()
    assert one.splits["train"][0].objects[0, :4].tolist() == [0, 1, 10, 12]
    assert "1 boxes begin at pixel 0, though the first has number 1" in one.notes[0]
    assert (
        "1 of 1 boxes reach out of their pictures and are clipped: Annotations/a.xml:4"
        in one.notes[1]
    )
    with pytest.raises(ValueError, match="first_pixel must be 1"):
        VocFiles(root=str(tmp_path), batch_size=1, first_pixel=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("corners", [(5, 5, 5, 5), (5, 5, 5, 9), (5, 5, 9, 5)])
def test_boxes_without_a_side_are_left_out_whatever_the_first_pixel(
    tmp_path: Path, corners: tuple[int, ...]
) -> None:
    save(tmp_path, "a", an_object("dog", 1, 2, 10, 12), an_object("dog", *corners))
    found = VocFiles(root=str(tmp_path), batch_size=1).read()
    assert len(found.splits["train"][0].objects) == 1
    assert found.notes == [
        "train: 1 of 2 boxes have no height or no width and are left out: Annotations/a.xml:10"
    ]


def test_the_data_may_lie_one_folder_below(tmp_path: Path) -> None:
    small(tmp_path / "VOC2007")
    (tmp_path / "note.txt").write_text("x")
    assert VocFiles(root=str(tmp_path), batch_size=1).read().classes == ["cat", "dog"]
    small(tmp_path / "VOC2012")
    with pytest.raises(ValueError, match=r"several data sets, VOC2007, VOC2012; set --data\.root"):
        VocFiles(root=str(tmp_path), batch_size=1).read()


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folders Annotations and JPEGImages.*ImageSets/Main"):
        VocFiles(root=str(tmp_path), batch_size=1).read()
    with pytest.raises(ValueError, match=r"does not exist; set --data\.root"):
        VocFiles(root=str(tmp_path / "none"), batch_size=1).read()


def test_without_lists_all_train_and_some_validate(tmp_path: Path) -> None:
    for number in range(20):
        save(tmp_path, f"{number}", an_object("dog", 1, 2, 10, 12))
    found = VocFiles(root=str(tmp_path), batch_size=1).read()
    assert {split: len(x) for split, x in found.splits.items()} == {"train": 18, "val": 2}


def test_lists_can_be_chosen(tmp_path: Path) -> None:
    small(tmp_path)
    save_lists(tmp_path, trainval="a b", rest="c")
    found = VocFiles(
        root=str(tmp_path), batch_size=1, train="trainval", val=None, test="rest", val_fraction=0
    )
    assert {split: len(x) for split, x in found.read().splits.items()} == {"train": 2, "test": 1}
    with pytest.raises(
        ValueError, match=r"train: .*many\.txt does not exist; .* rest, train, trainval, val"
    ):
        VocFiles(root=str(tmp_path), batch_size=1, train="many").read()
    save_lists(tmp_path, train="")
    with pytest.raises(ValueError, match=r"train\.txt lists nothing"):
        VocFiles(root=str(tmp_path), batch_size=1).read()


def test_chosen_classes_keep_their_order(tmp_path: Path) -> None:
    found = VocFiles(root=str(small(tmp_path)), batch_size=1, class_names=["dog"]).read()
    assert found.classes == ["dog"]
    assert [len(x.objects) for x in found.splits["train"]] == [1, 0]
    assert (
        "2 objects of classes that class_names does not list are left out: cat (2)" in found.notes
    )


def test_sizes_that_are_not_stated_are_those_of_the_picture(tmp_path: Path) -> None:
    save(tmp_path, "a", an_object("dog", 1, 2, 10, 12), xml="<annotation>{objects}</annotation>")
    zero = XML.replace(">20<", ">0<").replace(">12<", ">0<")
    save(tmp_path, "b", an_object("dog", 1, 2, 10, 12), xml=zero)
    found = VocFiles(root=str(tmp_path), batch_size=1, val_fraction=0).read()
    assert [(x.picture.height, x.picture.width) for x in found.splits["train"]] == [(12, 20)] * 2


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>\n<object>\n</annotation>", r"a\.xml:3: not XML \(mismatched tag\)"),
        ("", r"a\.xml:1: not XML \(no element found\)"),
        ("<list></list>", r"a\.xml:1: the outermost element must be <annotation>, not <list>"),
        ("<annotation>\n<object/></annotation>", r"a\.xml:2: an <object> without a <name>"),
        (
            "<annotation>\n\n<object><name>x</name></object></annotation>",
            r"a\.xml:3: an <object> \(x\) without <bndbox>",
        ),
        (
            XML.format(name="a", objects=an_object("dog", 1, "ten", 3, 4)),
            r"a\.xml:7: <ymin> in <bndbox> must be a number, got 'ten'",
        ),
        (
            "<annotation><object><name>x</name><bndbox>\n</bndbox></object></annotation>",
            r"a\.xml:1: <xmin> in <bndbox> must be a number, got ''",
        ),
        (
            "<annotation>\n<size><width>-3</width><height>4.5</height></size></annotation>",
            r"a\.xml:2: <size> must state whole pixels from 1, got -3 x 4\.5",
        ),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', r"a\.xml:1: not XML .*nonsense"),
        ("<annotation>&undefined;</annotation>", r"a\.xml:1: not XML \(undefined entity\)"),
        ("\0\0\0", r"a\.xml:1: not XML"),
    ],
)
def test_broken_xml_is_named_by_file_and_line(tmp_path: Path, xml: str, message: str) -> None:
    save(tmp_path, "a")
    save(tmp_path, "b", an_object("dog", 1, 2, 10, 12))
    (tmp_path / "Annotations" / "a.xml").write_text(xml)
    with pytest.raises(BadSample, match=message):
        VocFiles(root=str(tmp_path), batch_size=1).read()
    skipping = VocFiles(root=str(tmp_path), batch_size=1, bad_samples="skip")
    assert len(skipping.read().splits["train"]) == 1
    assert len(skipping.left_out) == 1


def test_entities_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    save(tmp_path, "a")
    laughs = '<!ENTITY l0 "ha">' + "".join(
        f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12)
    )
    text = f"<?xml version='1.0'?>\n<!DOCTYPE x [{laughs}]>\n<annotation>&l11;</annotation>"
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(BadSample, match=r"a\.xml:2: declares a document type .* refused"):
        VocFiles(root=str(tmp_path), batch_size=1).read()


def test_external_entities_are_not_read(tmp_path: Path) -> None:
    save(tmp_path, "a")
    (tmp_path / "secret").write_text("secret")
    text = (
        f"<!DOCTYPE x [<!ENTITY e SYSTEM 'file://{tmp_path}/secret'>]>"
        "<annotation><object><name>&e;</name></object></annotation>"
    )
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(BadSample, match="declares a document type"):
        VocFiles(root=str(tmp_path), batch_size=1).read()


def test_deep_nesting_ends_in_a_message(tmp_path: Path) -> None:
    save(tmp_path, "a")
    (tmp_path / "Annotations" / "a.xml").write_text("<a>" * 200_000 + "</a>" * 200_000)
    with pytest.raises(BadSample, match="nested too deeply, more than 100 elements"):
        VocFiles(root=str(tmp_path), batch_size=1).read()


def test_what_lists_name_and_is_not_there_is_named_by_line(tmp_path: Path) -> None:
    small(tmp_path)
    save_lists(tmp_path, train="a gone")
    with pytest.raises(BadSample, match=r"train\.txt:2: Annotations/gone\.xml does not exist"):
        VocFiles(root=str(tmp_path), batch_size=1).read()
    (tmp_path / "JPEGImages" / "a.png").unlink()
    save_lists(tmp_path, train="c a")
    with pytest.raises(BadSample, match=r"train\.txt:2: JPEGImages has no picture a"):
        VocFiles(root=str(tmp_path), batch_size=1).read()


def test_folders_in_place_of_files_are_refused(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "Annotations" / "a.xml").unlink()
    (tmp_path / "Annotations" / "a.xml").mkdir()
    with pytest.raises(BadSample, match=r"Annotations/a\.xml does not exist"):
        VocFiles(root=str(tmp_path), batch_size=1).read()


def test_of_two_pictures_of_a_name_the_stated_one_counts(tmp_path: Path) -> None:
    save(tmp_path, "a", an_object("dog", 1, 2, 10, 12))
    save_noise(tmp_path / "JPEGImages" / "a.jpg", 12, 20)
    found = VocFiles(root=str(tmp_path), batch_size=1, val_fraction=0).read()
    assert found.splits["train"][0].source.endswith("a.png")


def test_all_pictures_without_boxes_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "a")
    with pytest.raises(ValueError, match="none of the 1 training pictures"):
        VocFiles(root=str(tmp_path), batch_size=1).prepare()


@pytest.mark.skipif(not BCCD.is_dir(), reason="the data are not there")
def test_bccd_has_the_boxes_that_its_source_counts() -> None:
    found = VocFiles(root=str(BCCD), batch_size=8).read()
    counts = {
        split: Counter(found.classes[int(label)] for x in pictures for label in x.objects[:, 4])
        for split, pictures in found.splits.items()
    }
    # Two of 4,888 have no area: a red cell each of train and val.
    assert counts == {
        "train": {"RBC": 2381, "WBC": 214, "Platelets": 209},
        "val": {"RBC": 967, "WBC": 87, "Platelets": 83},
        "test": {"RBC": 805, "WBC": 71, "Platelets": 69},
    }
    assert {split: len(x) for split, x in found.splits.items()} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 of 2,805 boxes have no height or no width and are left out: Annotations/BloodImage_00343.xml:50",
        "1 of 1,138 boxes have no height or no width and are left out: Annotations/BloodImage_00338.xml:158",
    ]
    assert not any(x.objects[:, 6].any() for pictures in found.splits.values() for x in pictures)
