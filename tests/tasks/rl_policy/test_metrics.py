"""Metrics of episodes: what they are, and that neither batches nor processes matter."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from resdomains.training.task import computed
from resdomains_tasks.rl_policy.metrics import (
    COLUMNS,
    EpisodeMetrics,
    OtherReturns,
    build_metrics,
    examples,
    tables,
    typical,
)
from tests.tasks.rl_policy.played import some


def results(scale: float = 1.0) -> dict[str, Tensor]:
    metric = EpisodeMetrics(0.5)
    metric.update(range(5), some(), scale)
    return metric.compute()


def test_results_are_those_of_the_returns() -> None:
    returns = np.array([4.0, -2.0, 10.0, 4.0, 0.0])
    found = results()
    assert float(found["return"]) == pytest.approx(returns.mean())
    assert float(found["return_iqm"]) == pytest.approx((0 + 4 + 4) / 3)
    assert float(found["return_std"]) == pytest.approx(returns.std())
    assert float(found["length"]) == pytest.approx((1 + 2 + 3 + 2 + 1) / 5)


def test_the_best_and_the_worst_are_told_step_by_step() -> None:
    found = results()
    # G of the best: 2.5; 2.5 + 0.5 * 2.5; 5 + 0.5 * 3.75. The worst goes on with a value of 2.
    assert found["best"].tolist() == [[5, 1, 6.875], [2.5, 1, 3.75], [2.5, 1, 2.5]]
    assert found["worst"].tolist() == [[-1, 1, -1], [-1, 1, 0]]
    scaled = results(scale=2.0)
    assert scaled["best"].tolist() == [[5, 1, 13.75], [2.5, 1, 7.5], [2.5, 1, 5]]
    assert scaled["return"] == found["return"], "a return stays in the environment's units"


def test_neither_batches_nor_processes_nor_repetitions_matter() -> None:
    episodes, whole = some(), results()
    first, second = EpisodeMetrics(0.5), EpisodeMetrics(0.5)
    first.update([4, 1], [episodes[4], episodes[1]])
    first.update([2], [episodes[2]])
    second.update([3, 0, 1], [episodes[3], episodes[0], episodes[1]])
    first.merge_state(second)
    merged = first.compute()
    assert list(merged) == list(whole)
    for name, value in whole.items():
        assert torch.equal(merged[name], value), name


def test_without_episodes_nothing_is_defined() -> None:
    metric = EpisodeMetrics(0.5)
    for _ in range(2):
        metric.update([], [])
        found = metric.compute()
        assert all(math.isnan(found[name]) for name in ("return", "return_iqm", "length"))
        assert found["episodes"].shape == (0, len(COLUMNS))
        assert metric.kept("episodes").dtype == torch.float64
        metric.reset()


def test_the_other_way_is_a_result_only_where_it_was_played() -> None:
    metrics = build_metrics(0.5, "sampled")
    episodes, other = metrics["episodes"], metrics["other"]
    assert isinstance(episodes, EpisodeMetrics)
    assert isinstance(other, OtherReturns)
    episodes.update(range(5), some())
    other.update([], [])
    assert math.isnan(computed(metrics)["return_sampled"])
    other.update([0, 1], some()[:2])
    other.update([1], some()[1:2])
    assert float(computed(metrics)["return_sampled"]) == 1.0
    assert float(computed(metrics)["return"]) == pytest.approx(3.2)


def test_the_table_holds_all_episodes_the_worst_first() -> None:
    rows = tables(results())["episodes"]
    assert [row["seed"] for row in rows] == [11, 14, 10, 13, 12]
    assert rows[0] == {
        "seed": 11,
        "return": -2.0,
        "length": 2,
        "end": "truncated",
        "value_loss": pytest.approx((2**2 + 1**2) / 2),
    }
    assert [row["end"] for row in rows] == [
        "truncated",
        "terminated",
        "terminated",
        "cut",
        "terminated",
    ]
    assert all(type(row["seed"]) is int for row in rows)


def test_a_typical_episode_is_that_of_the_median() -> None:
    assert typical(results())["seed"] == 10
    metric = EpisodeMetrics(0.5)
    metric.update(range(2), some()[1:3])
    assert typical(metric.compute())["seed"] == 11


def test_examples_are_the_worst_the_typical_and_the_best() -> None:
    assert examples(results()) == [
        "seed 11: return -2 in 2 steps, truncated",
        "seed 10: return 4 in 1 step, terminated",
        "seed 12: return 10 in 3 steps, terminated",
    ]
    metric = EpisodeMetrics(0.5)
    metric.update([], [])
    assert examples(metric.compute()) == []
    metric.update([0], some()[:1])
    assert examples(metric.compute()) == ["seed 10: return 4 in 1 step, terminated"]
