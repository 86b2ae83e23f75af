import pytest
import torch

from resdomains.vision import PictureSpec, denormalise, normalise


def grey_or_colour(**changes: object) -> PictureSpec:
    values: dict[str, object] = {"channels": 3, "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}
    return PictureSpec(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(colour\), got 4"),
        ({"mean": [0.5]}, "mean needs 3 finite numbers"),
        ({"std": [1.0, float("nan"), 1.0]}, "std needs 3 finite numbers"),
        ({"std": [0.0, 1.0, 1.0]}, "std must be positive in every channel"),
    ],
)
def test_pixels_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grey_or_colour(**changes).check_pixels()


def test_normalising_is_the_formula_and_can_be_undone() -> None:
    spec = grey_or_colour(mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0])
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    kept = pixels.clone()
    result = normalise(pixels, spec)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (spec.mean, spec.std))
    assert torch.allclose(result, (pixels.float() / 255 - mean) / std, atol=1e-6)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(denormalise(result, spec), pixels.float() / 255, atol=1e-6)
    assert torch.equal(pixels, kept)


def test_normalising_floats_leaves_the_input_alone() -> None:
    pixels = torch.full((2, 3, 8, 8), 128.0).contiguous(memory_format=torch.channels_last)
    normalise(pixels, grey_or_colour())
    assert (pixels == 128).all()
