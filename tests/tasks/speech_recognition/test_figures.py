from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from resdomains_tasks.speech_recognition import figures

PIECES = ["<blank>", *"abcdefghijklmnopqrstuvwxyz▁"]


def shown(figure: Figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    return "\n".join([*found, figure.get_suptitle()])


def is_drawn(figure: Figure, path: Path) -> bool:
    figure.savefig(path)
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image.convert("L")))) > 10


def probabilities(path: list[int], size: int = len(PIECES)) -> Tensor:
    table = torch.full((len(path), size), 0.01)
    table[torch.arange(len(path)), torch.tensor(path)] = 0.9
    return table.log()


def word(name: str, start: float, end: float, probability: float = 0.9) -> dict[str, Any]:
    return {"word": name, "start": start, "end": end, "probability": probability}


def test_emissions_show_the_tokens_that_occur_and_both_texts(tmp_path: Path) -> None:
    path = [0, 2, 0, 5, 0, 0, 27, 0, 1, 0]
    figure = figures.emissions(
        torch.randn(64, 20),
        probabilities(path),
        PIECES,
        [word("be", 0.02, 0.08), word("a", 0.16, 0.18, 0.3)],
        "be at",
        "be a",
        0.2,
        "test: WER 50 %",
    )
    rows = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert rows == ["blank", "b", "e", "▁", "a"]
    for text in ("said: be at", "heard: be a", "test: WER 50 %", "red: less probable than 0.5"):
        assert text in figure.get_suptitle()
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colours == {"be": "black", "a": "firebrick"}
    drawn = figure.axes[1].images[0].get_array()
    assert drawn is not None
    assert np.allclose(np.asarray(drawn)[1], [0.9 if token == 2 else 0.01 for token in path])
    assert is_drawn(figure, tmp_path / "a.png")


@pytest.mark.parametrize("bands", [(1000,), (1, 1000), (64, 100)])
def test_sound_is_drawn_as_samples_or_features(bands: tuple[int, ...], tmp_path: Path) -> None:
    figure = figures.alignment(torch.randn(bands), [word("a", 0.1, 0.4)], 1.0, "t")
    samples = bands[0] in (1, 1000)
    assert figure.axes[0].get_ylabel() == ("amplitude" if samples else "band")
    assert is_drawn(figure, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("", ""),
        ("a" * 3000, "b " * 2000),
        ("音声認識 שלום", "привет 👍🏽 $x$ and $5"),
        ("\x00 control", "_^{"),
    ],
)
def test_any_text_can_be_drawn_without_a_warning(said: str, heard: str, tmp_path: Path) -> None:
    words = [word(w, i / 500, i / 500 + 0.001) for i, w in enumerate(heard.split()[:499])]
    pieces = ["<blank>", *"音ש$"]
    log_probs = probabilities([0, 1, 2, 3], 4)
    first = figures.emissions(
        torch.randn(8, 100), log_probs, pieces, words, said, heard, 1.0, said[:50]
    )
    assert is_drawn(first, tmp_path / "a.png")
    assert is_drawn(figures.alignment(torch.randn(400), words, 1.0, heard[:50]), tmp_path / "b.png")


def test_one_frame_and_silence_can_be_drawn(tmp_path: Path) -> None:
    silence = torch.zeros(1)
    assert is_drawn(
        figures.emissions(silence, probabilities([0]), PIECES, [], "a", "", 1e-4, "t"),
        tmp_path / "a.png",
    )
    assert "heard: (nothing)" in shown(
        figures.emissions(torch.zeros(8, 1), probabilities([0]), PIECES, [], "a", "", 0.01, "t")
    )
    assert is_drawn(figures.alignment(torch.zeros(8, 1), [], 0.01, "t"), tmp_path / "b.png")


