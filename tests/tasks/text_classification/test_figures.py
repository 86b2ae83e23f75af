from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from resdomains_tasks.text_classification import figures


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def size(figure: Figure, path: Path) -> tuple[int, int]:
    figure.savefig(path)
    with Image.open(path) as image:
        return image.size


def row(**changes: str) -> dict[str, str]:
    return {"predicted": "spam 99%", "true": "ham", "text": "hi", "source": "a.csv:3", **changes}


def test_a_table_shows_every_mistake_and_grows_with_them(tmp_path: Path) -> None:
    one = figures.mistakes([row()], "Wrong", "test: 97 % right")
    assert {"spam 99%", "ham", "hi", "a.csv:3"} <= set(words(one))
    assert "test: 97 % right" in one.get_suptitle()
    many = figures.mistakes([row(text="a word " * 500)] * 8, "Wrong", "t")
    assert size(many, tmp_path / "b.png")[1] > 3 * size(one, tmp_path / "a.png")[1]
    assert max(map(len, words(many))) < 110


@pytest.mark.parametrize(
    "text",
    ["", "$x$ and $5", "\x00\x07 control", "👍🏽 emoji", "שלום עולם", "体育新闻", "a" * 5000],
)
def test_any_text_can_be_drawn_without_a_warning(tmp_path: Path, text: str) -> None:
    figure = figures.mistakes([row(text=text, source=text[:200])], "Wrong", "t")
    assert size(figure, tmp_path / "a.png")[0] > 0


@pytest.mark.parametrize("count", [1, 50, 5000])
def test_predicted_is_drawn_against_true(tmp_path: Path, count: int) -> None:
    targets = torch.linspace(0, 10, count)
    figure = figures.predicted_against_true(torch.stack((targets + 1, targets)), "R² 0.8")
    assert "R² 0.8" in figure.get_suptitle()
    size(figure, tmp_path / "a.png")
    assert (len(figure.axes) == 2) == (count == 5000)  # with the density's scale
