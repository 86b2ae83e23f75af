"""What `new-task` writes is installed, listed, trained and checked; and broken plugins beside it."""

import json
import math
import re
import shutil
import struct
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from .environment import Environment, Result


@dataclass(frozen=True)
class Home:
    """An environment with a plugin `bird_songs`, and the folder that `new-task` wrote it to."""

    environment: Environment
    written: Path
    said: str

    def run(self, cwd: Path, *command: str, site: Path | None = None) -> Result:
        return self.environment.run(cwd, *command, sites=[] if site is None else [site])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home")
    environment = Environment.create(folder / "environment")
    done = environment.run(folder, "new-task", "bird_songs")
    assert done.returncode == 0, done.stderr
    environment.install("-e", str(folder / "bird_songs"))
    return Home(environment, folder / "bird_songs", done.stdout)


@pytest.fixture(scope="module")
def trained(home: Home) -> Path:
    """The folder of a run of the written package's config, as its README starts it."""
    options = ["--run.wandb.mode", "disabled"]
    done = home.run(home.written.parent, "fit", "--config", "bird_songs/tiny", *options)
    assert done.returncode == 0, done.stderr
    [folder] = home.written.parent.glob("runs/bird_songs/tiny/*")
    return folder


def install(
    site: Path,
    name: str,
    files: Mapping[str, str],
    entry: str,
    version: str = "0.1",
    requires: str = "resdomains",
) -> Path:
    """Lay out what an installation of a small distribution leaves behind."""
    for file, text in files.items():
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {requires}\n"
    )
    info.joinpath("entry_points.txt").write_text(f"[resdomains.tasks]\n{entry}\n")
    return site


def record_tone(path: Path, pitch: float) -> Path:
    samples = [int(20000 * math.sin(2 * math.pi * pitch * i / 4000)) for i in range(250)]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 4000, 0, "NONE", ""))
        file.writeframes(struct.pack("<250h", *samples))
    return path


def test_a_written_task_holds_no_other_name_and_is_listed(home: Home) -> None:
    assert f"pip install --no-build-isolation -e {home.written.name}" in home.said
    files = [path for path in home.written.rglob("*") if path.suffix in (".py", ".toml", ".yaml")]
    assert len(files) == 7
    for path in files:
        assert not re.search("tone.tagging", path.read_text() + path.name, re.IGNORECASE)
    listed = home.run(home.written.parent, "tasks")
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"bird_songs +bird-songs 0\.1\.0 .*ready +How high a tone is", listed.stdout)
    configs = home.run(home.written.parent, "configs")
    assert re.search(r"bird_songs/tiny +Tones +- +Noisy sine tones", configs.stdout)


