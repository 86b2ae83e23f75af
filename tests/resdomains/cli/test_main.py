import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from resdomains.cli.main import COMMANDS, main, unexpected

FAST = (
    *(["--help"], ["tasks"], ["configs"], ["--version"], ["doctor", "--help"], ["fit", "--help"]),
    ["new-task", "whales"],
)
HEAVY = ("torch", "pytorch_lightning", "jsonargparse", "wandb", "rich", "matplotlib")


@pytest.mark.parametrize("arguments", FAST, ids=" ".join)
def test_lists_and_help_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from resdomains.cli.main import main; status = main(sys.argv[1:]);"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules]); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().endswith("LOADED []")


def test_help_answers_at_once() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "resdomains.cli", "--help"], capture_output=True, check=True
        )
        return time.perf_counter() - start

    # 0.1 s on a machine at rest; the best of five says what the command costs on a loaded one.
    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"usage: resdomains {name}" in capsys.readouterr().out


def test_console_script_and_module_are_the_same_command() -> None:
    script = Path(sysconfig.get_path("scripts")) / "resdomains"
    if not script.exists():
        pytest.skip("the package is not installed with its scripts")
    for command in ([str(script)], [sys.executable, "-m", "resdomains.cli"]):
        done = subprocess.run([*command, "fitt"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("error: no command 'fitt'; did you mean 'fit'?")
        assert "Traceback" not in done.stderr


def test_nothing_given_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_fit_without_config_is_answered_before_torch_is_imported() -> None:
    code = (
        "import sys; from resdomains.cli.main import main; status = main(['fit']);"
        "sys.exit(status + ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: no --config given; `resdomains configs` lists what is shipped\n",
    )


def test_traceback_of_an_unexpected_error_is_kept(tmp_path: Path) -> None:
    text = unexpected(ZeroDivisionError("by zero"), tmp_path)
    assert text.startswith("ZeroDivisionError: by zero\n")
    assert "ZeroDivisionError: by zero" in (tmp_path / "error.log").read_text()


def test_traceback_is_kept_when_the_run_folder_is_gone(tmp_path: Path) -> None:
    text = unexpected(ZeroDivisionError("by zero"), tmp_path / "gone")
    path = Path(text.split("where it happened: ")[1].split(" (")[0])
    assert "ZeroDivisionError" in path.read_text()
    path.unlink()


def test_a_reader_that_stops_reading_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m resdomains.cli configs | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
