import pytest

from resdomains.classification import Labels, ranking


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["a"]}, "at least 2 classes"),
        ({"classes": ["a", "b", "a"]}, "names occur twice: a"),
        ({"classes": ["a", "b"], "multilabel": True}, "prevalence needs 2 shares"),
        ({"classes": ["a", "b"], "prevalence": [1.0]}, "prevalence needs 2 shares"),
    ],
)
def test_classes_that_cannot_be_used_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels(**values).check_labels()  # type: ignore[arg-type]


def test_a_ranking_begins_with_the_most_probable_and_keeps_the_order_of_equals() -> None:
    found = ranking([0.2, 0.5, 0.2, 0.1], ["a", "b", "c", "d"], 3)
    assert found == [["b", 0.5], ["a", 0.2], ["c", 0.2]]
