"""What a study says while its runs, for which a script stands in, run and when it is stopped."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
from rich.console import Console

from resdomains.cli import studying
from resdomains.cli.studying import carry_out
from resdomains.studies import read_study
from resdomains.studies.local import LocalExecutor
from tests.resdomains.comparing.recorded import write_folder

STUDY = read_study({"seeds": [0, 1], "bases": [{"config": "image_classification/digits"}]}, "two")
# The second run goes on for as long as nobody stops it; between two sleeps a shell sees to its traps.
SCRIPT = """\
#!/bin/sh
trap 'echo saved; exit 143' TERM
case "$*" in *"--seed 0"*) exit 0;; esac
echo on
for n in $(seq 600); do sleep 0.05; done
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def signalled(number: int, log: Path, shown: Callable[[], str]) -> None:
    """Send this process a signal once a run, whose id its log bears, has begun and is shown."""

    def send() -> None:
        while not (log.exists() and log.read_text() and log.stem in shown()):
            ended.wait(0.02)
        os.kill(os.getpid(), number)

    ended = threading.Event()
    threading.Thread(target=send, daemon=True).start()


def test_runs_of_an_earlier_version_of_the_file_are_not_compared(tmp_path: Path) -> None:
    for place, run in enumerate(("earlier", *(run.id for run in STUDY.runs))):
        write_folder(tmp_path / "two/image_classification/digits" / run, run, seed=place)
    assert carry_out(STUDY, tmp_path / "two", LocalExecutor(1)) == 0
    compared = pd.read_csv(tmp_path / "two" / "comparison" / "runs.csv")
    assert set(compared["run_id"]) == {run.id for run in STUDY.runs}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_study_that_is_stopped_lets_its_runs_save(
    number: int, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM is what W&B's agents and schedulers send."""
    before = signal.getsignal(signal.SIGTERM)
    second = STUDY.runs[1].id
    log = tmp_path / "two" / "logs" / f"{second}.log"
    printed = cast(io.TextIOWrapper, sys.stdout)  # that of `capsys`
    signalled(number, log, lambda: printed.buffer.getvalue().decode())  # type: ignore[attr-defined]  # in memory
    assert carry_out(STUDY, tmp_path / "two", LocalExecutor(1)) == status
    assert log.read_text() == "on\nsaved\n"
    said = capsys.readouterr()
    assert f"1/2  running: image_classification/digits, seed 1 ({second})" in said.out
    assert "interrupted; the running runs were saved\n  go on with: resdomains" in said.err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_terminal_shows_a_table_of_runs_by_what_only_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(studying, "_console", terminal)
    first, second = (run.id for run in STUDY.runs)
    signalled(signal.SIGINT, tmp_path / "two" / "logs" / f"{second}.log", shown.getvalue)
    assert carry_out(STUDY, tmp_path / "two", LocalExecutor(1)) == 130
    rows = [line.split("│") for line in shown.getvalue().splitlines()]
    drawn = {tuple(cell.strip() for cell in row[:3]) for row in rows if len(row) > 3}
    assert ("image_classification/digits", second, "stopped") in drawn
    assert ("image_classification/digits", first, "finished") in drawn
