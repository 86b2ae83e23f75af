"""What a linear model reaches on texts: TF-IDF and logistic regression, tuned on validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import FeatureUnion, make_union

Split = tuple[Sequence[str], Sequence[str]]
"""Texts and their class names."""

INVERSE_PENALTIES = (1.0, 3.0, 10.0, 30.0)
"""The values of C that are tried."""


@dataclass(frozen=True)
class Baseline:
    """A tuned linear model's figures.

    Attributes:
        val_accuracy: On validation, of the choice.
        accuracy: On test.
        f1: Of the positive class on test; None if none was named.
        chosen: What validation chose.
    """

    val_accuracy: float
    accuracy: float
    f1: float | None
    chosen: str


def words(train: Split, val: Split, test: Split, positive: str | None = None) -> Baseline:
    """Tune TF-IDF of words, or of words and pairs of words, with logistic regression.

    Args:
        train: What is learned from.
        val: What n-grams, damped counts (1 + log) and penalty are chosen on, by accuracy; earlier ones among equals.
        test: What the choice is measured on, once.
        positive: The class whose F1 is measured.
    """
    return _tune(train, val, test, positive, _words)


def words_and_characters(
    train: Split, val: Split, test: Split, positive: str | None = None
) -> Baseline:
    """Tune TF-IDF of words and of 2 to 5 characters within words, side by side, with logistic regression.

    Args:
        train: What is learned from.
        val: What words' n-grams, damped counts (1 + log) and penalty are chosen on.
        test: What the choice is measured on, once.
        positive: The class whose F1 is measured.
    """

    def both(longest: int, damped: bool) -> FeatureUnion:
        characters = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=damped, min_df=2
        )
        return make_union(_words(longest, damped), characters)

    return _tune(train, val, test, positive, both)


def _words(longest: int, damped: bool) -> TfidfVectorizer:
    return TfidfVectorizer(ngram_range=(1, longest), sublinear_tf=damped)


def _tune(
    train: Split,
    val: Split,
    test: Split,
    positive: str | None,
    build: Callable[[int, bool], Any],
) -> Baseline:
    best: tuple[float, Any, Any, str] | None = None
    for longest, damped in product((1, 2), (True, False)):
        features = build(longest, damped)
        of_train = features.fit_transform(train[0])
        of_val, of_test = features.transform(val[0]), features.transform(test[0])
        for penalty in INVERSE_PENALTIES:
            model = LogisticRegression(C=penalty, max_iter=1000).fit(of_train, train[1])
            score = float(accuracy_score(val[1], model.predict(of_val)))
            if best is None or score > best[0]:
                said = (
                    f"1 to {longest} words, {'damped' if damped else 'raw'} counts, C {penalty:g}"
                )
                best = (score, model, of_test, said)
    assert best is not None
    score, model, of_test, said = best
    predicted = model.predict(of_test)
    return Baseline(
        val_accuracy=score,
        accuracy=float(accuracy_score(test[1], predicted)),
        f1=None if positive is None else float(f1_score(test[1], predicted, pos_label=positive)),
        chosen=said,
    )
