"""Metrics of numbers against scikit-learn, torchmetrics and their definitions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torch import Tensor
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef

from resdomains_tasks.text_classification.metrics import (
    R2,
    LargestErrors,
    MeanAbsoluteError,
    Pairs,
    Pearson,
    RootMeanSquaredError,
    Spearman,
)


def numbers(count: int = 300) -> tuple[Tensor, Tensor]:
    """Predictions and targets far from 0, many of them equal."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 9, (count,), generator=generator) + 5000.0
    return (targets + torch.randn(count, generator=generator) * 2).round(), targets


def updated(metric: Pairs, predictions: Tensor, targets: Tensor) -> Pairs:
    for first in range(0, len(targets), 57):
        metric.update(predictions[first : first + 57], targets[first : first + 57])
    return metric


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (MeanAbsoluteError, lambda p, y: mean_absolute_error(y, p)),
        (RootMeanSquaredError, lambda p, y: mean_squared_error(y, p) ** 0.5),
        (R2, lambda p, y: r2_score(y, p)),
        (Pearson, lambda p, y: float(pearson_corrcoef(p, y))),
        (Spearman, lambda p, y: float(spearman_corrcoef(p, y))),
    ],
)
def test_each_equals_the_library_in_one_process_and_in_two(
    make: Callable[[], Pairs], expected: Callable[[Tensor, Tensor], float]
) -> None:
    predictions, targets = numbers()
    wanted = pytest.approx(expected(predictions.double(), targets.double()), rel=1e-6)
    assert float(updated(make(), predictions, targets).compute()) == wanted
    first = updated(make(), predictions[:100], targets[:100])
    first.merge_state(updated(make(), predictions[100:], targets[100:]))
    assert float(first.compute()) == wanted


def test_a_process_that_saw_no_batch_sends_numbers_of_the_others_type() -> None:
    metric = updated(MeanAbsoluteError(), *numbers(3))
    for _ in range(2):
        assert (metric.kept("predictions").dtype, metric.kept("targets").ndim) == (torch.double, 1)
        metric.reset()
    assert not len(metric.kept("predictions"))


@pytest.mark.parametrize("make", [R2, Pearson, Spearman])
def test_what_is_not_defined_for_equal_targets_is_0(make: Callable[[], Pairs]) -> None:
    metric = updated(make(), torch.arange(5.0), torch.full((5,), 3.0))
    assert float(metric.compute()) == 0


def test_the_largest_errors_come_first_with_their_sample() -> None:
    metric = LargestErrors(keep=2)
    metric.update(torch.tensor([1.0, 5.0]), torch.tensor([1.5, 2.0]), torch.tensor([7, 3]))
    other = LargestErrors(keep=2)
    other.update(torch.tensor([0.0]), torch.tensor([-1.0]), torch.tensor([9]))
    metric.merge_state(other)
    assert np.allclose(metric.compute(), [[3, 2, 5, 3], [1, -1, 0, 9]])
