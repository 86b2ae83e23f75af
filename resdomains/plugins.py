"""Find task plugins: installed packages with an entry point in the group `resdomains.tasks`.

Listing reads strings only. It loads a plugin's own module by its file and never the package around
it, so that a listing is instant whatever that package's `__init__` imports.
"""

import difflib
import importlib.util
import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from resdomains import __version__

GROUP = "resdomains.tasks"
SHIPPED_CONFIGS = "resdomains_configs"
# What lies beside the configs and is none: studies, each of many runs, and their sweeps for W&B.
STUDIES, SWEEPS = "studies", "sweeps"
# Packages whose classes a config may name beside those of plugins.
IMPORTABLE = (
    "torch",
    "torchvision",
    "pytorch_lightning",
    "torchmetrics",
    "resdomains",
    "resdomains_tasks",
)


class PluginError(Exception):
    """A plugin is missing, broken, or collides with another; the message says which and why."""


class ConfigNotFound(PluginError):
    """No file and no shipped config has the asked name."""


@dataclass(frozen=True, kw_only=True)
class TaskPlugin:
    """What a task is called and where its parts are; strings only, nothing is imported.

    Args:
        name: The task's name, equal to its entry point's name.
        summary: One line for `resdomains tasks`.
        task: `"package.module:Class"` of the Task.
        data: For each data module its short name and `"package.module:Class"`.
        configs: Package (dotted) or absolute folder that holds `<config>.yaml` files.
        extra: The extra of the plugin's distribution that the task needs, if any.
        reads_from_disk: Short names of the data modules that need `--data.root`.

    Raises:
        ValueError: If a class is not written `package.module:Class` or the name is not an identifier.
    """

    name: str
    summary: str
    task: str
    data: Mapping[str, str]
    configs: str
    extra: str | None = None
    reads_from_disk: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name must be an identifier, got {self.name!r}")
        for key, value in {
            "task": self.task,
            **{f"data[{k}]": v for k, v in self.data.items()},
        }.items():
            if not re.fullmatch(r"[\w.]+:\w+", value):
                raise ValueError(f"{key} must be written 'package.module:Class', got {value!r}")
        unknown = sorted(set(self.reads_from_disk) - set(self.data))
        if unknown:
            raise ValueError(f"reads_from_disk names {unknown}, data has {sorted(self.data)}")
        object.__setattr__(self, "data", MappingProxyType(dict(self.data)))

    @property
    def packages(self) -> frozenset[str]:
        """Top-level packages of the task and its data modules."""
        return frozenset(
            value.split(".")[0].split(":")[0] for value in (self.task, *self.data.values())
        )


@dataclass(frozen=True)
class Found:
    """One entry point: where it came from, and its plugin or the error it raised.

    Args:
        name: Name of the entry point.
        value: What the entry point names, `"package.plugin:plugin"`.
        distribution: Name of the installed distribution.
        version: Version of the distribution.
        plugin: The plugin, or None if it is broken.
        error: The traceback of a broken plugin, or why it does not suit this installation, else an empty string.
    """

    name: str
    value: str
    distribution: str
    version: str
    plugin: TaskPlugin | None
    error: str

    @property
    def reason(self) -> str:
        """The last line of the error."""
        return self.error.strip().splitlines()[-1] if self.error else ""


def discover() -> list[Found]:
    """All plugins that are installed, broken ones included, sorted by name.

    Of two that register the same name neither is used: the error of the one that is returned names both.
    """
    found: dict[str, Found] = {}
    for point in metadata.entry_points(group=GROUP):
        entry = _load(point)
        other = found.setdefault(entry.name, entry)
        if (other.distribution, other.value) != (entry.distribution, entry.value):
            error = (
                f"task {entry.name!r} is registered twice: by {_origin(other)} and by {_origin(entry)}; "
                "uninstall one of them"
            )
            found[entry.name] = replace(other, plugin=None, error=error)
    return [found[name] for name in sorted(found)]


