import csv
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from resdomains import schema
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


def test_a_line_shows_the_speed_of_its_whole_epoch(tmp_path: Path) -> None:
    text, folder = shown(tmp_path, terminal=False)
    shown_speeds = [float(s.replace(",", "")) for s in re.findall(r"([\d,]+) samples/s", text)]
    with (folder / "metrics.csv").open(newline="") as file:
        steps = [row for row in csv.DictReader(file) if row[schema.SAMPLES_PER_SECOND]]
    counts = [float(row[schema.SAMPLES]) for row in steps]
    speeds = [float(row[schema.SAMPLES_PER_SECOND]) for row in steps]
    assert len(steps) > 2
    for epoch, speed in enumerate(shown_speeds):
        within = [40 * epoch < count <= 40 * (epoch + 1) for count in counts]
        items = [after - before for before, after in pairwise([0.0, *counts])]
        seconds = [n / rate for n, rate, of in zip(items, speeds, within, strict=True) if of]
        assert len(seconds) > 1
        assert speed == pytest.approx(40 / sum(seconds), rel=0.01)
