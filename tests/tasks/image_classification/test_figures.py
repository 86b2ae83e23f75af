from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from resdomains_tasks.image_classification import figures


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 3, 16])
def test_mistakes_show_picture_truth_and_prediction(
    tmp_path: Path, channels: int, count: int
) -> None:
    rows = torch.cat(
        (torch.tensor([[0.91, 0, 2, 17]]).repeat(count, 1), torch.rand(count, channels * 6 * 5)), 1
    )
    figure = figures.mistakes(rows, (channels, 6, 5), ["cat", "dog", "owl"], "t")
    assert texts(figure).count("true: cat") == count
    assert texts(figure).count("owl  91%") == count
    assert "sample 17" in texts(figure)
    assert sum(len(axes.images) for axes in figure.axes) == count
    assert is_drawn(figure, tmp_path / "a.png")
