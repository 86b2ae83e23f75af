import pytest
import torch

from resdomains_tasks.image_classification.spec import ImageSpec, denormalise, normalise

from .support import small_spec


def test_a_spec_survives_its_plain_form() -> None:
    spec = small_spec(crop_pct=0.9)
    assert ImageSpec.of(spec.plain()) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(colour\), got 4"),
        ({"height": 0}, "height and width must be at least 1, got 0 and 8"),
        ({"mean": [0.5]}, "mean needs 3 finite numbers"),
        ({"std": [1.0, float("nan"), 1.0]}, "std needs 3 finite numbers"),
        ({"std": [0.0, 1.0, 1.0]}, "std must be positive in every channel"),
        ({"classes": ["one"]}, "classes must name at least 2"),
        ({"classes": ["a", "b", "a"]}, "occur twice: a"),
        ({"crop_pct": 0.0}, r"crop_pct is a share and must lie in \(0, 1\], got 0"),
        (
            {"interpolation": "nearest"},
            "interpolation must be one of bilinear, bicubic, got 'nearest'",
        ),
        ({"multilabel": True}, "prevalence needs 3 shares"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_spec(**changes)


def test_foreign_specs_are_refused_by_key() -> None:
    with pytest.raises(
        ValueError,
        match="lacks channels, classes, height, mean, std, width; it has the unknown vocab",
    ):
        ImageSpec.of({"vocabulary": ["a"]})


def test_normalising_is_the_formula_and_can_be_undone() -> None:
    spec = small_spec(mean=[0.1, 0.2, 0.3], std=[0.5, 1.0, 2.0])
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
    normalise(pixels, small_spec())
    assert (pixels == 128).all()
