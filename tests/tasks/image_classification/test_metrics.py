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

from resdomains_tasks.image_classification.metrics import (
    AveragePrecision,
    CalibrationError,
    Confusion,
    MacroF1,
    MeanAveragePrecision,
    Mistakes,
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


def test_mistakes_are_the_wrong_answers_of_highest_confidence() -> None:
    probabilities, targets = answers()
    images = torch.rand(400, 1, 4, 4)
    rows = result(Mistakes(1, 4, 4, keep=6), probabilities, targets, images, torch.arange(400))
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != targets).nonzero()[:, 0]
    best = wrong[confidence[wrong].argsort(descending=True)][:6]
    assert rows[:, 3].long().tolist() == best.tolist()
    assert torch.equal(rows[:, 0], confidence[best])
    assert torch.equal(rows[:, 1:3].long(), torch.stack((targets[best], predicted[best]), 1))
    assert torch.equal(rows[:, 4:], images[best].flatten(1))


def test_without_mistakes_there_are_no_rows_and_large_pictures_are_shrunk() -> None:
    metric = Mistakes(3, 300, 150, keep=4)
    assert metric.shape == (3, 96, 48)
    certain, targets = torch.eye(3), torch.arange(3)
    metric.update(certain, targets, torch.rand(3, 3, 300, 150), targets)
    assert len(metric.compute()) == 0
    metric.update(certain, targets.roll(1), torch.rand(3, 3, 300, 150), targets)
    assert metric.compute().shape == (3, 4 + 3 * 96 * 48)


def test_mistakes_of_processes_arrive_stacked() -> None:
    """torchmetrics stacks a tensor state of equal shape from all processes, whatever its reduction."""
    inputs = (*answers(), torch.rand(400, 1, 2, 2), torch.arange(400))
    parts = [updated(Mistakes(1, 2, 2, keep=5), *(x[i::2] for x in inputs)) for i in (0, 1)]
    together = updated(Mistakes(1, 2, 2, keep=5), *(x[:1] for x in inputs))
    together.rows = torch.stack([part.rows for part in parts if isinstance(part.rows, Tensor)])
    assert torch.equal(together.compute(), result(Mistakes(1, 2, 2, keep=5), *inputs))


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: TopK(2), answers()),
        (lambda: Confusion(CLASSES), answers()),
        (CalibrationError, answers()),
        (lambda: AveragePrecision(CLASSES), labelled()),
        (lambda: MacroF1(CLASSES), labelled()),
        (
            lambda: Mistakes(1, 2, 2, keep=5),
            (*answers(), torch.rand(400, 1, 2, 2), torch.arange(400)),
        ),
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