def find(name: str) -> TaskPlugin:
    """The plugin of a task.

    Raises:
        PluginError: If no such task is installed or its plugin is broken.
    """
    entries = {entry.name: entry for entry in discover()}
    if name not in entries:
        raise PluginError(f"no task {name!r}; " + suggest(name, entries, "installed tasks"))
    entry = entries[name]
    if entry.plugin is None:
        raise PluginError(f"the plugin {_origin(entry)} is broken:\n{entry.error.rstrip()}")
    return entry.plugin


def importable_packages() -> frozenset[str]:
    """Top-level packages whose classes a config may name."""
    plugins = [entry.plugin for entry in discover() if entry.plugin is not None]
    return frozenset(IMPORTABLE).union(*(plugin.packages for plugin in plugins))


@dataclass(frozen=True)
class ConfigEntry:
    """A shipped config: `group/name`, its file, and the plugin it belongs to, if any."""

    name: str
    path: Path
    plugin: TaskPlugin | None


def shipped_configs() -> dict[str, ConfigEntry]:
    """All shipped configs by name: those of plugins, then fragments such as `trainer/ddp`."""
    configs: dict[str, ConfigEntry] = {}
    entries = discover()
    for entry in entries:
        if entry.plugin is None:
            continue
        folder = config_folder(entry.plugin)
        if folder is not None:
            for path in sorted(folder.glob("*.yaml")):
                name = f"{entry.name}/{path.stem}"
                configs[name] = ConfigEntry(name, path, entry.plugin)
    root = package_folder(SHIPPED_CONFIGS)
    if root is not None:
        # A folder of a task whose plugin is broken is no fragment.
        other = {STUDIES, SWEEPS, *(entry.name for entry in entries)}
        for path in sorted(root.glob("*/*.yaml")):
            name = f"{path.parent.name}/{path.stem}"
            if name not in configs and path.parent.name not in other:
                configs[name] = ConfigEntry(name, path, None)
    return configs


def find_config(name: str) -> Path:
    """The file that `--config NAME` means: an existing file, else a shipped config.

    Raises:
        ConfigNotFound: If there is neither; the message has the nearest name.
    """
    path = Path(name)
    if path.is_file():
        return path
    configs = shipped_configs()
    if name in configs:
        return configs[name].path
    group = name.partition("/")[0]
    for entry in discover():
        if entry.name != group:
            continue
        if entry.plugin is None:
            raise PluginError(
                f"config {name!r}: the plugin {_origin(entry)} is broken: {entry.reason}"
            )
        if config_folder(entry.plugin) is None:
            raise ConfigNotFound(
                f"--config {name}: the plugin {_origin(entry)} ships no configs: {entry.plugin.configs!r}, "
                "where it says that they are, is no package and no folder; give a YAML file of your own"
            )
    if path.is_dir():
        raise ConfigNotFound(
            f"--config {name}: is a folder; a YAML file or a shipped config is needed"
        )
    raise ConfigNotFound(
        f"--config {name}: no such file and no shipped config of that name; "
        + suggest(name, configs, "shipped configs", "resdomains configs")
    )


def shipped_studies() -> dict[str, Path]:
    """The files of all shipped studies, by name."""
    root = package_folder(SHIPPED_CONFIGS)
    paths = [] if root is None else sorted((root / STUDIES).glob("*.yaml"))
    return {path.stem: path for path in paths}


def find_study(name: str) -> Path:
    """The file that `resdomains study NAME` means: an existing file, else a shipped study.

    Raises:
        ConfigNotFound: If there is neither; the message has the nearest name.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    studies = shipped_studies()
    if name in studies:
        return studies[name]
    raise ConfigNotFound(
        f"{name}: no such file and no shipped study of that name; "
        + suggest(name, studies, "shipped studies", "resdomains configs")
    )


def config_folder(plugin: TaskPlugin) -> Path | None:
    """The folder of a plugin's YAML files; None if it does not exist."""
    folder = Path(plugin.configs)
    if folder.is_absolute():
        return folder if folder.is_dir() else None
    return package_folder(plugin.configs)


def package_folder(name: str) -> Path | None:
    """The folder of a package, found without importing it; None if it is not installed."""
    path = locate(name)
    return path.parent if path is not None and path.name == "__init__.py" else path


