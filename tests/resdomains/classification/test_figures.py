from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from resdomains.classification import Labels, figures


def texts(figure: Figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [
        label.get_text() for axes in figure.axes for label in (*axes.get_yticklabels(), axes.title)
    ]
    return "\n".join(found + ([figure.get_suptitle()] if figure.get_suptitle() else []))


def is_drawn(figure: Figure, path: Path) -> bool:
    figure.savefig(path)
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("L")))) > 10


def test_the_confusion_matrix_shows_every_count(tmp_path: Path) -> None:
    counts = torch.tensor([[90, 7, 3], [0, 1234, 1], [5, 0, 45]])
    figure = figures.confusion(
        counts, ["a cat", "a dog", "a name that is far too long"], "test: 97 %"
    )
    shown = texts(figure).split("\n")
    assert {"90", "7", "3", "1,234", "1", "5", "45"} <= set(shown)
    assert "a name that is …" in shown
    assert "test: 97 %" in texts(figure)
    assert is_drawn(figure, tmp_path / "a.png")


def test_many_classes_show_the_pairs_confused_most(tmp_path: Path) -> None:
    counts = torch.eye(50, dtype=torch.long) * 10
    counts[3, 7], counts[20, 4] = 6, 2
    shown = texts(figures.confusion(counts, [f"k{i}" for i in range(50)], "t"))
    assert "k3 → k7" in shown
    assert " 6 of 16" in shown
    assert shown.count("→") == 2
    assert is_drawn(
        figures.confusion(torch.eye(50).long(), [f"k{i}" for i in range(50)], "t"),
        tmp_path / "a.png",
    )


def test_reliability_states_the_error_and_marks_bins_with_few(tmp_path: Path) -> None:
    sums = torch.zeros(3, 15)
    sums[:, 14] = torch.tensor([100.0, 97.0, 80.0])
    sums[:, 5] = torch.tensor([4.0, 1.5, 2.0])
    figure = figures.reliability(sums, 0.163, "t")
    assert "Calibration error 0.163" in texts(figure)
    assert "hollow: fewer than 10" in texts(figure)
    sums[:, 5] = 0
    assert "hollow" not in texts(figures.reliability(sums, 0.163, "t"))
    assert is_drawn(figure, tmp_path / "a.png")


def test_average_precision_shows_every_label_and_what_chance_gives(tmp_path: Path) -> None:
    spec = Labels(classes=["red", "green", "blue"], multilabel=True, prevalence=[0.1, 0.2, 0.3])
    figure = figures.average_precision(torch.tensor([0.5, float("nan"), 0.9]), spec, "t")
    assert "no sample has it" in texts(figure)
    assert texts(figure).index("blue") < texts(figure).index("red") < texts(figure).index("green")
    assert is_drawn(figure, tmp_path / "a.png")


def test_no_global_state_of_pyplot_is_used() -> None:
    figures.confusion(torch.eye(3).long(), ["a", "b", "c"], "t")
    assert pyplot.get_fignums() == []
