"""Boxes follow their pictures, and what cannot be used is named."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from resdomains.training import BadSample
from resdomains_tasks.object_detection.annotations import Corpus, Rows
from resdomains_tasks.object_detection.files import (
    FLAWS,
    Folders,
    Listing,
    PictureFile,
    Stated,
    clipped,
    turned,
    upright_size,
)
from tests.resdomains.vision.support import save_noise

BOX = (2, 3, 9, 5)  # x1, y1, x2, y2


def save_turned(path: Path, orientation: int, width: int = 20, height: int = 12) -> Path:
    """Write a black picture, white in BOX as it is stored, that EXIF turns."""
    pixels = np.zeros((height, width), np.uint8)
    x1, y1, x2, y2 = BOX
    pixels[y1:y2, x1:x2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def white(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[int]:
    """The corners of what is white."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def boxes(*corners: tuple[float, float, float, float]) -> Rows:
    return np.array(corners, np.float64).reshape(-1, 4)


def corpus(listing: Listing, skip: bool = False, val_fraction: float = 0.0) -> Corpus:
    return listing.corpus(
        class_names=None,
        selected=False,
        val_fraction=val_fraction,
        bad_samples="skip" if skip else "refuse",
        left_out=[],
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_pil_turns_the_picture(tmp_path: Path, orientation: int) -> None:
    path = save_turned(tmp_path / "a.png", orientation)
    with Image.open(path) as stored:
        expected = white(np.asarray(ImageOps.exif_transpose(stored)))
    assert turned(boxes(BOX), 12, 20, orientation).tolist() == [expected]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_that_were_drawn_on_the_stored_picture_follow_it(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = save_turned(tmp_path / f"a.{suffix}", orientation)
    picture = PictureFile(str(path), 12, 20)
    pixels = picture.read(1)[0].numpy()
    found = picture.upright(boxes(BOX), *pixels.shape)
    if orientation >= 5:
        assert pixels.shape == (20, 12)
        assert found.tolist() == [white(pixels)]
    else:  # nothing tells which was meant
        assert found.tolist() == [list(BOX)]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_that_were_drawn_on_the_upright_picture_stay(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = save_turned(tmp_path / f"a.{suffix}", orientation)
    size = upright_size(path)
    assert size == ((20, 12) if orientation >= 5 else (12, 20))
    picture = PictureFile(str(path), *size)
    assert tuple(picture.read(1).shape[1:]) == size
    assert picture.upright(boxes(BOX), *size).tolist() == [list(BOX)]


@pytest.mark.parametrize("size", [(20, 12), (12, 21), (24, 40)])
def test_another_size_than_the_annotated_one_is_refused(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = save_noise(tmp_path / "a.png", 12, 20)
    picture = PictureFile(str(path), *size)
    with pytest.raises(
        BadSample, match=rf"a\.png: its boxes were drawn on {size[1]} x {size[0]} .* 20 x 12"
    ):
        picture.upright(boxes(BOX), 12, 20)


def test_a_picture_pickles_small() -> None:
    picture = PictureFile("/data/images/000000000001.jpg", 480, 640)
    assert len(pickle.dumps(picture)) - len(picture.path) < 120
    assert pickle.loads(pickle.dumps(picture)) == picture


@pytest.mark.parametrize(
    ("box", "left", "flaw"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), ""),
        ((0, 0, 20, 10), (0, 0, 20, 10), ""),
        ((-0.01, 0, 20.01, 10), (0, 0, 20, 10), ""),  # rounded numbers
        ((-5, 2, 3, 14), (0, 2, 3, 10), "clipped"),
        ((5, 5, 5, 8), None, "no height or no width"),
        ((5, 5, 8, 5), None, "no height or no width"),
        ((8, 5, 5, 8), None, "end before they begin"),
        ((5, 8, 8, 5), None, "end before they begin"),
        ((float("nan"), 1, 2, 3), None, "not numbers"),
        ((0, 0, float("inf"), 3), None, "not numbers"),
        ((20, 1, 25, 3), None, "outside"),
        ((1, -9, 2, 0), None, "outside"),
        ((30, 40, 35, 45), None, "outside"),
    ],
)
def test_boxes_are_clipped_to_their_picture_or_dropped(
    box: tuple[float, float, float, float],
    left: tuple[float, float, float, float] | None,
    flaw: str,
) -> None:
    found, flaws = clipped(boxes((1, 1, 2, 2), box), 10, 20)
    assert flaws[0] == 0
    assert flaw in FLAWS[flaws[1]]
    assert (FLAWS[flaws[1]] == "") == (flaw == "")
    assert ("left out" in FLAWS[flaws[1]]) == (left is None)
    if left is not None:
        assert found[1].tolist() == list(left)


def test_each_box_is_clipped_to_its_own_picture() -> None:
    found, flaws = clipped(boxes((0, 0, 9, 9), (0, 0, 9, 9)), np.array([9, 5]), np.array([4, 9]))
    assert found.tolist() == [[0, 0, 4, 9], [0, 0, 9, 5]]
    assert flaws.tolist() == [1, 1]
    assert clipped(boxes(), 5, 5)[0].shape == (0, 4)


def test_the_smallest_area_above_nothing_is_kept() -> None:
    _, flaws = clipped(boxes((0, 0, 1e-3, 1e-3)), 5, 5)
    assert flaws.tolist() == [0]


def test_flaws_are_counted_and_the_first_named(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    flat = [Stated(line, "a", (1, 1, 1, 2)) for line in range(1, 8)]
    good = Stated(9, "a", (1, 1, 3, 30), difficult=True)
    listing.add("train", "x.png", (20, 20), [*flat, good], where=tmp_path / "x.xml")
    listing.add("val", "y.png", (20, 20), [Stated(3, "a", (5, 5, 4, 6))], where=tmp_path / "y.xml")
    found = corpus(listing)
    assert found.notes == [
        "train: 1 of 8 boxes reach out of their pictures and are clipped: x.xml:9",
        "train: 7 of 8 boxes have no height or no width and are left out: x.xml:1, x.xml:2, x.xml:3, x.xml:4, "
        "x.xml:5, ...",
        "val: 1 of 1 boxes end before they begin and are left out: y.xml:3",
    ]
    assert found.splits["train"][0].objects.tolist() == [[1, 1, 3, 20, 0, 0, 1, 38]]
    assert found.splits["val"][0].objects.shape == (0, 8)


def test_objects_stay_with_their_pictures(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    counts = [0, 3, 1, 0, 2, 0]
    for number, count in enumerate(counts):
        stated = [Stated(i, "a", (number, i, number + 1, i + 1)) for i in range(count)]
        listing.add("train", f"{number}.png", (20, 20), stated, where="x")
    found = corpus(listing).splits["train"]
    assert [len(x.objects) for x in found] == counts
    assert all((x.objects[:, 0] == number).all() for number, x in enumerate(found))
    assert [x.number for x in found] == [1, 2, 3, 4, 5, 6]


def test_a_stated_area_is_kept_and_a_nonsensical_one_is_that_of_the_box(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    stated = [
        Stated(i, "a", (0, 0, 2, 3), area=area) for i, area in enumerate((4.5, 0.0, -1.0, np.nan))
    ]
    listing.add("train", "a.png", (20, 20), stated, where="x")
    assert corpus(listing).splits["train"][0].objects[:, 7].tolist() == [4.5, 6.0, 6.0, 6.0]


def test_a_class_that_no_training_picture_has_is_unknown_or_left_out(tmp_path: Path) -> None:
    def listing() -> Listing:
        found = Listing(tmp_path)
        found.add("train", "a.png", (9, 9), [Stated(1, "cat", (0, 0, 2, 2))], where="a.xml")
        stated = [Stated(4, "dgo", (0, 0, 1, 1)), Stated(5, "cat", (0, 0, 2, 2))]
        found.add("val", "b.png", (9, 9), stated, where="b.xml")
        return found

    with pytest.raises(
        BadSample, match=r"b\.xml:4: unknown class 'dgo'; the training pictures have cat"
    ):
        corpus(listing())
    assert "val" not in corpus(listing(), skip=True).splits
    left_out: list[BadSample] = []
    chosen = listing().corpus(
        class_names=["cat"],
        selected=True,
        val_fraction=0.0,
        bad_samples="refuse",
        left_out=left_out,
    )
    assert chosen.splits["val"][0].objects[:, 2].tolist() == [2.0]
    assert not left_out
    assert chosen.notes == [
        "1 objects of classes that class_names does not list are left out: dgo (1)"
    ]


def test_listed_classes_must_be_in_the_training_pictures(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    listing.add("train", "a.png", (9, 9), [Stated(1, "cat", (0, 0, 2, 2))], where="a.xml")
    with pytest.raises(
        ValueError, match=r"class_names: no training picture in .* has dog; it has cat"
    ):
        listing.corpus(
            class_names=["cat", "dog"],
            selected=True,
            val_fraction=0.0,
            bad_samples="refuse",
            left_out=[],
        )


def test_held_out_pictures_do_not_depend_on_their_order(tmp_path: Path) -> None:
    def val(order: list[int]) -> set[str]:
        listing = Listing(tmp_path)
        for number in order:
            path = tmp_path / f"{number}.png"
            listing.add("train", path, (9, 9), [Stated(1, "a", (0, 0, 2, 2))], where="x")
        found = corpus(listing, val_fraction=0.25)
        assert found.notes == ["of 40 pictures 10 validate, chosen by a hash of the file's name"]
        return {x.source for x in found.splits["val"]}

    assert val(list(range(40))) == val(list(range(39, -1, -1)))


def test_pictures_that_also_train_are_counted(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    listing.add("train", "a.png", (9, 9), [Stated(1, "a", (0, 0, 2, 2))], where="x")
    listing.add("test", "a.png", (9, 9), [Stated(1, "a", (0, 0, 2, 2))], where="x")
    assert corpus(listing).notes == ["1 of 1 pictures in test are also in train"]


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no pictures to train on"):
        corpus(Listing(tmp_path))
    bad = Listing(tmp_path)
    bad.bad.append(BadSample("a.xml:3", "broken"))
    with pytest.raises(
        ValueError, match=r"no pictures to train on; 1 cannot be used, such as a\.xml:3: broken"
    ):
        corpus(bad, skip=True)
    empty = Listing(tmp_path)
    empty.add("train", "a.png", (9, 9), [], where="x")
    with pytest.raises(ValueError, match=r"none of the 1 training pictures in .* has an object"):
        corpus(empty)
    one = Listing(tmp_path)
    one.add("train", "a.png", (9, 9), [Stated(1, "a", (0, 0, 2, 2))], where="x")
    with pytest.raises(
        ValueError, match=r"val_fraction: 0\.9 of 1 pictures leaves none to train on"
    ):
        corpus(one, val_fraction=0.9)


def test_the_first_bad_sample_is_named_and_the_others_counted(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    listing.bad += [BadSample("a", "x"), BadSample("b", "y"), BadSample("c", "z")]
    with pytest.raises(
        BadSample, match=r"a: x, and 2 more cannot be used \(--data\.bad_samples skip"
    ):
        corpus(listing)


def test_ten_thousand_boxes_in_a_picture(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    stated = [Stated(i, "a", (i, 0, i + 1, 1)) for i in range(10_000)]
    listing.add("train", "a.png", (1, 10_000), stated, where="x")
    assert corpus(listing).splits["train"][0].objects.shape == (10_000, 8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30_000), (30_000, 1)])
def test_tiny_and_very_long_pictures(tmp_path: Path, height: int, width: int) -> None:
    path = save_noise(tmp_path / "a.png", height, width)
    listing = Listing(tmp_path)
    listing.add("train", path, None, [Stated(1, "a", (-1, -1, width, height))], where="x")
    found = corpus(listing).splits["train"][0]
    assert found.objects[0, :4].tolist() == [0, 0, width, height]
    assert found.picture.read(3).shape == (3, height, width)


def test_folders_list_files_alone(tmp_path: Path) -> None:
    save_noise(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    folders = Folders()
    assert folders.files(tmp_path) == {"a.png"}
    assert folders.files(tmp_path / "none") == frozenset()
    assert folders.files("a\0b") == frozenset()