def locate(name: str) -> Path | None:
    """The file of a module, or the folder of a package without `__init__.py`; nothing is imported.

    `importlib.util.find_spec` would import the packages around it.
    """
    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first)
    if spec is None:
        return None
    if not rest and spec.origin is not None:
        return Path(spec.origin)
    for folder in map(Path, spec.submodule_search_locations or ()):
        path = folder.joinpath(*rest)
        for candidate in (path / "__init__.py", path.with_suffix(".py"), path):
            if candidate.is_file() or (candidate is path and path.is_dir()):
                return candidate
    return None


@dataclass(frozen=True)
class Extra:
    """Whether the requirements of an extra are installed.

    Args:
        install: What to install, such as `resdomains[vision]`; empty if there is no extra.
        missing: Requirements that are absent or of a version that does not fit.
    """

    install: str
    missing: tuple[str, ...]


def extra_of(entry: Found) -> Extra:
    """What a plugin's extra asks for and does not find."""
    if entry.plugin is None or entry.plugin.extra is None:
        return Extra("", ())
    return check_extra(entry.distribution, entry.plugin.extra)


def check_extra(distribution: str, extra: str) -> Extra:
    """Compare the requirements of `distribution[extra]` with what is installed."""
    from packaging.requirements import Requirement

    missing = []
    for line in metadata.requires(distribution) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if (
            marker is None
            or marker.evaluate({"extra": ""})
            or not marker.evaluate({"extra": extra})
        ):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(f"{requirement.name}{requirement.specifier}")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                missing.append(f"{requirement.name}{requirement.specifier} (have {version})")
    return Extra(f"{distribution}[{extra}]", tuple(missing))


def suggest(name: str, known: Iterable[str], what: str, command: str = "") -> str:
    """`did you mean 'x'?` with the nearest known name, and all of them when they are few."""
    names = sorted(known)
    near = nearest(name, names)
    parts = [f"did you mean {near!r}?"] if near else []
    if len(names) <= 12:
        parts.append(f"{what}: {', '.join(names) or 'none'}")
    elif command:
        parts.append(f"`{command}` lists the {len(names)} {what}")
    return " ".join(parts)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a mistyped one, or None if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _origin(entry: Found) -> str:
    return f"{entry.value} of {entry.distribution} {entry.version}"


def _load(point: metadata.EntryPoint) -> Found:
    distribution, version = "unknown", ""
    if point.dist is not None:
        distribution, version = point.dist.name, point.dist.version
        wanted = _wanted(point.dist)
        if wanted:
            # Its code may fail in any way with another version, so it is not run.
            error = (
                f"made for resdomains {wanted}, installed is {__version__}; install a version of {distribution} "
                f"that suits, or pip install 'resdomains{wanted}'"
            )
            return Found(point.name, point.value, distribution, version, None, error)
    plugin, error = None, ""
    try:
        value = _attribute(point.module, point.attr)
        if not isinstance(value, TaskPlugin):
            raise TypeError(f"{point.value} is a {type(value).__name__}, not a TaskPlugin")
        if value.name != point.name:
            raise ValueError(
                f"{point.value} is named {value.name!r}, its entry point {point.name!r}"
            )
        plugin = value
    except Exception:  # a plugin may fail in any way; its error is shown, the others still work
        error = traceback.format_exc()
    return Found(point.name, point.value, distribution, version, plugin, error)


def _wanted(distribution: metadata.Distribution) -> str:
    """The versions of resdomains that a distribution requires, if the installed one is none of them."""
    for line in distribution.requires or ():
        # Those of the built-in tasks' own distribution name its extras, without a version.
        if not re.match(r"resdomains[\s(\[]*[^;]*[<>=!~]", line, re.IGNORECASE):
            continue
        from packaging.requirements import Requirement

        requirement = Requirement(line)
        if requirement.name.lower() != "resdomains":
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and not requirement.specifier.contains(__version__, prereleases=True):
            return str(requirement.specifier)
    return ""


def _attribute(module: str, attribute: str) -> Any:
    path = locate(module)
    spec = None if path is None else importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return getattr(loaded, attribute)
