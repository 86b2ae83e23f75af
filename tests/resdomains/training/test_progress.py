import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from resdomains.training.progress import RunProgress
from tests.resdomains.training.test_task import fit
from tests.resdomains.training.toy import Clouds, Side


def shown(tmp_path: Path, terminal: bool, width: int = 40) -> tuple[str, Path]:
    """What a run of two epochs shows, and its folder."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    bar: Any = RunProgress(console)
    _, run = fit(tmp_path, Clouds(), callbacks=[bar], enable_progress_bar=True)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text, run.folder


@pytest.fixture
def talking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that gives four lines a validation, one of them with what a terminal would obey."""
    heard: list[int] = []

    def examples(self: Side, split: str, results: Any) -> list[str]:
        heard.append(len(heard) + 1)
        assert (split, float(results["score"]) >= 0) == ("val", True)
        return [
            f"said  [b]one[/b] {heard[-1]}",
            "heard \x1b[2Jtwo\nthree",
            "long " * 20,
            "a fourth",
        ]

    monkeypatch.setattr(Side, "examples", examples)


@pytest.mark.usefixtures("talking")
def test_examples_stand_below_the_line_of_each_validation(tmp_path: Path) -> None:
    text, folder = shown(tmp_path, terminal=False)
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines[::4]] == ["epoch 1/2", "epoch 2/2"]
    assert lines[1:4] == [
        "  said  [b]one[/b] 1",
        "  heard  [2Jtwo three",
        "  " + ("long " * 20)[:37] + "…",
    ]
    assert lines[5] == "  said  [b]one[/b] 2"
    kept = (folder / "examples.txt").read_text(encoding="utf-8").splitlines()
    assert kept[0] == "epoch 1, 40 samples"
    assert kept[1:5] == [*lines[1:3], "  " + "long " * 20, "  a fourth"]
    assert kept[5] == "epoch 2, 80 samples"


@pytest.mark.usefixtures("talking")
def test_examples_stand_below_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    text, _ = shown(tmp_path, terminal=True, width=100)
    bar, said = text.rfind("epoch 2/2"), text.rfind("said  [b]one[/b]")
    assert 0 < bar < said
    assert "val/score" in text[bar:said]
    assert "a fourth" not in text
    assert "\x1b[2Jtwo" not in text


def test_a_task_without_examples_shows_a_line_and_keeps_no_file(tmp_path: Path) -> None:
    text, folder = shown(tmp_path, terminal=False)
    assert [line.split("  ")[0] for line in text.splitlines()] == ["epoch 1/2", "epoch 2/2"]
    assert not (folder / "examples.txt").exists()
