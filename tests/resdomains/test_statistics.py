from typing import Any

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from resdomains.statistics import bootstrap_interval, interquartile_mean


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (5,), (10,), (5, 3), (1, 7)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    expected = stats.trim_mean(values, 0.25, axis=None)
    assert interquartile_mean(values) == pytest.approx(expected, rel=1e-12)


def test_the_interquartile_mean_does_not_see_the_outer_quarters() -> None:
    assert interquartile_mean([-1e9, 1.0, 3.0, 1e9]) == 2.0
    assert interquartile_mean([[1.0, -1e9], [1e9, 3.0]]) == 2.0


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(1).normal(size=30)
    found = bootstrap_interval(values, lambda x: float(x.mean()), 0.9, draws=5000)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=5000, method="percentile", rng=0
    ).confidence_interval
    # Both are Monte Carlo estimates: the standard error of such a quantile is some 0.006.
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(
            random.normal(size=30), lambda x: float(x.mean()), 0.8, draws=200, seed=seed
        )
        covered += low <= 0.0 <= high
    assert covered / 300 == pytest.approx(0.8, abs=0.08)  # three standard deviations


def test_runs_are_drawn_for_each_task_for_itself() -> None:
    # Two runs that are opposites: drawn as rows, a mean over tasks would be -1, 0 or 1 in equal measure; drawn for each
    # of the 64 tasks, it hardly leaves 0.
    values = np.concatenate((np.full((1, 64), -1.0), np.full((1, 64), 1.0)))
    low, high = bootstrap_interval(values, lambda x: float(x.mean()))
    assert -0.35 < low < -0.15
    assert 0.15 < high < 0.35
    # And within a task alone: tasks that differ do not widen it.
    steady = np.tile([0.0, 100.0], (5, 1))
    assert bootstrap_interval(steady, lambda x: float(x.mean())) == (50.0, 50.0)


def test_a_wider_confidence_holds_a_narrower_one() -> None:
    values = np.random.default_rng(3).normal(size=(10, 2))
    narrow, wide = (bootstrap_interval(values, confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < interquartile_mean(values) < narrow.high < wide.high
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interquartile_mean([]), r"at least one of each, got \(0,\)"),
        (lambda: interquartile_mean(np.zeros((2, 2, 2))), r"\(runs, tasks\)"),
        (lambda: interquartile_mean([1.0, np.nan]), "leave out the runs that failed"),
        (lambda: interquartile_mean([1.0, np.inf]), "values must be finite"),
        (lambda: bootstrap_interval([1.0], confidence=95), "got 95; 0.95 is usual"),
        (lambda: bootstrap_interval([1.0], draws=0), "draws must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
