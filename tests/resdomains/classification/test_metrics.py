"""Metrics against scikit-learn and against their formulas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_curve,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from torch import Tensor
from torchmetrics import Metric

from resdomains.classification import (
    AveragePrecision,
    CalibrationError,
    Confusion,
    F1AtThreshold,
    F1Curve,
    MacroF1,
    Matthews,
    MeanAveragePrecision,
    Mistakes,
    Outcomes,
    Reliability,
    Threshold,
    TopK,
    WrongLabels,
    best_threshold,
    f1_at,
    precision_recall_f1,
)
from tests.pairs import in_two_processes

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


def test_f1_of_exclusive_classes_equals_scikit_learns() -> None:
    probabilities, targets = answers()
    predicted = probabilities.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(targets, predicted)
    counts = result(Outcomes(CLASSES), probabilities, targets)
    assert np.allclose(precision_recall_f1(counts), [precision, recall, f1])
    assert (counts[0] + counts[2]).tolist() == support.tolist()
    expected = f1_score(targets, predicted, average="macro")
    assert float(result(MacroF1(CLASSES), probabilities, targets)) == pytest.approx(expected)


def test_a_class_that_is_nowhere_has_no_precision_recall_or_f1() -> None:
    counts = torch.tensor([[5, 0, 0], [1, 2, 0], [0, 3, 0]])
    assert precision_recall_f1(counts)[:, 1:].tolist() == [[0, 0]] * 3


def test_matthews_equals_scikit_learns() -> None:
    probabilities, targets = answers()
    expected = matthews_corrcoef(targets, probabilities.argmax(1))
    assert float(result(Matthews(CLASSES), probabilities, targets)) == pytest.approx(expected)


@pytest.mark.parametrize("shift", [0, 1])
def test_matthews_is_0_where_all_samples_are_of_one_class(shift: int) -> None:
    targets = torch.zeros(5, dtype=torch.long)
    assert float(result(Matthews(2), torch.eye(2)[targets + shift], targets)) == 0


def test_the_f1_curve_of_one_class_is_that_of_scikit_learns_precision_and_recall() -> None:
    probabilities, labels = (x[:, :1] for x in labelled())
    precision, recall, thresholds = precision_recall_curve(labels[:, 0], probabilities[:, 0])
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    curve = result(F1Curve(1), probabilities, labels)
    assert np.allclose(curve[0], thresholds[::-1])
    assert np.allclose(curve[1], f1[:-1][::-1])


def test_the_f1_curve_of_several_classes_is_macro_f1_at_every_threshold() -> None:
    probabilities, labels = labelled()
    curve = result(F1Curve(CLASSES), probabilities, labels)
    assert curve[0].tolist() == sorted(set(probabilities.double().flatten().tolist()), reverse=True)
    for threshold, found in curve.T.tolist():
        said = probabilities.double() >= threshold
        expected = f1_score(labels, said, average="macro", zero_division=0)
        assert found == pytest.approx(expected, abs=1e-12)


def test_the_best_threshold_reaches_the_curves_highest_f1_with_room_on_both_sides() -> None:
    probabilities, labels = labelled()
    curve = result(F1Curve(CLASSES), probabilities, labels)
    best = best_threshold(curve)
    assert (probabilities - best).abs().min() > 0.01
    said = probabilities >= best
    expected = f1_score(labels, said, average="macro", zero_division=0)
    assert expected == pytest.approx(float(curve[1].max()))
    assert float(f1_at(curve, best)) == pytest.approx(expected)


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken() -> None:
    curve = torch.tensor([[0.9, 0.6, 0.4, 0.1], [0.8, 0.8, 0.2, 0.8]], dtype=torch.float64)
    assert float(best_threshold(curve)) == pytest.approx(0.5)


def test_between_neighbouring_numbers_the_threshold_keeps_them_apart() -> None:
    low = torch.tensor(0.7)
    for _ in range(2):  # what lies halfway is rounded up and down in turn
        high = torch.nextafter(low, torch.tensor(1.0))
        probabilities, labels = torch.stack((high, low))[:, None], torch.tensor([[1.0], [0.0]])
        best = best_threshold(result(F1Curve(1), probabilities, labels))
        assert (probabilities >= best)[:, 0].tolist() == [True, False]
        low = high


def test_a_threshold_above_all_probabilities_names_nothing() -> None:
    curve = result(F1Curve(CLASSES), *labelled())
    assert float(f1_at(curve, torch.tensor(1.1))) == 0


def test_a_fixed_threshold_is_used_in_place_of_the_best() -> None:
    probabilities, labels = labelled()
    where, what = Threshold(CLASSES), F1AtThreshold(CLASSES)
    where.fixed = what.fixed = torch.tensor(0.77)
    assert float(result(where, probabilities, labels)) == pytest.approx(0.77)
    expected = f1_score(labels, probabilities >= 0.77, average="macro", zero_division=0)
    assert float(result(what, probabilities, labels)) == pytest.approx(expected)


def test_mistakes_are_the_wrong_answers_of_highest_confidence() -> None:
    probabilities, targets = answers()
    rows = result(Mistakes(6), probabilities, targets, torch.arange(400))
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != targets).nonzero()[:, 0]
    best = wrong[confidence[wrong].argsort(descending=True)][:6]
    assert rows[:, 3].long().tolist() == best.tolist()
    assert torch.equal(rows[:, 0].float(), confidence[best])
    assert torch.equal(rows[:, 1:3].long(), torch.stack((targets[best], predicted[best]), 1))


def test_wrong_labels_are_the_labels_furthest_from_the_truth() -> None:
    probabilities = torch.tensor([[0.9, 0.2], [0.6, 0.05], [0.4, 0.7]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    rows = result(WrongLabels(), probabilities, labels, torch.tensor([5, 7, 9]))
    assert rows[:, 1:].tolist() == [[1, 1, 7]]
    assert float(rows[0, 0]) == pytest.approx(0.95)


def test_sample_numbers_are_exact() -> None:
    rows = result(Mistakes(), torch.eye(2), torch.tensor([1, 0]), torch.tensor([2**24 + 1, 1]))
    assert sorted(rows[:, 3].tolist()) == [1, 2**24 + 1]


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda: TopK(2), answers()),
        (lambda: Confusion(CLASSES), answers()),
        (CalibrationError, answers()),
        (lambda: AveragePrecision(CLASSES), labelled()),
        (lambda: MacroF1(CLASSES), labelled()),
        (lambda: MacroF1(CLASSES), answers()),
        (lambda: Matthews(CLASSES), answers()),
        (lambda: F1Curve(CLASSES), labelled()),
        (lambda: Threshold(CLASSES), labelled()),
        (lambda: F1AtThreshold(CLASSES), labelled()),
        (lambda: Mistakes(5), (*answers(), torch.arange(400))),
        (lambda: WrongLabels(5), (*labelled(), torch.arange(300))),
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


def gathering() -> dict[str, Metric]:
    """The metrics whose states grow with the samples."""
    return {
        "each": AveragePrecision(CLASSES),
        "mean": MeanAveragePrecision(CLASSES),
        "curve": F1Curve(CLASSES),
        "threshold": Threshold(CLASSES),
        "f1": F1AtThreshold(CLASSES),
    }


SHARES = [
    (slice(0, 100), slice(100, 300)),
    (slice(0, 300), slice(0, 0)),
    (slice(0, 0), slice(0, 300)),
]
"""The samples of two processes; of the last ones one process has none."""


def work(rank: int) -> list[dict[str, Any]]:
    found = []
    metrics = gathering()
    for share in SHARES:
        own = [tensor[share[rank]] for tensor in labelled()]
        for metric in metrics.values():
            metric.reset()
            if len(own[0]):
                updated(metric, *own)
        found.append({name: metric.compute() for name, metric in metrics.items()})
    return found


@pytest.mark.slow
def test_two_processes_equal_one_though_one_sees_no_batch(tmp_path: Path) -> None:
    for rank in in_two_processes(work, tmp_path):
        for found in rank:
            for name, metric in gathering().items():
                assert torch.allclose(found[name], result(metric, *labelled())), name
