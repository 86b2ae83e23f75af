"""Metrics against scikit-learn and against their formulas."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    top_k_accuracy_score,
)
from torch import Tensor
from torchmetrics import Metric

from resdomains.classification import (
    AveragePrecision,
    CalibrationError,
    Confusion,
    MacroF1,
    MeanAveragePrecision,
    Reliability,
    TopK,
)

CLASSES = 7


def answers(count: int = 400) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, CLASSES, (count,), generator=generator)
    logits = torch.randn(count, CLASSES, generator=generator)
    logits[torch.arange(count), targets] += 1.5
    return logits.softmax(1), targets


def labelled(count: int = 300) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(count, CLASSES, generator=generator) < 0.3).float()
    noise = torch.rand(count, CLASSES, generator=generator)
    # Rounded, so that many probabilities are equal.
    return ((noise + labels * 0.4) / 1.4 * 20).round() / 20, labels


def updated(metric: Metric, *inputs: Tensor) -> Metric:
    for part in zip(*(torch.split(tensor, 57) for tensor in inputs), strict=True):
        metric.update(*part)
    return metric


def result(metric: Metric, *inputs: Tensor) -> Tensor:
    value: Tensor = updated(metric, *inputs).compute()
    return value


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_equals_scikit_learns(k: int) -> None:
    probabilities, targets = answers()
    expected = top_k_accuracy_score(targets, probabilities, k=k, labels=range(CLASSES))
    assert float(result(TopK(k), probabilities, targets)) == pytest.approx(expected)


def test_confusion_equals_scikit_learns() -> None:
    probabilities, targets = answers()
    expected = confusion_matrix(targets, probabilities.argmax(1))
    assert np.array_equal(result(Confusion(CLASSES), probabilities, targets).numpy(), expected)


def test_calibration_error_is_its_formula() -> None:
    probabilities, targets = answers()
    confidence, predicted = (x.numpy() for x in probabilities.max(1))
    right = predicted == targets.numpy()
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert float(result(CalibrationError(), probabilities, targets)) == pytest.approx(
        expected, abs=1e-6
    )


def test_certainty_that_is_always_right_is_calibrated() -> None:
    targets = torch.arange(CLASSES)
    assert float(result(CalibrationError(), torch.eye(CLASSES), targets)) == 0
    assert float(result(CalibrationError(), torch.eye(CLASSES), targets.roll(1))) == 1


def test_reliability_counts_every_sample_once() -> None:
    probabilities, targets = answers()
    count, confidence, correct = result(Reliability(), probabilities, targets)
    assert int(count.sum()) == 400
    assert float(confidence.sum()) == pytest.approx(
        float(probabilities.max(1).values.sum()), rel=1e-6
    )
    assert int(correct.sum()) == int((probabilities.argmax(1) == targets).sum())


def test_average_precision_equals_scikit_learns_with_equal_probabilities() -> None:
    probabilities, labels = labelled()
    expected = [average_precision_score(labels[:, k], probabilities[:, k]) for k in range(CLASSES)]
    assert result(AveragePrecision(CLASSES), probabilities, labels).tolist() == pytest.approx(
        expected, abs=1e-6
    )
    assert float(result(MeanAveragePrecision(CLASSES), probabilities, labels)) == pytest.approx(
        np.mean(expected)
    )


def test_a_label_that_no_sample_has_is_left_out_of_the_mean() -> None:
    probabilities, labels = labelled()
    labels[:, 2] = 0
    each = result(AveragePrecision(CLASSES), probabilities, labels)
    assert each.isnan().tolist() == [k == 2 for k in range(CLASSES)]
    mean = result(MeanAveragePrecision(CLASSES), probabilities, labels)
    assert float(mean) == pytest.approx(float(each[~each.isnan()].mean()))


def test_macro_f1_equals_scikit_learns() -> None:
    probabilities, labels = labelled()
    expected = f1_score(labels, probabilities >= 0.5, average="macro", zero_division=0)
    assert float(result(MacroF1(CLASSES), probabilities, labels)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: TopK(2), answers()),
        (lambda: Confusion(CLASSES), answers()),
        (CalibrationError, answers()),
        (lambda: AveragePrecision(CLASSES), labelled()),
        (lambda: MacroF1(CLASSES), labelled()),
    ],
)
def test_processes_merged_equal_one(make: Callable[[], Metric], inputs: tuple[Tensor, ...]) -> None:
    """Merge the states of two metrics by torchmetrics' own rules, as its synchronisation does."""
    alone = result(make(), *inputs)
    first, second = (
        updated(make(), *(x[:150] for x in inputs)),
        updated(make(), *(x[150:] for x in inputs)),
    )
    first.merge_state(second)
    assert torch.allclose(first.compute(), alone)
