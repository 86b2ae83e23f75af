"""Figures of episodes say what they show, also of few and of equal episodes."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from resdomains_tasks.rl_policy.episodes import Episode
from resdomains_tasks.rl_policy.figures import drawn
from resdomains_tasks.rl_policy.metrics import EpisodeMetrics
from tests.tasks.rl_policy.played import some


def figures(
    episodes: list[Episode], random: float | None = None, reference: float | None = None
) -> dict[str, Figure]:
    metric = EpisodeMetrics(0.5)
    metric.update(range(len(episodes)), episodes)
    found = drawn(metric.compute(), "Cart $x$", random, reference)
    for figure in found.values():
        figure.savefig(io.BytesIO(), format="png", dpi=40)
    return found


def test_returns_stand_beside_random_and_reference() -> None:
    axes = figures(some(), random=-3.0, reference=20.0)["returns"].axes[0]
    marked = {line.get_label(): np.asarray(line.get_xdata())[0] for line in axes.lines[1:]}
    assert marked == {
        "mean: 3.2": pytest.approx(3.2),
        "interquartile mean: 2.6667": pytest.approx(8 / 3),
        "random actions: -3": -3.0,
        "reference (score 1): 20": 20.0,
    }
    (bars,) = axes.patches
    assert isinstance(bars, StepPatch)
    assert np.sum(bars.get_data()[0]) == 5
    low, high = axes.get_xlim()
    assert low < -3 < 20 < high
    unknown = figures(some())["returns"].axes[0]
    assert len(unknown.lines) == 3


def test_each_episode_is_a_point_by_how_it_ended() -> None:
    axes = figures(some())["lengths"].axes[0]
    points = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert points == {
        "ended by the environment's rules: 3": [[1, 4], [3, 10], [1, 0]],
        "ended by its time limit: 1": [[2, -2]],
        "cut by the evaluation: 1": [[2, 4]],
    }


def test_the_critic_stands_beside_what_came() -> None:
    upper, _, lower, other = figures(some())["best_and_worst"].axes
    assert upper.get_title() == "best episode: return 10 in 3 steps"
    assert np.asarray(upper.lines[0].get_ydata()).tolist() == [5, 2.5, 2.5]
    came, expected = (np.asarray(line.get_ydata()).tolist() for line in lower.lines)
    assert (came, expected) == ([6.875, 3.75, 2.5], [1, 1, 1])
    error = np.sqrt((2**2 + 1**2) / 2)
    assert other.get_title() == f"the critic is off by {error:.3g} (root mean square)"


def test_one_episode_equal_ones_and_none_are_drawn_too() -> None:
    one = figures(some()[:1])
    assert len(one["best_and_worst"].axes) == 2
    assert "1 episode," in one["returns"].get_suptitle()
    equal = figures([*some()[:1]] * 3)
    assert equal["returns"].get_suptitle().startswith("What episodes bring: 3")
    assert equal["best_and_worst"].axes[0].get_title() == "the first: return 4 in 1 step"
    assert figures([]) == {}
