"""The wheel holds the tree, runs where there is no checkout, and its ranges agree with the pins."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"resdomains": "resdomains", "tasks": "resdomains_tasks", "configs": "resdomains_configs"}
BUILD_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "*.py[cod]")
# Folders and files that no list can know of: each must reach the wheel by being in the tree.
NEWCOMERS = {
    "resdomains/newcomer/__init__.py": "",
    "tasks/newcomer/__init__.py": "",
    "tasks/newcomer/inner/__init__.py": "",
    "tasks/newcomer/words.txt": "one\n",
    "configs/newcomer/fast.yaml": "seed: 0\n",
    "configs/newcomer/inner/slow.yaml": "seed: 0\n",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from, with newcomers; a build writes into its source."""
    copy = tmp_path_factory.mktemp("source")
    for file in BUILD_FILES:
        shutil.copy(ROOT / file, copy)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=LEFT_BEHIND)
    for file, text in NEWCOMERS.items():
        path = copy / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a release is, from the source archive: so that archive is complete too."""
    out = tmp_path_factory.mktemp("dist")
    log = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source))
    # setuptools still ships the modules of a package it was not told of, but only as data.
    assert "absent from the `packages` configuration" not in log
    [found] = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an empty environment that holds the wheel and sees the libraries of this one.

    A folder named in a .pth file is searched, but its own .pth files are not read: an editable
    installation of the checkout stays invisible.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    scheme = sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)})
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(scheme, "libraries.pth").write_text("\n".join(sorted(libraries)), encoding="utf-8")
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(home)}))
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    pip = (sys.executable, "-m", "pip", "--python", str(python))
    # Without --ignore-installed pip would find the checkout's own installation and stop there.
    run(*pip, "install", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    return python


def run(*command: str, cwd: Path | None = None) -> str:
    """What the command prints, warnings included; all of it is shown if the command fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


def test_wheel_holds_the_tree(source: Path, wheel: Path) -> None:
    tree = {
        str(Path(name, path.relative_to(source / folder)).as_posix())
        for folder, name in FOLDERS.items()
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert shipped == tree
    assert "resdomains_configs/newcomer/inner/slow.yaml" in shipped


def test_wheel_runs_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    show = "import resdomains, resdomains_tasks as t; print(resdomains.__file__); print(t.__file__)"
    home = installed.parents[1]
    for line in run(str(installed), "-c", show, cwd=tmp_path).split():
        assert Path(line).is_relative_to(home)
    assert list(tmp_path.iterdir()) == []


def test_configs_are_found_in_this_installation() -> None:
    shipped = files("resdomains_configs")
    assert Path(str(shipped)).is_dir()
    assert Path(str(shipped / "__init__.py")).is_file()


def test_configs_are_found_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    names = "sorted(file.name for file in (files('resdomains_configs') / 'newcomer').iterdir())"
    show = f"from importlib.resources import files; print({names})"
    assert run(str(installed), "-c", show, cwd=tmp_path).strip() == "['fast.yaml', 'inner']"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "fit"),
        (["tasks"], "image_classification"),
        (["configs"], "image_classification/digits"),
    ],
)
def test_installed_command_runs(
    installed: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    command = installed.with_name("resdomains" + installed.suffix)
    assert expected in run(str(command), *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def pins() -> dict[str, Version]:
    """The version of each package in constraints.txt, where every line is `name==version`."""
    found: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups()  # type: ignore[union-attr]
            found[canonicalize_name(name)] = Version(version)
    return found


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return table["project"]  # type: ignore[no-any-return]


def requirements() -> list[Requirement]:
    extras = project()["optional-dependencies"].values()
    texts = [*project()["dependencies"], *(text for extra in extras for text in extra)]
    return [found for text in texts if (found := Requirement(text)).name != "resdomains"]


def test_every_requirement_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_pinned_versions_are_the_matched_trio() -> None:
    trio = {"torch": "2.11.0", "torchaudio": "2.11.0", "torchvision": "0.26.0"}
    assert {name: str(pins()[name]) for name in trio} == trio


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0", "2.13.0+cpu", "2.13.1", "2.15.0"])
def test_torch_that_breaks_its_companions_is_out_of_range(version: str) -> None:
    [torch] = [found for found in requirements() if found.name == "torch"]
    assert not torch.specifier.contains(version)


@pytest.mark.parametrize("version", ["2.11.0", "2.14.1"])
def test_torch_that_was_tried_is_in_range(version: str) -> None:
    [torch] = [found for found in requirements() if found.name == "torch"]
    assert torch.specifier.contains(version)


def test_all_takes_in_every_domain() -> None:
    extras = project()["optional-dependencies"]
    domains = extras.keys() - {"all", "dev"}
    games = {"atari", "minatar", "mujoco"}
    assert domains == {
        "vision",
        "speech",
        "speech-demo",
        "text",
        "rl",
        *games,
        "onnx",
        "compare",
        "slurm",
    }
    [everything] = [Requirement(text) for text in extras["all"]]
    assert everything.extras == domains
    assert "all" in {extra for text in extras["dev"] for extra in Requirement(text).extras}


def test_package_states_one_version() -> None:
    text = (ROOT / "resdomains" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{project()["version"]}"' in text
