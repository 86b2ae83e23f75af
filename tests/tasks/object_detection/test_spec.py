import pytest

from resdomains_tasks.object_detection.spec import DetectionSpec

from .support import small_spec


def test_a_spec_survives_its_plain_form() -> None:
    spec = small_spec(category_ids=[7, 3])
    assert DetectionSpec.of(spec.plain()) == spec


def test_categories_count_from_one_unless_they_are_given() -> None:
    assert small_spec().category_ids == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 4}, r"channels must be 1 \(grey\) or 3 \(colour\), got 4"),
        ({"classes": []}, "classes must name at least one class"),
        ({"classes": ["a", "b", "a"]}, "occur twice: a"),
        ({"category_ids": [1, 1]}, r"category_ids needs 2 different numbers, one a class, got"),
        ({"size": {"height": 33, "width": 64}}, "multiples of 32, got 33 and 64"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_spec(**changes)
