"""Laws of mosaics: four pictures, each object where it is seen, all of it fixed by the key."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from resdomains.training.randomness import keys
from resdomains_tasks.object_detection.annotations import Rows, objects
from resdomains_tasks.object_detection.mosaic import Mosaic

SIZE = 64, 96
GROUND = (20, 40, 60, 80)
COLOURS = torch.tensor([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])


def four(seed: int = 0) -> list[tuple[Tensor, Rows]]:
    """Black pictures of several sizes, each with a rectangle of its own colour."""
    rng = np.random.default_rng(seed)
    found = []
    for place, size in enumerate([SIZE, (50, 70), (96, 64), (30, 120)]):
        pixels = torch.zeros(3, *size, dtype=torch.uint8)
        x, y = rng.integers(2, size[1] - 24), rng.integers(2, size[0] - 24)
        w, h = rng.integers(12, 22, 2)
        pixels[:, y : y + h, x : x + w] = COLOURS[place, :, None, None]
        found.append((pixels, objects([[x, y, x + w, y + h]], [place])))
    return found


def shown(pixels: Tensor, place: int) -> Tensor:
    """Where the colour of one of the four is seen."""
    return (pixels.int() - COLOURS[place, :, None, None]).abs().amax(0) < 128


def key(index: int, epoch: int = 0) -> int:
    return int(keys(0, epoch, torch.tensor([index])))


def test_objects_lie_where_they_are_seen() -> None:
    count = 0
    for index in range(100):
        pixels, rows = Mosaic()(four(index), key(index))
        assert pixels.shape == (3, *SIZE)
        assert pixels.dtype == torch.uint8
        for row in rows:
            bright = shown(pixels, int(row[4]))
            y, x = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
            around = [int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1]
            np.testing.assert_allclose(row[:4], around, atol=1.01)
            count += 1
    assert count > 150


def test_an_object_of_which_hardly_anything_is_seen_is_left_out() -> None:
    hidden = 0
    for index in range(100):
        pixels, rows = Mosaic()(four(index), key(index))
        for place in {0, 1, 2, 3} - set(rows[:, 4].astype(int)):
            # A quarter of the largest rectangle.
            assert shown(pixels, place).sum() <= 22 * 22 / 4
            hidden += 1
    assert hidden > 20


def test_four_pictures_are_seen_around_a_point_of_the_middle() -> None:
    plain = [
        (torch.full((3, 64, 64), value, dtype=torch.uint8), objects([], [])) for value in GROUND
    ]
    points = set()
    for index in range(50):
        pixels, rows = Mosaic(scale=(1.0, 1.0))(plain, key(index))
        assert len(rows) == 0
        grey = pixels[0]
        y, x = int((grey[:, 0] == 20).sum()), int((grey[0] == 20).sum())
        assert 16 <= y <= 48
        assert 16 <= x <= 48
        for part, value in zip(
            (grey[:y, :x], grey[:y, x:], grey[y:, :x], grey[y:, x:]), GROUND, strict=True
        ):
            assert (part == value).all()
        points.add((y, x))
    assert len(points) > 40


def test_small_parts_stand_on_grey_and_keep_their_scale() -> None:
    white = [(torch.full((3, 64, 64), 255, dtype=torch.uint8), objects([[0, 0, 64, 64]], [1]))] * 4
    for index in range(20):
        pixels, rows = Mosaic(scale=(0.2, 0.2), fill=7)(white, key(index))
        sides = rows[:, 2:4] - rows[:, :2]
        assert len(rows) == 4
        assert (sides == 13).all()
        assert int((pixels[0] == 255).sum()) == 4 * 13 * 13
        assert int((pixels[0] == 7).sum()) == 64 * 64 - 4 * 13 * 13
        np.testing.assert_allclose(rows[:, 7], 13 * 13)


def test_the_key_alone_decides() -> None:
    first = [Mosaic()(four(), key(index))[0] for index in range(5)]
    torch.manual_seed(9)
    again = [Mosaic()(four(), key(index))[0] for index in range(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({picture.numpy().tobytes() for picture in first}) == 5
    assert not torch.equal(first[0], Mosaic()(four(), key(0, epoch=1))[0])
    assert Mosaic().others(key(0), 1000) != Mosaic().others(key(0, epoch=1), 1000)


def test_what_was_given_stays_as_it_was() -> None:
    given, kept = four(), four()
    Mosaic()(given, key(2))
    for (pixels, rows), (same, before) in zip(given, kept, strict=True):
        assert torch.equal(pixels, same)
        np.testing.assert_array_equal(rows, before)


def test_the_share_of_mosaics_and_when_they_end() -> None:
    half = Mosaic(0.5, epochs=3)
    drawn = [half.drawn(key(index, epoch), epoch) for index in range(500) for epoch in range(3)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)
    assert not any(half.drawn(key(index, 3), 3) for index in range(500))
    assert all(Mosaic().drawn(key(index, 50), 50) for index in range(50))
    assert not any(Mosaic(0.0).drawn(key(index), 0) for index in range(50))


@pytest.mark.parametrize("count", [1, 7, 10**6])
def test_all_pictures_are_drawn_alike(count: int) -> None:
    several = np.array([Mosaic().others(key(index), count) for index in range(700)])
    assert several.shape == (700, 3)
    assert several.min() >= 0
    assert several.max() < count
    for part in several.T:
        assert np.histogram(part, min(count, 7), (0, count))[0].min() > 70
    if count > 7:
        assert len(np.unique(several)) > 2090


def test_a_very_thin_picture_stays_as_it_is() -> None:
    thin = torch.zeros(3, 2, 500, dtype=torch.uint8), objects([[0, 0, 9, 2]], [0])
    pixels, rows = Mosaic()([thin, *four()[1:]], 0)
    assert torch.equal(pixels, thin[0])
    np.testing.assert_array_equal(rows, thin[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": 1.5}, r"probability must be from 0 to 1, got 1\.5"),
        ({"scale": (1.0, 0.5)}, r"scale must be two rising factors above 0, got \[1\.0, 0\.5\]"),
        ({"scale": (0.0, 0.5)}, "scale must be two rising factors above 0"),
        ({"scale": (0.5, 1.0, 2.0)}, "scale must be two"),
        ({"epochs": -1}, "epochs must be at least 0, got -1"),
        ({"fill": -1}, "fill must be a pixel's value from 0 to 255, got -1"),
    ],
)
def test_a_mosaic_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mosaic(**arguments)


def test_a_mosaic_needs_four_pictures() -> None:
    with pytest.raises(ValueError, match="a mosaic needs 4 pictures, got 3"):
        Mosaic()(four()[:3], 0)