def test_long_utterances_are_drawn_in_lines_up_to_a_length(tmp_path: Path) -> None:
    words = [word(f"w{i}", i + 0.2, i + 0.6) for i in range(100)]
    twenty = figures.alignment(torch.randn(64, 2000), words[:20], 20.0, "t")
    assert len(twenty.axes) == 3
    assert [text.get_text() for text in twenty.axes[1].texts] == [f"w{i}" for i in range(8, 16)]
    hundred = figures.alignment(torch.randn(64, 10_000), words, 100.0, "t")
    assert "the first 48 of 100.0 seconds" in hundred.get_suptitle()
    assert "w47" in shown(hundred)
    assert "w48" not in shown(hundred)
    path = [0, 1] * 1250
    path[-1] = 9
    figure = figures.emissions(
        torch.randn(64, 10_000), probabilities(path), PIECES, words, "a", "b", 100.0, "t"
    )
    assert "the first 20 of 100.0 seconds" in figure.get_suptitle()
    assert "w20" not in shown(figure)
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["blank", "a"]
    assert is_drawn(figure, tmp_path / "a.png")


def test_words_do_not_lie_on_each_other() -> None:
    words = [word(f"word{i}", 0.03 * i, 0.03 * i + 0.02) for i in range(60)]
    figure = figures.alignment(torch.randn(64, 200), words, 2.0, "t")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 0 < len(boxes) < 60
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def rate(**changes: Any) -> dict[str, Any]:
    counts = {"substitutions": 3, "deletions": 2, "insertions": 5, "words": 100}
    return {"speaker": "x", "utterances": 9, "wer": 0.1, **counts, **changes}


def test_error_rates_show_what_is_wrong_and_of_how_much(tmp_path: Path) -> None:
    rows = [rate(), rate(speaker="a $ speaker 音", words=1, utterances=1, wer=10.0)]
    figure = figures.error_rates(rows, "speaker", "test")
    assert " 10.0 % of 100 words, 9 utterances" in shown(figure)
    assert " 1000.0 % of 1 word, 1 utterance" in shown(figure)
    lengths = [bar.get_width() for bars in figure.axes[0].containers for bar in bars]
    assert lengths == pytest.approx([0.03, 0.02, 0.05, 3, 2, 5])
    assert is_drawn(figure, tmp_path / "a.png")
    by_duration = [rate(shortest=0.51, longest=2.0), rate(shortest=3.0, longest=3.0)]
    found = shown(figures.error_rates(by_duration, "duration", "t"))
    assert "0.5 to 2.0 s" in found
    assert "\n3.0 s" in found
    perfect = rate(substitutions=0, deletions=0, insertions=0, wer=0.0)
    assert is_drawn(figures.error_rates([perfect], "speaker", "t"), tmp_path / "b.png")


def test_of_many_speakers_the_worst_and_the_best_are_shown() -> None:
    figure = figures.error_rates([rate(speaker=f"s{i}") for i in range(300)], "speaker", "t")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"s{i}" for i in (*range(25), *range(275, 300))]
    assert "the worst and the best 25" in figure.get_suptitle()


def test_confused_words_say_what_became_of_them(tmp_path: Path) -> None:
    rows = [
        {"reference": "nine", "hypothesis": "five", "count": 7},
        {"reference": "", "hypothesis": "$oh", "count": 3},
        {"reference": "音", "hypothesis": "", "count": 1},
    ]
    figure = figures.word_confusions(rows, "test")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["nine → five", r"\$oh", "□"]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    kinds = [text.get_text() for text in legend.get_texts()]
    assert kinds == ["substituted", "inserted", "deleted"]
    assert is_drawn(figure, tmp_path / "a.png")
    many = [{"reference": f"w{i}", "hypothesis": "", "count": 1} for i in range(99)]
    assert "25 of 99 errors" in figures.word_confusions(many, "t").get_suptitle()
    nothing = figures.word_confusions([], "t")
    assert "no word is wrong" in shown(nothing)
    assert is_drawn(nothing, tmp_path / "b.png")
