"""Figures show the numbers of the runs."""

import numpy as np
import pytest

from resdomains.comparing import RecordedRun, figures, run_table, seed_table
from resdomains.comparing.figures import pareto_front
from tests.resdomains.comparing.recorded import record, rows


@pytest.fixture(scope="module")
def runs() -> list[RecordedRun]:
    return [
        record(
            f"{task}-{merge}-{depth}-{seed}",
            task=task,
            merge=merge,
            depth=depth,
            seed=seed,
            setup=f"{task}{merge}{depth}",
            rows=rows(9, best=best + 0.1 * seed),
        )
        for task, best in (("images", 0.6), ("texts", 0.4))
        for merge in ("Add", "BranchOnly")
        for depth in (8, 32)
        for seed in (0, 1)
    ]


def drawn(runs: list[RecordedRun]) -> dict[str, object]:
    table = run_table(runs)
    return dict(figures(runs, table, seed_table(table), y="train/loss"))


def test_each_figure_is_drawn_with_a_panel_for_each_domain(runs: list[RecordedRun]) -> None:
    found = drawn(runs)
    panels = {name: len(figure.axes) for name, figure in found.items()}  # type: ignore[attr-defined]
    assert panels == {
        "skill_over_compute": 1,
        "score_over_depth": 2,
        "cost_over_depth": 4,
        "residual_profile": 4,
        "lesions": 4,
        "score_over_cost": 4,
        "training_curves": 2,
    }


def test_lines_are_means_over_seeds(runs: list[RecordedRun]) -> None:
    depth = drawn(runs)["score_over_depth"]
    line = depth.axes[0].lines[0]  # type: ignore[attr-defined]
    assert list(line.get_xdata()) == [8, 32]
    assert np.allclose(line.get_ydata(), 0.65)
    skill = drawn(runs)["skill_over_compute"]
    [images, texts] = skill.axes[0].lines[:2]  # type: ignore[attr-defined]
    assert images.get_ydata()[-1] == pytest.approx(0.55)
    assert texts.get_ydata()[-1] == pytest.approx(0.35)


def test_training_scores_are_dashed_lines_of_their_own() -> None:
    trained = [
        record(
            f"{depth}-{seed}",
            depth=depth,
            seed=seed,
            setup=f"{depth}",
            rows=[*rows(9), {"step": 9, "train/score": 0.9 + 0.01 * seed}],
        )
        for depth in (8, 32)
        for seed in (0, 2)
    ]
    axes = drawn(trained)["score_over_depth"].axes[0]  # type: ignore[attr-defined]
    [dashed] = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert np.allclose(dashed.get_ydata(), 0.91)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Add", "Add, training"]


def test_merges_at_one_depth_are_compared_on_one_axis() -> None:
    kept = [
        record(
            f"{merge}{seed}", merge=merge, seed=seed, setup=merge, rows=rows(9, best=best + seed)
        )
        for merge, best in (("Add", 0.7), ("Highway", 0.5))
        for seed in (0, 0.2)
    ]
    [axes] = drawn(kept)["score_by_kind"].axes  # type: ignore[attr-defined]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Highway", "Add"]
    points = [container.lines[0] for container in axes.containers]
    found = [(*line.get_xdata(), *line.get_ydata()) for line in points]
    assert np.allclose([point for point in found if point[0] == point[0]], [(0.8, 1), (0.6, 0)])
    assert "score_over_depth" not in drawn(kept)


def test_setups_that_differ_in_memory_are_lines_of_their_own() -> None:
    kept = [
        record(f"{memory}-{depth}", depth=depth, memory=memory, setup=f"{memory}{depth}")
        for memory in ("Store", "Reverse")
        for depth in (8, 32)
    ]
    axes = drawn(kept)["cost_over_depth"].axes  # type: ignore[attr-defined]
    for one in axes:
        texts = [text.get_text() for text in one.get_legend().get_texts()]
        assert texts == ["Add, Reverse", "Add, Store"]
    # Of 101 to 105 samples a second.
    assert np.allclose(axes[1].containers[0].lines[0].get_ydata(), 1000 / 103)


def test_gradient_norms_are_relative_to_their_mean(runs: list[RecordedRun]) -> None:
    axes = drawn(runs)["residual_profile"].axes[0]  # type: ignore[attr-defined]
    assert np.allclose(axes.lines[0].get_ydata(), [4 / 3, 2 / 3])


def test_lesions_are_means_over_draws_and_seeds(runs: list[RecordedRun]) -> None:
    axes = drawn(runs)["lesions"].axes  # type: ignore[attr-defined]
    single, several = axes[0], axes[2]
    [line, *_] = single.lines
    assert list(line.get_xdata()) == [0.5, 1.0]
    assert np.allclose(line.get_ydata(), [0.2, 0.7])
    hollow = next(line for line in single.lines if line.get_markerfacecolor() == "white")
    assert list(hollow.get_xdata()) == [0.5]
    assert np.allclose(several.lines[0].get_ydata(), [0.7, 0.3])
    assert [line.get_ydata()[0] for line in several.lines if line.get_linestyle() == "--"] == [
        0.9
    ] * 4


def test_a_domain_that_was_validated_once_is_a_point() -> None:
    once = [{"step": 9, "progress/flops": 1e9, "val/score": 0.5, "val/skill": 0.4}]
    kept = [record(f"{seed}", seed=seed, rows=once) for seed in (0, 1)]
    axes = drawn(kept)["skill_over_compute"].axes[0]  # type: ignore[attr-defined]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in points] == [(1e9, 0.4)] * 2


def test_what_runs_do_not_have_is_not_drawn() -> None:
    one = record(rows=[{"step": 1, "train/loss": 1.0}])
    table = run_table([one])
    assert set(figures([one], table, seed_table(table))) <= {"residual_profile", "lesions"}


def test_the_front_holds_what_no_other_point_beats() -> None:
    cost, score = [1.0, 2.0, 3.0, 4.0], [0.5, 0.4, 0.9, 0.8]
    assert pareto_front(cost, score, more_is_better=False) == [(1.0, 0.5), (3.0, 0.9)]
    assert pareto_front(cost, score, more_is_better=True) == [(3.0, 0.9), (4.0, 0.8)]
    for place, value in zip(cost, score, strict=True):
        beaten = any(
            c <= place and s >= value for c, s in pareto_front(cost, score, more_is_better=False)
        )
        assert beaten
