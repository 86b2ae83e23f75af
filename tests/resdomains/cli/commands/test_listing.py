"""Lists of what is installed, with plugins installed for the occasion."""

from pathlib import Path

import pytest

from resdomains.cli.main import main

PLUGIN = """
from resdomains.plugins import TaskPlugin
plugin = TaskPlugin(
    name="listed", summary="Names what is heard", task="pkg_listing.task:Task",
    data={"Points": "pkg_listing.task:Points"}, configs="pkg_listing.configs", extra="more",
    reads_from_disk=("Points",),
)
"""
CONFIG = """# Points from a folder
model: {class_path: pkg_listing.task.Task}
data: {class_path: pkg_listing.task.Points}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed plugin whose extra is missing."""
    folder = tmp_path / "pkg_listing"
    (folder / "configs").mkdir(parents=True)
    (folder / "plugin.py").write_text(PLUGIN)
    (folder / "task.py").write_text("import nowhere_to_be_found\n")
    (folder / "configs" / "points.yaml").write_text(CONFIG)
    info = tmp_path / "pkg_listing-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pkg-listing\nVersion: 1.2\nProvides-Extra: more\n"
        "Requires-Dist: nowhere-to-be-found>=3; extra == 'more'\n"
    )
    (info / "entry_points.txt").write_text(
        "[resdomains.tasks]\nlisted = pkg_listing.plugin:plugin\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def test_a_task_is_listed_with_where_it_came_from(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("listed"))
    for part in ("pkg-listing 1.2", "pkg_listing.plugin:plugin", "Names what is heard"):
        assert part in line
    assert "pip install 'pkg-listing[more]'" in line


def test_a_broken_plugin_is_listed_with_its_error(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "plugin.py").write_text("1 / 0\n")
    assert main(["tasks"]) == 1
    out = capsys.readouterr().out
    assert "listed" in out
    assert "ZeroDivisionError: division by zero" in out
    assert 'plugin.py", line 1' in out
    assert "image_classification" in out, "the others are still listed"


def test_configs_are_listed_with_data_and_needs(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configs"]) == 0
    out = capsys.readouterr().out
    line = next(x for x in out.splitlines() if x.startswith("listed/points"))
    for part in (
        "Points",
        "pip install 'pkg-listing[more]'",
        "--data.root FOLDER",
        "from a folder",
    ):
        assert part in line
    digits = next(x for x in out.splitlines() if x.startswith("image_classification/digits"))
    assert "Digits" in digits
    assert "--data.root" not in digits
    assert "trainer/ddp" in out


def test_a_broken_shipped_config_is_listed(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (package / "configs" / "points.yaml").write_text("a: [")
    assert main(["configs"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("listed/points"))
    assert "broken: " in line


def test_fit_says_which_extra_to_install(
    package: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "listed/points"]) == 2
    errors = capsys.readouterr().err
    assert "No module named 'nowhere_to_be_found'" in errors
    assert "pip install 'pkg-listing[more]'" in errors


def test_doctor_reports_everything(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 1, "a task that cannot be used is a finding"
    out = capsys.readouterr().out
    for part in ("torch", "pytorch-lightning", "cpu:", "because", "W&B", "offline"):
        assert part in out
    assert "listed: pip install 'pkg-listing[more]' (missing: nowhere-to-be-found>=3)" in out
    assert "image_classification: ready" in out


@pytest.mark.parametrize("name", ["tasks", "configs", "doctor"])
def test_lists_take_no_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--al"]) == 2
    assert "no option --al" in capsys.readouterr().err
