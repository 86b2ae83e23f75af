"""Laws of changed pictures: boxes follow what is seen, and the key alone decides."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import v2

from resdomains.training.randomness import keys
from resdomains_tasks.object_detection.annotations import COLUMNS, Rows, objects
from resdomains_tasks.object_detection.augment import (
    SHORTEST,
    VISIBLE,
    ScaleJitter,
    augmented,
    check_augment,
)

HEIGHT, WIDTH = 60, 80
SHAPES: list[v2.Transform] = [
    v2.RandomHorizontalFlip(1.0),
    v2.RandomVerticalFlip(1.0),
    ScaleJitter(1.0, 2.5),
    ScaleJitter(0.3, 1.0),
    ScaleJitter(0.3, 2.5),
    v2.RandomIoUCrop(),
    v2.RandomZoomOut(p=1.0),
    v2.RandomCrop((40, 50)),
    v2.RandomCrop((70, 90), pad_if_needed=True),
    v2.RandomResizedCrop((64, 48), antialias=True),
    v2.RandomResize(30, 90),
    v2.Resize((41, 97)),
    v2.CenterCrop(50),
    v2.Pad(5),
    v2.RandomAffine([0.0, 0.0], translate=(0.3, 0.3), scale=(0.7, 1.4)),
    v2.Compose([v2.RandomHorizontalFlip(), ScaleJitter()]),
    v2.RandomApply([ScaleJitter()], 0.5),
]
COLOURS: list[v2.Transform] = [
    v2.ColorJitter(0.2, 0.2, 0.2, 0.05),
    v2.RandomPhotometricDistort((0.8, 1.2), (0.8, 1.2), (0.8, 1.2)),
    v2.GaussianBlur(3, (0.1, 0.3)),
    v2.RandomAutocontrast(),
    v2.RandomGrayscale(),
]


def name(part: Any) -> str:
    return type(part).__name__


def key(index: int, epoch: int = 0) -> int:
    return int(keys(0, epoch, torch.tensor([index])))


def scene(index: int) -> tuple[Tensor, Rows]:
    """A bright rectangle on dark ground, and its box."""
    rng = np.random.default_rng(index)
    x, y = rng.integers(5, 40), rng.integers(5, 30)
    w, h = rng.integers(12, 30), rng.integers(12, 25)
    pixels = torch.full((3, HEIGHT, WIDTH), 30, dtype=torch.uint8)
    pixels[:, y : y + h, x : x + w] = 230
    return pixels, objects([[x, y, x + w, y + h]], [7], difficult=True)


def seen(pixels: Tensor) -> np.ndarray[Any, Any]:
    """The box around what is bright; none if nothing is."""
    bright = pixels.amax(0) > 130
    y, x = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
    if not len(y):
        return np.empty((0, 4))
    return np.array([[int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1]], float)


@pytest.mark.parametrize("part", [*SHAPES, *COLOURS], ids=name)
def test_boxes_follow_what_is_seen(part: v2.Transform) -> None:
    found = 0
    for index in range(40):
        pixels, rows = augmented(*scene(index), [part], key(index))
        if not len(rows):
            continue
        found += 1
        # Half a pixel of rounding where a picture is scaled, at either side.
        np.testing.assert_allclose(rows[:, :4], seen(pixels), atol=1.01)
        assert rows[0, 4:7].tolist() == [7, 0, 1]
    assert found > 20


def test_a_turned_box_encloses_the_turned_object() -> None:
    for index in range(20):
        pixels, rows = augmented(*scene(index), [v2.RandomRotation([-20.0, 20.0])], key(index))
        around = seen(pixels)
        assert (rows[:, :2] <= around[:, :2] + 1.0).all()
        assert (rows[:, 2:4] >= around[:, 2:] - 1.0).all()


@pytest.mark.parametrize("flip", [v2.RandomHorizontalFlip, v2.RandomVerticalFlip])
def test_two_flips_are_none(flip: Callable[[float], v2.Transform]) -> None:
    pixels, rows = scene(3)
    rows[:, :4] += 0.3
    once = augmented(pixels, rows, [flip(1.0)], 0)
    assert not torch.equal(once[0], pixels)
    twice = augmented(pixels, rows, [flip(1.0), flip(1.0)], 0)
    assert torch.equal(twice[0], pixels)
    np.testing.assert_allclose(twice[1], rows, rtol=1e-12)


def test_colours_leave_boxes_alone_and_nothing_changes_what_was_given() -> None:
    pixels, rows = scene(1)
    kept = pixels.clone(), rows.copy()
    for part in COLOURS:
        changed = augmented(pixels, rows, [part], 5)[1]
        np.testing.assert_array_equal(changed, rows)
    for part in SHAPES:
        augmented(pixels, rows, [part], 5)
    assert torch.equal(pixels, kept[0])
    np.testing.assert_array_equal(rows, kept[1])


@pytest.mark.parametrize("part", [*SHAPES, *COLOURS], ids=name)
def test_the_key_alone_decides(part: v2.Transform) -> None:
    def changed(at: int) -> list[tuple[Tensor, Rows]]:
        return [augmented(*scene(index), [part], key(index, at)) for index in range(10)]

    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    first = changed(0)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)
    other = torch.get_rng_state()
    second = changed(0)
    for (a, rows), (b, same) in zip(first, second, strict=True):
        assert torch.equal(a, b)
        np.testing.assert_array_equal(rows, same)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the generator moved"
    torch.manual_seed(2)
    assert torch.equal(torch.get_rng_state(), other)


def test_epochs_and_pictures_differ() -> None:
    pixels, rows = scene(0)
    several = [
        augmented(pixels, rows, [ScaleJitter()], key(index, epoch))[0]
        for index in range(3)
        for epoch in range(3)
    ]
    assert len({picture.numpy().tobytes() for picture in several}) == 9


def test_what_is_hardly_left_is_left_out() -> None:
    pixels = torch.zeros(3, 40, 40, dtype=torch.uint8)
    # The middle 20 pixels stay: of these 10 wide boxes, 3 and 2 columns.
    rows = objects([[3.0, 15, 13, 25], [2.0, 15, 12, 25], [15.0, 15, 16.5, 25]], [1, 2, 3])
    _, left = augmented(pixels, rows, [v2.CenterCrop(20)], 0)
    assert left[:, 4].tolist() == [1, 3]
    np.testing.assert_allclose(left[0, :4], [0, 5, 3, 15])
    assert 2 / 10 < VISIBLE < 3 / 10
    assert augmented(pixels, rows, [v2.CenterCrop(20)], 0, smallest=2.0)[1][:, 4].tolist() == [1]
    assert len(augmented(pixels, rows, [v2.CenterCrop(20)], 0, visible=0.1)[1]) == 3


def test_what_a_crop_has_cut_does_not_come_back() -> None:
    pixels = torch.zeros(3, 40, 40, dtype=torch.uint8)
    rows = objects([[5, 15, 15, 25], [0, 0, 40, 12]], [1, 2])
    _, left = augmented(pixels, rows, [v2.CenterCrop(20), v2.Pad(10)], 0)
    np.testing.assert_allclose(left[:, :5], [[10, 15, 15, 25, 1]])


def test_the_area_shrinks_and_grows_as_the_box_does() -> None:
    pixels = torch.zeros(3, 40, 40, dtype=torch.uint8)
    rows = objects([[5, 10, 15, 30]], [1], area=120)
    assert augmented(pixels, rows, [v2.Resize((80, 120))], 0)[1][0, 7] == pytest.approx(720)
    assert augmented(pixels, rows, [v2.CenterCrop(20)], 0)[1][0, 7] == pytest.approx(60)
    assert augmented(pixels, rows, [], 0)[1][0, 7] == 120


def test_labels_follow_where_a_transform_drops_boxes_itself() -> None:
    pixels = torch.zeros(3, 40, 40, dtype=torch.uint8)
    rows = objects([[0, 0, 4, 4], [10, 10, 30, 30], [5, 5, 8, 9]], [1, 2, 3])
    _, left = augmented(pixels, rows, [v2.SanitizeBoundingBoxes(min_size=5)], 0)
    assert left[:, 4].tolist() == [2]


@pytest.mark.parametrize("part", [*SHAPES, *COLOURS], ids=name)
def test_pictures_without_objects_change_too(part: v2.Transform) -> None:
    pixels = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    for at in range(5):
        picture, rows = augmented(pixels, objects([], []), [part], at)
        assert picture.shape[0] == 3
        assert rows.shape == (0, len(COLUMNS))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (SHORTEST - 1, 40)])
def test_very_thin_pictures_stay_as_they_are(height: int, width: int) -> None:
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    rows = objects([[0, 0, width, height]], [0])
    parts = [v2.RandomIoUCrop(), ScaleJitter(), v2.RandomHorizontalFlip(1.0)]
    picture, left = augmented(pixels, rows, parts, 3)
    assert torch.equal(picture, pixels)
    np.testing.assert_array_equal(left, rows)


def test_grey_pictures_change_too() -> None:
    pixels, rows = scene(0)
    for part in [*SHAPES, COLOURS[0], COLOURS[2], COLOURS[3]]:
        assert augmented(pixels[:1], rows, [part], 1)[0].shape[0] == 1


def test_scale_jitter_shows_the_picture_at_the_scale_it_drew() -> None:
    scales = []
    for index in range(60):
        pixels, rows = scene(index)
        changed, left = augmented(pixels, rows, [ScaleJitter(0.5, 1.5)], index, visible=0.0)
        assert changed.shape == pixels.shape
        inside = len(left) and (left[0, :2] > 0).all() and (left[0, 2:4] < (WIDTH, HEIGHT)).all()
        if inside:
            before, after = rows[0, 2:4] - rows[0, :2], left[0, 2:4] - left[0, :2]
            scales.append(after / before)
    factors = np.array(scales)
    assert factors.min() == pytest.approx(0.5, abs=0.1)
    assert factors.max() == pytest.approx(1.5, abs=0.1)
    # Both sides by one factor, but for the rounding to whole pixels.
    np.testing.assert_allclose(factors[:, 0], factors[:, 1], rtol=0.03)
    reduced = augmented(*scene(0), [ScaleJitter(0.5, 0.5, fill=99)], 0)[0]
    assert (reduced == 99).float().mean() == pytest.approx(0.75)
    assert torch.equal(augmented(*scene(0), [ScaleJitter(1.0, 1.0)], 0)[0], scene(0)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": 0.0}, "low and high must be rising factors above 0, got 0.0 and 2.0"),
        ({"low": 3.0}, "rising factors above 0, got 3.0 and 2.0"),
        ({"high": float("inf")}, "rising factors"),
        ({"high": float("nan")}, "rising factors"),
        ({"fill": 256}, "fill must be a pixel's value from 0 to 255, got 256"),
    ],
)
def test_scale_jitter_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleJitter(**arguments)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([v1.ColorJitter()], TypeError, r"got ColorJitter of torchvision\.transforms\.t"),
        ([v2.RandomApply([v1.ColorJitter()])], TypeError, "transforms, which know boxes, got Col"),
        ([v2.Compose([v2.Compose([len])])], TypeError, "got builtin_function_or_method"),
        ([v2.CutMix(num_classes=3)], ValueError, "CutMix, which needs a batch"),
        ([v2.FiveCrop(4)], ValueError, "FiveCrop, which gives several pictures; take RandomCrop"),
        ([v2.RandomErasing(inplace=True)], ValueError, "RandomErasing must not have inplace set"),
        (
            [v2.RandomIoUCrop(sampler_options=[0.9])],
            ValueError,
            r"needs 1\.0 among its sampler_options, got \[0\.9\]",
        ),
    ],
)
def test_what_cannot_be_reproduced_or_knows_no_boxes_is_refused(
    parts: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_augment(parts)
    check_augment([*SHAPES, *COLOURS])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (v2.ToDtype(torch.float32), r"ToDtype must give .* 3 channels in uint8, got .* float32"),
        (v2.Grayscale(), r"Grayscale must give a picture of 3 channels in uint8, got \(1, 60, 80"),
        (v2.ToPILImage(), "ToPILImage must give .*, got Image; pictures are normalised afterwards"),
        (v2.RandomCrop(100), "RandomCrop failed on a picture of 80 x 60 pixels: Required crop"),
        (v2.Normalize([0.5], [0.5]), "Normalize failed on a picture of 80 x 60 pixels"),
    ],
)
def test_a_transform_that_gives_no_picture_is_named(part: v2.Transform, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augmented(*scene(0), [part], 0)
