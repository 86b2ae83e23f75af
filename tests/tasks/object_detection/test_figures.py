from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from resdomains_tasks.object_detection import figures
from resdomains_tasks.object_detection.metrics import CLASS_COLUMNS
from tests.tasks.object_detection.detections import measured, random_pictures

RECALLS = torch.linspace(0, 1, 101)


def falling(classes: int) -> Tensor:
    """Precision curves of ever worse classes."""
    return torch.stack([1 - RECALLS * (k + 1) / classes for k in range(classes)], 1)


def legend(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def lines(figure: Figure) -> dict[str, list[float]]:
    """The drawn curves, by their names."""
    return {
        str(line.get_label()): np.asarray(line.get_ydata()).tolist()
        for line in figure.axes[0].lines
    }


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def table(classes: int) -> Tensor:
    """Rows of ever worse classes; the last one has no objects."""
    rows = torch.full((classes, len(CLASS_COLUMNS)), torch.nan)
    rows[:, CLASS_COLUMNS.index("objects")] = torch.arange(classes, 0, -1) - 1.0
    for column in ("ap", "ap50", "ap_small"):
        rows[:-1, CLASS_COLUMNS.index(column)] = torch.linspace(0.9, 0.1, classes - 1)
    return rows


@pytest.mark.parametrize("classes", [1, 3, 80])
def test_all_figures_of_a_split_are_drawn(classes: int, tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(classes)]
    results = measured(random_pictures(20, classes), classes)
    found = figures.drawn(results, names, "validation: AP $0.5$")
    assert list(found) == [
        "precision_recall",
        "f1_over_threshold",
        "confusion",
        "ap_by_class",
        "ap_by_size",
    ]
    for name, figure in found.items():
        figure.savefig(tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
        heading = figure.get_suptitle() or figure.axes[0].get_title()
        assert r"validation: AP \$0.5\$" in heading


def test_figures_of_a_split_without_objects_say_so(tmp_path: Path) -> None:
    pictures = [seen._replace(truth=seen.truth[:0]) for seen in random_pictures(5, 2)]
    found = figures.drawn(measured(pictures, 2), ["a", "b"], "test")
    for name in ("precision_recall", "f1_over_threshold", "ap_by_class"):
        assert "no object to find" in texts(found[name])
    for name, figure in found.items():
        figure.savefig(tmp_path / f"{name}.png")


def test_curves_of_few_classes_are_all_named_the_best_first() -> None:
    curves = falling(3)
    curves[:, 1] = torch.nan
    ap50 = curves.mean(0)
    figure = figures.precision_recall(curves, ap50, ["a", "b", "c"], "test")
    assert legend(figure) == [f"a: {ap50[0]:.3f}", f"c: {ap50[2]:.3f}", "mean: AP50 0.667"]
    drawn = lines(figure)
    assert drawn[f"a: {ap50[0]:.3f}"] == pytest.approx(curves[:, 0].tolist())
    assert drawn["mean: AP50 0.667"] == pytest.approx(curves[:, [0, 2]].mean(1).tolist())


def test_of_many_classes_the_best_and_the_worst_are_named() -> None:
    curves = falling(80) ** 2
    figure = figures.precision_recall(curves, curves.mean(0), [f"{k}." for k in range(80)], "test")
    named = [name.split(":")[0] for name in legend(figure)]
    assert named == [f"{k}." for k in (0, 1, 2, 3, 4, 75, 76, 77, 78, 79)] + ["mean"]
    assert len(figure.axes[0].lines) == 81
    mean = next(values for name, values in lines(figure).items() if name.startswith("mean"))
    assert mean == pytest.approx(curves.mean(1).tolist())


@pytest.mark.parametrize("best", [0.2, 0.9])
def test_the_best_threshold_is_marked_where_the_mean_is_highest(best: float) -> None:
    thresholds = torch.linspace(0, 1, 1001)
    curves = torch.stack([1 - (thresholds - best).abs(), 0.5 - (thresholds - best).abs() / 2], 1)
    figure = figures.f1_over_threshold(curves, best, 0.75, ["a", "b"], "test")
    assert texts(figure) == [f"best: score {best}, F1 0.750"]
    [mark] = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert (mark.get_xdata(), mark.get_ydata()) == ([best], [0.75])
    assert legend(figure) == ["a: 1.000", "b: 0.500", "mean"]
    assert max(lines(figure)["mean"]) == pytest.approx(0.75)


def test_the_confusion_matrix_has_the_background() -> None:
    results = measured(random_pictures(20, 3), 3)
    figure = figures.drawn(results, ["a", "b", "c"], "test")["confusion"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "b", "c", "background"]
    assert f"at IoU 0.5, at score {float(results['threshold']):.3g}" in figure.axes[0].get_title()


def test_bars_of_classes_are_their_average_precision() -> None:
    figure = figures.by_class(table(4), ["a", "b", "c", "d"], "test")
    [bars] = figure.axes[0].containers
    widths = [bar.get_width() for bar in bars]
    assert widths == pytest.approx([0.9, 0.5, 0.1, 0.0])
    assert texts(figure) == ["0.900  (3)", "0.500  (2)", "0.100  (1)", "no object to find"]
    many = figures.by_class(table(80), [f"{k}" for k in range(80)], "test")
    shown = [label.get_text() for label in many.axes[0].get_yticklabels()]
    assert shown == [str(k) for k in (*range(25), *range(55, 80))]
    assert "the best and the worst 25" in many.get_suptitle()


def test_bars_of_sizes_are_cocos_numbers() -> None:
    numbers = {"ap": 0.4, "ap_small": 0.2, "ap_medium": 0.5, "ap_large": torch.nan}
    numbers |= {"ar100": 0.5, "ar_small": 0.3, "ar_medium": 0.6, "ar_large": torch.nan}
    results = {name: torch.tensor(number) for name, number in numbers.items()}
    figure = figures.by_size(results, table(4), "test")
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels[1:] == [
        "below 32²\nAP 0.200\nAR 0.300",
        "32² to 96²\nAP 0.500\nAR 0.600",
        "above 96²\nAP none\nAR none",
    ]
    heights = [bar.get_height() for bar in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx([0.4, 0.2, 0.5, 0.0, 0.5, 0.3, 0.6, 0.0])
    dots = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].lines]
    assert [len(values) for values in dots] == [3, 3, 0, 0]
    assert dots[1] == pytest.approx([0.9, 0.5, 0.1])
