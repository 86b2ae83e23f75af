"""What is drawn where."""

import math

import pytest
import torch
from torch import Tensor

from resdomains_tasks.object_detection.drawing import (
    colour_of,
    contact_sheet,
    draw,
    enlargement,
    side_by_side,
)
from resdomains_tasks.object_detection.fcos import Found

CLASSES = [f"class {i}" for i in range(80)]
NO_BOXES = torch.empty(0, 4)
NO_LABELS = torch.empty(0, dtype=torch.long)


def grey(height: int, width: int, channels: int = 3) -> Tensor:
    return torch.full((channels, height, width), 200, dtype=torch.uint8)


def where(drawn: Tensor, label: int) -> Tensor:
    """Return (H, W), the pixels that have a class's colour."""
    return (drawn == torch.tensor(colour_of(label), dtype=torch.uint8)[:, None, None]).all(0)


def span(mask: Tensor) -> list[int]:
    """Return the first column and row of a mask, and the last."""
    rows, columns = mask.nonzero(as_tuple=True)
    return [int(x) for x in (columns.min(), rows.min(), columns.max(), rows.max())]


@pytest.mark.parametrize("channels", [1, 3])
def test_without_boxes_the_picture_stays_as_it_is(channels: int) -> None:
    picture = torch.randint(0, 256, (channels, 500, 490), dtype=torch.uint8)
    drawn = draw(picture, NO_BOXES, NO_LABELS, None, CLASSES)
    assert torch.equal(drawn, picture.expand(3, -1, -1))


def test_a_box_touches_the_pixels_that_it_spans_and_no_others() -> None:
    drawn = draw(
        grey(600, 600),
        torch.tensor([[100.0, 200.0, 400.0, 500.0]]),
        NO_LABELS.new_zeros(1),
        None,
        ["a"],
    )
    mask = where(drawn, 0)
    label = mask.clone()
    label[200:] = False
    mask &= ~label
    assert span(mask) == [100, 200, 399, 499]
    assert not mask[210:490, 110:390].any()
    assert label.any()


@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((64, 64), 8),
        ((64, 48), 8),
        ((300, 200), 2),
        ((480, 640), 1),
        ((100, 4000), 1),
        ((1, 1), 16),
    ],
)
def test_small_pictures_are_enlarged_by_a_whole_factor(size: tuple[int, int], factor: int) -> None:
    assert enlargement(*size) == factor
    picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    drawn = draw(picture, NO_BOXES, NO_LABELS, None, CLASSES)
    assert drawn.shape == (3, size[0] * factor, size[1] * factor)
    assert torch.equal(drawn[:, ::factor, ::factor], picture)
    box = torch.tensor([[0.0, 0.0, size[1], size[0]]])
    whole = draw(picture, box, NO_LABELS.new_zeros(1), None, CLASSES)
    assert span(where(whole, 0))[2:] == [size[1] * factor - 1, size[0] * factor - 1]


def test_boxes_beyond_the_picture_inverted_and_not_finite_do_not_fail() -> None:
    boxes = torch.tensor(
        [
            [-50.0, -50.0, 900.0, 900.0],
            [60.0, 60.0, 20.0, 20.0],
            [math.nan, 0, math.inf, 9],
            [700, 700, 800, 800.0],
        ]
    )
    drawn = draw(grey(600, 600), boxes, torch.arange(4), torch.rand(4), CLASSES)
    assert all(where(drawn, label).any() for label in range(4))


@pytest.mark.parametrize("corner", [(0, 0), (500, 0), (0, 500), (500, 500), (560, 300)])
def test_a_name_stays_in_the_picture(corner: tuple[int, int]) -> None:
    """The area of the name is as large wherever the box is."""
    x, y = corner

    def filled(x: int, y: int) -> int:
        box = torch.tensor([[x, y, x + 40, y + 100]]).float()
        return int(where(draw(grey(600, 600), box, NO_LABELS.new_zeros(1), None, CLASSES), 0).sum())

    assert filled(x, y) == pytest.approx(filled(200, 200), rel=0.12)