def test_a_written_task_trains_and_predicts(home: Home, trained: Path, tmp_path: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert (summary["status"], summary["task"]) == ("finished", "bird_songs")
    assert summary["test/score"] > 0.8
    tones = [record_tone(tmp_path / f"{p}.wav", p) for p in (210.0, 490.0, 1080.0)]
    best = str(trained / "checkpoints" / "best.ckpt")
    said = home.run(tmp_path, "predict", "--ckpt_path", best, "--format", "json", *map(str, tones))
    assert said.returncode == 0, said.stderr
    labels = [json.loads(line)["label"] for line in said.stdout.splitlines()]
    assert labels == ["low", "middle", "high"]


def test_checkpoint_of_a_plugin_that_is_not_installed_is_refused(
    trained: Path, tmp_path: Path
) -> None:
    elsewhere = Environment.create(tmp_path / "environment")
    last = str(trained / "checkpoints" / "last.ckpt")
    tone = record_tone(tmp_path / "tone.wav", 300.0)
    refused = elsewhere.run(tmp_path, "predict", "--ckpt_path", last, str(tone))
    assert refused.returncode == 2
    assert "bird_songs.task.BirdSongs" in refused.stderr


@pytest.mark.slow
def test_a_written_task_keeps_the_contract(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.written / "tests", tmp_path / "tests")
    shutil.copy(home.written / "pyproject.toml", tmp_path)
    arguments = ["-q", "-p", "no:cacheprovider", "--durations", "5"]
    checked = home.environment.run(tmp_path, *arguments, module="pytest")
    assert checked.returncode == 0, checked.stdout[-4000:]
    assert re.search(r"\b2\d passed", checked.stdout)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2fast", "must be small letters, digits and _, a letter first, got '2fast'"),
        ("Birds", "must be small letters"),
        ("lambda", "is a word of Python's own"),
        ("bird_songs", "task 'bird_songs' is installed already, from bird-songs 0.1.0"),
        ("speech_recognition", "is installed already, from resdomains"),
        ("trainer", r"configs named trainer/\.\.\. are shipped"),
        ("json", "there is a module 'json' already"),
        ("tensor", "the task's class would be called Tensor"),
        ("full", r"--folder .*full: is not empty; give a new or empty folder"),
    ],
)
def test_a_bad_name_is_refused(home: Home, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    refused = home.run(tmp_path, "new-task", name)
    assert refused.returncode == 2
    assert re.search(reason, refused.stderr), refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_task_is_written_to_a_folder_of_ones_choice(home: Home, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = home.run(tmp_path, "new-task", "whales", "--folder", "empty")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "empty" / "src" / "whales" / "task.py").is_file()
    lost = home.run(tmp_path, "new-task", "whales", "--folder", "no/where")
    assert lost.returncode == 2
    assert "its folder does not exist" in lost.stderr


def test_a_plugin_that_fails_to_import_shows_its_error_and_others_work(
    home: Home, tmp_path: Path
) -> None:
    code = "raise RuntimeError('the licence has run out')\n"
    broken = install(
        tmp_path / "broken",
        "broken-domain",
        {"broken_domain/__init__.py": "", "broken_domain/plugin.py": code},
        "broken_domain = broken_domain.plugin:plugin",
    )
    listed = home.run(tmp_path, "tasks", site=broken)
    assert listed.returncode == 1
    assert re.search(
        r"broken_domain +broken-domain 0\.1 .*RuntimeError: the licence", listed.stdout
    )
    assert 'plugin.py", line 1' in listed.stdout
    assert re.search(r"bird_songs +bird-songs 0\.1\.0 .*ready", listed.stdout)
    configs = home.run(tmp_path, "configs", site=broken)
    assert "bird_songs/tiny" in configs.stdout
    composed = home.run(
        tmp_path, "fit", "--config", "bird_songs/tiny", "--print_config", site=broken
    )
    assert composed.returncode == 0, composed.stderr
    asked = home.run(tmp_path, "fit", "--config", "broken_domain/any", site=broken)
    assert asked.returncode == 2
    assert "RuntimeError: the licence has run out" in asked.stderr


def test_two_plugins_of_one_name_are_both_named_and_others_work(home: Home, tmp_path: Path) -> None:
    plugin = (home.written / "src" / "bird_songs" / "plugin.py").read_text()
    rival = install(
        tmp_path / "rival",
        "rival",
        {"rival_songs/__init__.py": "", "rival_songs/plugin.py": plugin},
        "bird_songs = rival_songs.plugin:plugin",
    )
    both = r"task 'bird_songs' is registered twice: by .*(bird-songs 0\.1\.0|rival 0\.1) and by .*(bird|rival)"
    listed = home.run(tmp_path, "tasks", site=rival)
    assert listed.returncode == 1
    assert re.search(both, listed.stdout)
    assert re.search(r"image_classification .*ready", listed.stdout)
    configs = home.run(tmp_path, "configs", site=rival)
    assert configs.returncode == 0
    assert "bird_songs/tiny" not in configs.stdout
    assert "image_classification/digits" in configs.stdout
    asked = home.run(tmp_path, "fit", "--config", "bird_songs/tiny", site=rival)
    assert asked.returncode == 2
    assert re.search(both, asked.stderr)


def test_a_plugin_for_another_major_version_says_so_and_others_work(
    home: Home, tmp_path: Path
) -> None:
    later = install(
        tmp_path / "later",
        "later",
        {"later/__init__.py": "", "later/plugin.py": "from resdomains.plugins import NotYetThere"},
        "later = later.plugin:plugin",
        requires="resdomains<3,>=2",
    )
    listed = home.run(tmp_path, "tasks", site=later)
    assert listed.returncode == 1
    assert re.search(
        r"made for resdomains <3,>=2, installed is 0\.\d+\.\d+; install", listed.stdout
    )
    assert "NotYetThere" not in listed.stdout
    assert re.search(r"bird_songs .*ready", listed.stdout)
    asked = home.run(tmp_path, "fit", "--config", "later/any", site=later)
    assert asked.returncode == 2
    assert "made for resdomains <3,>=2" in asked.stderr


def test_a_plugin_whose_configs_are_missing_says_so_and_others_work(
    home: Home, tmp_path: Path
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
    listed = home.run(tmp_path, "tasks", site=bare)
    assert re.search(r"bare .*no configs", listed.stdout)
    configs = home.run(tmp_path, "configs", site=bare)
    assert configs.returncode == 0, configs.stderr
    assert "bird_songs/tiny" in configs.stdout
    asked = home.run(tmp_path, "fit", "--config", "bare/tiny", site=bare)
    assert asked.returncode == 2
    assert "bare 0.1 ships no configs: 'bare.no', where it says that they are," in asked.stderr
