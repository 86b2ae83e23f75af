import sys
from pathlib import Path

import pytest

from resdomains import __version__
from resdomains.plugins import (
    ConfigNotFound,
    PluginError,
    TaskPlugin,
    check_extra,
    config_folder,
    discover,
    extra_of,
    find,
    find_config,
    importable_packages,
    locate,
    nearest,
    package_folder,
    shipped_configs,
)

GOOD = """
from resdomains.plugins import TaskPlugin
plugin = TaskPlugin(
    name="{name}", summary="A test", task="{package}.task:Task", data={{"Points": "{package}.data:Points"}},
    configs={configs!r}, extra={extra!r},
)
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def install(
        self,
        package: str,
        name: str,
        *,
        plugin: str | None = None,
        extra: str | None = None,
        requires: str = "resdomains",
    ) -> Path:
        """Install a package that registers one task, as its only content; returns its folder."""
        folder = self.root / package
        folder.mkdir()
        # Whoever imports the package to list it is found out.
        (folder / "__init__.py").write_text("raise SystemExit('the package was imported')\n")
        (folder / "configs").mkdir()
        (folder / "configs" / "first.yaml").write_text("# The first\nseed: 0\n")
        source = GOOD.format(name=name, package=package, configs=f"{package}.configs", extra=extra)
        (folder / "plugin.py").write_text(source if plugin is None else plugin)
        info = self.root / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\nProvides-Extra: more\n"
            "Requires-Dist: numpy>=1\nRequires-Dist: nowhere-to-be-found>=3; extra == 'more'\n"
            "Requires-Dist: pytest>=99; extra == 'more'\nRequires-Dist: pip; extra == 'other'\n"
            f"Requires-Dist: {requires}\n"
        )
        (info / "entry_points.txt").write_text(
            f"[resdomains.tasks]\n{name} = {package}.plugin:plugin\n"
        )
        return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Site(tmp_path)


def test_a_plugin_is_listed_without_importing_its_package(site: Site) -> None:
    site.install("pkg_listed", "listed")
    found = {entry.name: entry for entry in discover()}["listed"]
    assert found.plugin is not None
    assert (found.distribution, found.version) == ("pkg_listed", "1.2")
    assert found.plugin.packages == {"pkg_listed"}
    assert "pkg_listed" in importable_packages()
    assert "pkg_listed" not in sys.modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import not_there", "No module named 'not_there'"),
        ("1 / 0", "ZeroDivisionError"),
        ("plugin = 3", "is a int, not a TaskPlugin"),
        ("", "has no attribute 'plugin'"),
        (
            GOOD.format(name="other", package="p", configs="p", extra=None),
            "is named 'other', its entry point 'broken'",
        ),
    ],
)
def test_a_broken_plugin_keeps_its_own_error(site: Site, source: str, reason: str) -> None:
    site.install("pkg_broken", "broken", plugin=source)
    found = {entry.name: entry for entry in discover()}["broken"]
    assert found.plugin is None
    assert reason in found.reason
    assert "Traceback" in found.error
    with pytest.raises(PluginError, match=r"pkg_broken 1\.2 is broken"):
        find("broken")
    with pytest.raises(PluginError, match=r"pkg_broken 1\.2 is broken"):
        find_config("broken/first")


def test_two_plugins_of_one_name_are_both_named_and_leave_others_alone(site: Site) -> None:
    site.install("pkg_one", "twice")
    site.install("pkg_two", "twice")
    site.install("pkg_three", "once")
    found = {entry.name: entry for entry in discover()}
    assert found["twice"].plugin is None
    with pytest.raises(
        PluginError,
        match=r"'twice' is registered twice: .*pkg_(one|two) 1.2 and by .*pkg_(one|two)",
    ):
        find("twice")
    assert find("once").name == "once"
    assert "once/first" in shipped_configs()
    assert "twice/first" not in shipped_configs()


@pytest.mark.parametrize(
    ("requirement", "suits"),
    [
        ("resdomains", True),
        (f"resdomains>={__version__}", True),
        ("resdomains[vision] (>=0.1,<1)", True),
        ("resdomains>=2,<3; extra == 'more'", True),
        ("resdomains-extras>=2", True),
        ("resdomains>=2,<3", False),
        ("Resdomains (<0.1)", False),
        ("resdomains[vision]~=2.0; python_version > '3'", False),
    ],
)
def test_a_plugin_for_another_version_is_not_run(site: Site, requirement: str, suits: bool) -> None:
    site.install("pkg_versioned", "versioned", requires=requirement)
    if suits:
        assert find("versioned").name == "versioned"
        return
    with pytest.raises(
        PluginError,
        match=rf"(?s)pkg_versioned 1\.2 is broken:\nmade for resdomains [<~>].*, installed is {__version__}; install a",
    ):
        find("versioned")


def test_an_unknown_task_gets_the_nearest_name(site: Site) -> None:
    site.install("pkg_named", "audio_tagging")
    with pytest.raises(PluginError, match="did you mean 'audio_tagging'"):
        find("audio_taging")
    assert find("audio_tagging").summary == "A test"


def test_a_config_is_a_file_first_then_a_shipped_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = site.install("pkg_configs", "shipping")
    monkeypatch.chdir(tmp_path)
    shipped = folder / "configs" / "first.yaml"
    assert find_config("shipping/first") == shipped
    assert shipped_configs()["shipping/first"].plugin == find("shipping")
    (tmp_path / "shipping").mkdir()
    (tmp_path / "shipping" / "first").write_text("seed: 1")
    assert find_config("shipping/first") == Path("shipping/first")


def test_an_unknown_config_gets_the_nearest_name(site: Site) -> None:
    site.install("pkg_configs2", "shipping")
    with pytest.raises(ConfigNotFound, match="did you mean 'shipping/first'"):
        find_config("shipping/frist")
    with pytest.raises(ConfigNotFound, match="is a folder"):
        find_config(".")


def test_a_plugin_without_its_configs_is_named(site: Site) -> None:
    folder = site.install("pkg_without", "bare")
    (folder / "configs" / "first.yaml").unlink()
    (folder / "configs").rmdir()
    with pytest.raises(
        ConfigNotFound, match=r"pkg_without 1\.2 ships no configs: 'pkg_without\.configs', where"
    ):
        find_config("bare/first")


def test_fragments_are_shipped_configs_without_a_plugin() -> None:
    entry = shipped_configs()["trainer/ddp"]
    assert entry.plugin is None
    assert find_config("trainer/ddp") == entry.path


def test_configs_may_lie_in_an_absolute_folder(tmp_path: Path) -> None:
    plugin = TaskPlugin(name="t", summary="", task="a:B", data={}, configs=str(tmp_path))
    assert config_folder(plugin) == tmp_path
    gone = TaskPlugin(name="t", summary="", task="a:B", data={}, configs=str(tmp_path / "gone"))
    assert config_folder(gone) is None


def test_what_an_extra_lacks_is_named(site: Site) -> None:
    site.install("pkg_extra", "needy", extra="more")
    entry = {entry.name: entry for entry in discover()}["needy"]
    extra = extra_of(entry)
    assert extra.install == "pkg_extra[more]"
    assert extra.missing[0] == "nowhere-to-be-found>=3"
    assert extra.missing[1].startswith("pytest>=99 (have ")
    assert check_extra("pkg_extra", "none").missing == ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "two words"}, "name must be an identifier"),
        ({"task": "a.b.C"}, "task must be written 'package.module:Class'"),
        ({"data": {"D": "a.D"}}, r"data\[D\] must be written"),
        ({"reads_from_disk": ("E",)}, r"reads_from_disk names \['E'\]"),
    ],
)
def test_a_plugin_that_makes_no_sense_is_refused(changed: dict[str, object], message: str) -> None:
    good = {"name": "t", "summary": "", "task": "a.b:C", "data": {"D": "a:D"}, "configs": "a"}
    with pytest.raises(ValueError, match=message):
        TaskPlugin(**{**good, **changed})  # type: ignore[arg-type]


def test_locate_finds_modules_packages_and_folders_without_importing(site: Site) -> None:
    folder = site.install("pkg_located", "located")
    assert locate("pkg_located.plugin") == folder / "plugin.py"
    assert locate("pkg_located") == folder / "__init__.py"
    assert package_folder("pkg_located.configs") == folder / "configs"
    assert locate("pkg_located.missing") is None
    assert locate("no_such_package_at_all.x") is None
    assert "pkg_located" not in sys.modules


def test_nearest_is_none_where_nothing_is_near() -> None:
    assert nearest("merg", ["merge", "norm"]) == "merge"
    assert nearest("xyz", ["merge"]) is None