def test_names_do_not_hide_each_other() -> None:
    """Of equal boxes with room around, all names can be seen: one leaves what was written before as it is."""
    box = torch.tensor([[100.0, 100.0, 500.0, 200.0]])
    before = draw(grey(600, 600), box, torch.tensor([0]), torch.tensor([0.9]), CLASSES)
    label = where(before, 0)
    label[100:] = False
    both = draw(
        grey(600, 600), box.repeat(2, 1), torch.tensor([0, 1]), torch.tensor([0.9, 0.4]), CLASSES
    )
    assert torch.equal(both[:, label], before[:, label])
    assert where(both, 1).sum() > 200


def test_what_is_surest_is_drawn_on_top() -> None:
    boxes = torch.tensor([[100.0, 100.0, 500.0, 500.0]] * 2)
    drawn = draw(grey(600, 600), boxes, torch.tensor([0, 1]), torch.tensor([0.3, 0.9]), CLASSES)
    assert where(drawn, 1)[499, 100:500].all()
    assert not where(drawn, 0)[499].any()


def test_where_there_is_no_room_only_the_colour_tells_the_class() -> None:
    boxes = torch.rand(3000, 4) * 300
    boxes[:, 2:] += boxes[:, :2]
    drawn = draw(grey(600, 600), boxes, torch.arange(3000) % 80, torch.rand(3000), CLASSES)
    assert drawn.shape == (3, 600, 600)


def test_names_of_any_letters_are_drawn() -> None:
    box = torch.tensor([[100.0, 100.0, 500.0, 500.0]])
    for name in ("日本", "a\nb", "$x$", "", "Ä" * 100):
        assert where(draw(grey(600, 600), box, NO_LABELS.new_zeros(1), None, [name]), 0).any()


def test_colours_of_classes_differ_and_stay() -> None:
    colours = torch.tensor([colour_of(i) for i in range(80)]).float()
    apart = torch.cdist(colours, colours) + 1e3 * torch.eye(80)
    assert apart.min() > 45
    assert apart[:20, :20].min() > 80
    assert colour_of(0) == (255, 0, 0)
    assert colour_of(1000) == colour_of(0)


@pytest.mark.parametrize(("size", "shape"), [((480, 640), "beside"), ((100, 4000), "above")])
def test_truth_and_what_was_found_stand_side_by_side(size: tuple[int, int], shape: str) -> None:
    height, width = size
    boxes = torch.tensor([[10.0, 40.0, 60.0, 80.0], [100.0, 40.0, 160.0, 80.0]])
    truth = Found(boxes, torch.ones(2), torch.tensor([0, 1]))
    found = Found(boxes[:1], torch.tensor([0.5]), torch.tensor([2]))
    both = side_by_side(grey(*size), truth, found, CLASSES)
    if shape == "beside":
        band = both.shape[1] - height
        left, right = both[:, band:, :width], both[:, band:, -width:]
    else:
        assert both.shape[2] == width
        band = both.shape[1] // 2 - height
        left, right = both[:, band : band + height], both[:, -height:]
    assert 10 < band < 60
    assert torch.equal(left, draw(grey(*size), boxes, truth.labels, None, CLASSES))
    assert torch.equal(right, draw(grey(*size), found.boxes, found.labels, found.scores, CLASSES))
    assert (both[:, :band] < 100).any()  # a heading


def test_a_sheet_shows_every_picture_and_shrinks_large_ones() -> None:
    pictures = [torch.full((3, 40 + 10 * i, 60), 20 * i, dtype=torch.uint8) for i in range(5)]
    sheet = contact_sheet(pictures)
    for i, picture in enumerate(pictures):
        assert int((sheet == 20 * i).all(0).sum()) == picture[0].numel()
    large = contact_sheet([torch.zeros(3, 100, 4000, dtype=torch.uint8)])
    assert large.shape == (3, 16 + 16, 640 + 16)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"picture must be \(1 or 3, H, W\) uint8, got \(2, 9, 9\)"
    ):
        draw(grey(9, 9, 2), NO_BOXES, NO_LABELS, None, CLASSES)
    with pytest.raises(ValueError, match=r"got \(3, 9, 9\) torch\.float32"):
        draw(grey(9, 9).float(), NO_BOXES, NO_LABELS, None, CLASSES)
    with pytest.raises(ValueError, match="pictures must be at least one, got none"):
        contact_sheet([])
