"""`resdomains tasks` and `resdomains configs`: what is installed, read without importing torch."""

import re
from collections.abc import Mapping
from typing import Any

from resdomains.cli.arguments import split
from resdomains.cli.errors import FAILED, CliError
from resdomains.cli.tables import table
from resdomains.cli.yaml_files import read_config, summary_of
from resdomains.plugins import (
    ConfigEntry,
    Found,
    config_folder,
    discover,
    extra_of,
    shipped_configs,
    shipped_studies,
)

HELP = {
    "tasks": "usage: resdomains tasks\n\nList the installed tasks, where each comes from and what it still needs.",
    "configs": "usage: resdomains configs\n\nList the shipped configs: task, data set and what each needs.",
}


def run(name: str, arguments: list[str]) -> int:
    """Print the asked list; 1 if a plugin is broken."""
    if {"-h", "--help"} & set(arguments):
        print(HELP[name])
        return 0
    split(arguments)
    return _tasks() if name == "tasks" else _configs()


def _tasks() -> int:
    entries = discover()
    if not entries:
        raise CliError(
            "no task is installed; pip install 'resdomains[vision]' brings image_classification"
        )
    rows = [
        (
            entry.name,
            f"{entry.distribution} {entry.version}",
            entry.value,
            state(entry),
            entry.plugin.summary if entry.plugin is not None else entry.reason,
        )
        for entry in entries
    ]
    print(table(("task", "from", "entry point", "state", "summary"), rows))
    broken = [entry for entry in entries if entry.plugin is None]
    for entry in broken:
        print(
            f"\n{entry.name} ({entry.value} of {entry.distribution} {entry.version}) is broken:\n{entry.error}"
        )
    return FAILED if broken else 0


def state(entry: Found) -> str:
    """`ready`, `broken`, what to install, or that there are no configs."""
    if entry.plugin is None:
        return "broken"
    if config_folder(entry.plugin) is None:
        return "no configs"
    extra = extra_of(entry)
    if not extra.missing:
        return "ready"
    return f"pip install '{extra.install}'"


def _configs() -> int:
    extras = {entry.name: extra_of(entry) for entry in discover()}
    runs, fragments = [], []
    for entry in shipped_configs().values():
        try:
            values, summary = read_config(entry.path), summary_of(entry.path)
        except CliError as error:
            values, summary = {}, f"broken: {error}"
        if entry.plugin is None:
            fragments.append((entry.name, summary))
            continue
        extra = extras[entry.plugin.name]
        needs = [f"pip install '{extra.install}'"] if extra.missing else []
        runs.append(
            (entry.name, _data(values), ", ".join(needs + _folder(entry, values)) or "-", summary)
        )
    if not runs and not fragments:
        raise CliError("no config is installed")
    if runs:
        print(table(("config", "data", "needs", "summary"), runs))
    if fragments:
        print("\nto add behind another --config:\n")
        print(table(("fragment", "summary"), fragments))
    studies = [(name, summary_of(path)) for name, path in shipped_studies().items()]
    if studies:
        print("\nstudies, for `resdomains study`:\n")
        print(table(("study", "summary"), studies))
    return 0


def _data(values: Mapping[str, Any]) -> str:
    data = values.get("data")
    if isinstance(data, str):
        return data.rpartition(".")[2]
    if isinstance(data, dict) and isinstance(data.get("class_path"), str):
        return str(data["class_path"]).rpartition(".")[2]
    return "-"


def _folder(entry: ConfigEntry, values: Mapping[str, Any]) -> list[str]:
    if entry.plugin is None or _data(values) not in entry.plugin.reads_from_disk:
        return []
    data = values.get("data")
    given = (data.get("init_args") or {}) if isinstance(data, dict) else {}
    root = given.get("root")
    return [
        "--data.root FOLDER"
        if root is None or not re.match(r"[\w./~]", str(root))
        else f"data in {root}"
    ]
