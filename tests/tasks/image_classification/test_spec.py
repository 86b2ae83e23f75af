import pytest

from resdomains_tasks.image_classification.spec import ImageSpec

from .support import small_spec


def test_a_spec_survives_its_plain_form() -> None:
    spec = small_spec(crop_pct=0.9)
    assert ImageSpec.of(spec.plain()) == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height and width must be at least 1, got 0 and 8"),
        ({"mean": [0.5]}, "mean needs 3 finite numbers"),
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
