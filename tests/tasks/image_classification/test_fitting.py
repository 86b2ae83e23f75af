"""A picture of any size is made to fit as torchvision would."""

import pytest
import torch
from torch import Tensor

from resdomains.vision import resize
from resdomains_tasks.image_classification import fitting
from resdomains_tasks.image_classification.fitting import fit

from .support import small_spec


def test_a_picture_that_fits_stays_as_it_is() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    assert torch.equal(fit(image, small_spec()), image)


def half_white(height: int, width: int) -> Tensor:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, :, width // 2 :] = 255
    return image


@pytest.mark.parametrize(
    ("height", "width"), [(8, 30), (30, 8), (100, 37), (3, 5), (1, 1), (1, 40_000), (40_000, 1)]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_any_shape_is_made_to_fit(height: int, width: int, interpolation: str) -> None:
    spec = small_spec(height=16, width=12, crop_pct=0.875, interpolation=interpolation)
    assert fit(half_white(height, width), spec).shape == (3, 16, 12)


def test_a_strip_is_not_blown_up_to_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
        sizes.append(height * width)
        return resize(image, height, width, interpolation)

    monkeypatch.setattr(fitting, "resize", watched)
    for height, width in ((1, 40_000), (40_000, 1), (100, 130)):
        fit(half_white(height, width), small_spec(height=16, width=16))
    assert max(sizes) <= 16 * 16 * 6


def test_fitting_is_torchvisions_resize_and_centre_crop() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    spec = small_spec(height=56, width=56, crop_pct=0.875)
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 131, 97), generator=generator, dtype=torch.uint8)
    reference = transforms.Compose(
        [transforms.Resize(64, antialias=True), transforms.CenterCrop(56)]
    )(image)
    assert (fit(image, spec).int() - reference.int()).abs().max() <= 1


def test_the_middle_is_kept() -> None:
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, :, 20:60] = 255
    assert (fit(image, small_spec()) > 200).all()
