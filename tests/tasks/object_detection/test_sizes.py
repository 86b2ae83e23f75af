"""A picture is scaled as a whole, as torchvision does, and a batch has whole positions at every level."""

import pytest
import torch

from resdomains_tasks.object_detection.sizes import Letterbox, ShorterSide, Size, size_of

SHAPES = [(480, 640), (1, 1), (3, 4000), (4000, 3), (1080, 1920), (97, 131)]


# Torchvision resizes a strip of 3 x 4000 to a height of 0 and fails.
@pytest.mark.parametrize(
    ("height", "width"), [s for s in SHAPES if s[0] / s[1] not in (3 / 4000, 4000 / 3)]
)
def test_the_shorter_side_decides_as_in_torchvision(height: int, width: int) -> None:
    transform = pytest.importorskip("torchvision.models.detection.transform")
    theirs = transform.GeneralizedRCNNTransform(200, 333, [0.0], [1.0])
    expected = theirs.resize(torch.zeros(1, height, width))[0].shape[-2:]
    found = ShorterSide(200, 333).scaled(height, width)
    assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("size", [ShorterSide(200, 333), Letterbox(224, 320)])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_a_scaled_picture_fits_its_canvas(size: Size, height: int, width: int) -> None:
    tall, wide = size.scaled(height, width)
    assert tall >= 1
    assert wide >= 1
    bottom, right = size.canvas(tall, wide)
    assert bottom >= tall
    assert right >= wide
    assert bottom % 32 == right % 32 == 0


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_every_letterbox_is_as_large(height: int, width: int) -> None:
    size = Letterbox(224, 320)
    assert size.canvas(*size.scaled(height, width)) == (224, 320)
    tall, wide = size.scaled(height, width)
    assert tall == 224 or wide == 320


@pytest.mark.parametrize("size", [ShorterSide(200, 333), Letterbox(224, 320)])
def test_a_size_survives_its_plain_form(size: Size) -> None:
    again = size_of(size.plain())
    assert type(again) is type(size)
    assert again.plain() == size.plain()


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="rising pixels from 1, got 800 and 600"):
        ShorterSide(800, 600)
    with pytest.raises(ValueError, match="multiples of 32, got 200 and 320; take 224 and 320"):
        Letterbox(200, 320)
    with pytest.raises(ValueError, match="shorter and longer, or height and width, got depth"):
        size_of({"depth": 3})
    with pytest.raises(ValueError, match="or height and width, got shorter, longer, more"):
        size_of({"shorter": 3, "longer": 4, "more": 5})
