"""The tiny domain as a module of its own, as `--plugin` finds it in the working folder."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resdomains.cli.main import main

HERE = Path(__file__).parent
Run = Callable[..., tuple[int, str, str]]
TINY = ("--plugin", "tiny_domain", "--config", "tiny.yaml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds the tiny domain and its config."""
    for name in ("tiny_domain.py", "tiny.yaml"):
        shutil.copy(HERE / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    # One module for all tests of a process, so that its classes exist once.
    monkeypatch.syspath_prepend(str(HERE))
    return tmp_path


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: its status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(list(arguments))
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.fixture
def command(folder: Path) -> Run:
    """Run the real command in a process of its own."""

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "resdomains.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            cwd=folder,
        )
        return done.returncode, done.stdout, done.stderr

    return run
