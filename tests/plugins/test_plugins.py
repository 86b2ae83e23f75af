"""Tasks that live outside the tree: installed from their own pyproject, found, trained, checked; and broken ones."""

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import wave
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("tone_tagging")
Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the plugin is installed into, from a wheel built of a copy."""
    folder = tmp_path_factory.mktemp("plugin")
    ignore = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(SOURCE, folder / "source", ignore=ignore)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    target = ["--target", str(folder / "site"), str(folder / "source")]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *target], check=True)
    return folder / "site"


def run(sites: list[Path], cwd: Path, *command: str, module: str = "resdomains.cli") -> Result:
    """Run a module with site folders on the path, and nothing of the checkout's working folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sites)), "COLUMNS": "200"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, "-m", module, *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def install(
    site: Path, name: str, files: Mapping[str, str], entry: str, version: str = "0.1"
) -> Path:
    """Lay out what an installation of a small distribution leaves behind."""
    for file, text in files.items():
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    info.joinpath("entry_points.txt").write_text(f"[resdomains.tasks]\n{entry}\n")
    return site


def record_tone(path: Path, pitch: float) -> Path:
    samples = [int(20000 * math.sin(2 * math.pi * pitch * i / 4000)) for i in range(250)]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 4000, 0, "NONE", ""))
        file.writeframes(struct.pack("<250h", *samples))
    return path


def test_the_plugin_is_small() -> None:
    written = [*SOURCE.glob("tone_tagging/**/*"), SOURCE / "pyproject.toml"]
    kept = [path for path in written if path.suffix in (".py", ".yaml", ".toml")]
    assert len(kept) == 6
    lines = [line for path in kept for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 150


def test_installed_plugin_is_listed_with_where_it_came_from(site: Path, tmp_path: Path) -> None:
    listed = run([site], tmp_path, "tasks")
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"tone_tagging +tone-tagging 1\.2\.3 .*How high a tone is", listed.stdout)
    configs = run([site], tmp_path, "configs")
    assert re.search(r"tone_tagging/tiny +Tones +- +Noisy sine tones", configs.stdout)


def test_installed_plugin_trains_and_predicts(site: Path, tmp_path: Path) -> None:
    options = ["--run.wandb.mode", "disabled", "--trainer.max_epochs", "6"]
    fitted = run([site], tmp_path, "fit", "--config", "tone_tagging/tiny", *options)
    assert fitted.returncode == 0, fitted.stderr
    [folder] = tmp_path.glob("runs/tone_tagging/tiny/*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["test/score"] > 0.8
    tones = [record_tone(tmp_path / f"{p}.wav", p) for p in (210.0, 490.0, 1080.0)]
    best = str(folder / "checkpoints" / "best.ckpt")
    said = run(
        [site], tmp_path, "predict", "--ckpt_path", best, "--format", "json", *map(str, tones)
    )
    assert said.returncode == 0, said.stderr
    labels = [json.loads(line)["label"] for line in said.stdout.splitlines()]
    assert labels == ["low", "middle", "high"]


def test_checkpoint_of_a_plugin_that_is_not_installed_is_refused(
    site: Path, tmp_path: Path
) -> None:
    options = ["--run.wandb.mode", "disabled", "--trainer.max_epochs", "1"]
    run([site], tmp_path, "fit", "--config", "tone_tagging/tiny", *options)
    [last] = tmp_path.glob("runs/tone_tagging/tiny/*/checkpoints/last.ckpt")
    tone = record_tone(tmp_path / "tone.wav", 300.0)
    refused = run([], tmp_path, "predict", "--ckpt_path", str(last), str(tone))
    assert refused.returncode == 2
    assert "tone_tagging.task.ToneTagging" in refused.stderr


@pytest.mark.slow
def test_installed_plugin_keeps_the_contract(site: Path, tmp_path: Path) -> None:
    shutil.copytree(SOURCE / "tests", tmp_path / "tests")
    shutil.copy(SOURCE / "pyproject.toml", tmp_path)
    arguments = ["tests", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    checked = run([site], tmp_path, *arguments, module="pytest")
    assert checked.returncode == 0, checked.stdout[-4000:]
    assert re.search(r"\b(2\d|1[5-9]) passed", checked.stdout)


def test_a_plugin_that_fails_to_import_shows_its_error_and_others_work(
    site: Path, tmp_path: Path
) -> None:
    code = "raise RuntimeError('the licence has run out')\n"
    broken = install(
        tmp_path / "broken",
        "broken-domain",
        {"broken_domain/__init__.py": "", "broken_domain/plugin.py": code},
        "broken_domain = broken_domain.plugin:plugin",
    )
    listed = run([broken, site], tmp_path, "tasks")
    assert listed.returncode == 1
    assert re.search(
        r"broken_domain +broken-domain 0\.1 .*RuntimeError: the licence", listed.stdout
    )
    assert 'plugin.py", line 1' in listed.stdout
    assert re.search(r"tone_tagging +tone-tagging 1\.2\.3", listed.stdout)
    configs = run([broken, site], tmp_path, "configs")
    assert "tone_tagging/tiny" in configs.stdout
    composed = run(
        [broken, site], tmp_path, "fit", "--config", "tone_tagging/tiny", "--print_config"
    )
    assert composed.returncode == 0, composed.stderr
    asked = run([broken, site], tmp_path, "fit", "--config", "broken_domain/any")
    assert asked.returncode == 2
    assert "RuntimeError: the licence has run out" in asked.stderr


def test_two_plugins_of_one_name_are_an_error_that_names_both(site: Path, tmp_path: Path) -> None:
    plugin = (SOURCE / "tone_tagging" / "plugin.py").read_text()
    rival = install(
        tmp_path / "rival",
        "rival",
        {"rival_tones/__init__.py": "", "rival_tones/plugin.py": plugin},
        "tone_tagging = rival_tones.plugin:plugin",
    )
    for command in (["tasks"], ["configs"], ["fit", "--config", "tone_tagging/tiny"]):
        done = run([rival, site], tmp_path, *command)
        assert done.returncode == 2
        assert "task 'tone_tagging' is registered twice" in done.stderr
        assert "tone-tagging 1.2.3" in done.stderr
        assert "rival 0.1" in done.stderr


def test_a_plugin_whose_configs_are_missing_leaves_the_others_working(
    site: Path, tmp_path: Path
) -> None:
    code = (
        "from resdomains.plugins import TaskPlugin\n"
        "plugin = TaskPlugin(name='bare', summary='x', task='bare.task:T', data={}, configs='bare.no')\n"
    )
    bare = install(
        tmp_path / "bare",
        "bare",
        {"bare/__init__.py": "", "bare/plugin.py": code},
        "bare = bare.plugin:plugin",
    )
    configs = run([bare, site], tmp_path, "configs")
    assert configs.returncode == 0, configs.stderr
    assert "tone_tagging/tiny" in configs.stdout
    asked = run([bare, site], tmp_path, "fit", "--config", "bare/tiny")
    assert asked.returncode == 2
    assert "no such file and no shipped config" in asked.stderr
