"""Read a study's file and list its runs. Nothing here imports torch."""

import fnmatch
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resdomains.plugins import suggest

_KEYS = ("name", "seeds", "set", "axes", "bases", "minutes", "compare")
_BASE_KEYS = ("config", "set", "axes", "leave_out")
_COMPARE_KEYS = ("x", "y", "title")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")

ROOT = Path("runs/studies")
"""Where studies lie unless another place is asked for, each in a folder of its name."""

Settings = Mapping[str, Any]
"""Dotted config keys and their values."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Args:
        study: Name of the study.
        configs: Configs, merged from left to right.
        labels: For each axis the label of its value.
        settings: What is set on top of the configs.
        seed: The run's seed.
    """

    study: str
    configs: tuple[str, ...]
    labels: Mapping[str, str]
    settings: Settings
    seed: int

    @property
    def title(self) -> str:
        """What a person calls it."""
        return ", ".join([self.configs[0], *self.labels.values(), f"seed {self.seed}"])

    @property
    def id(self) -> str:
        """Name of its folder: readable, and another one as soon as anything of the run is another."""
        described = json.dumps(
            [self.configs, dict(self.settings), self.seed], sort_keys=True, default=str
        )
        digest = hashlib.sha256(described.encode()).hexdigest()[:6]
        # 1e+30 must not read 1e-30.
        labels = (re.sub(r"(?<=\de)\+(?=\d)", "", label) for label in self.labels.values())
        words = [*labels, f"seed{self.seed}"]
        readable = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.") for word in words)
        return f"{readable[:70].strip('_')}-{digest}"

    def arguments(self, root: Path) -> list[str]:
        """Return the arguments of `resdomains fit`.

        Args:
            root: Folder of the study's runs.
        """
        tokens = [part for config in self.configs for part in ("--config", config)]
        for key, value in self.settings.items():
            tokens += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
        tokens += ["--seed", str(self.seed), "--run.root", str(root), "--run.id", self.id]
        # Whoever set a group has it; a study is one in W&B else.
        if "run.wandb.group" not in self.settings:
            tokens += ["--run.wandb.group", self.study]
        return tokens


@dataclass(frozen=True)
class LeftOut:
    """A part of the grid that is not run, and why.

    Args:
        config: The base's first config.
        labels: Labels of the axes that it is about.
        because: The reason.
    """

    config: str
    labels: Mapping[str, str]
    because: str

    def __str__(self) -> str:
        what = ", ".join(f"{axis} {label}" for axis, label in self.labels.items())
        return f"{self.config}, {what}: {self.because}"


@dataclass(frozen=True)
class Study:
    """What a study's file says.

    Args:
        name: Its name.
        runs: Its runs, seed by seed, so that a study that is stopped early has all of its grid.
        left_out: What the file leaves out, with reasons.
        minutes: How long a run may take; None for as long as it takes.
        compare: Options of the comparison at the end: `x`, `y`, `title`.
    """

    name: str
    runs: Sequence[PlannedRun]
    left_out: Sequence[LeftOut] = ()
    minutes: float | None = None
    compare: Mapping[str, str] = field(default_factory=dict)


def chosen(study: Study, names: Sequence[str]) -> Study:
    """Return a study with some of its runs.

    Args:
        study: The study.
        names: Ids of runs, or patterns (`*`, `?`, `[...]`) of them, alone or behind the config:
            `image_classification/digits/*seed0*`.

    Raises:
        ValueError: If one of them is of no run.
    """
    found: set[str] = set()
    for name in names:
        ids = {
            run.id
            for run in study.runs
            if any(fnmatch.fnmatchcase(of, name) for of in (run.id, f"{run.configs[0]}/{run.id}"))
        }
        if not ids:
            raise ValueError(
                f"no run {name!r} in {study.name}; "
                + suggest(name, [run.id for run in study.runs], "runs", "--dry-run")
            )
        found |= ids
    return replace(study, runs=[run for run in study.runs if run.id in found])


def read_study(content: Any, name: str) -> Study:
    """Return the study that a YAML file describes.

    Args:
        content: What the file holds: `bases`, each with `config` (a name, or a list of them), and optionally `set`
            (dotted keys of all its runs), `axes` and `leave_out`; for all bases `set`, `axes` and `seeds`; `minutes`,
            `compare`, `name`. An axis is a dotted key with a list of values, or a name with labels, each of which sets
            several keys.
        name: The study's name unless the file gives one.

    Raises:
        ValueError: If something in it is not accepted, with its place and what is.
    """
    whole = _mapping(content, "the study", _KEYS)
    name = str(whole.get("name", name))
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: expected letters, digits, '.', '_' and '-', got {name!r}")
    seeds = whole.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise ValueError(f"seeds: expected a list of whole numbers, got {seeds!r}")
    bases = whole.get("bases")
    if not isinstance(bases, list) or not bases:
        raise ValueError(
            "bases: expected a list of mappings with a config each, such as {config: image_classification/digits}"
        )
    minutes = whole.get("minutes")
    if minutes is not None and (isinstance(minutes, bool) or not _positive(minutes)):
        raise ValueError(f"minutes: expected a number above 0, got {minutes!r}")
    runs: list[PlannedRun] = []
    left_out: list[LeftOut] = []
    for seed in seeds:
        for place, base in enumerate(bases):
            where = f"bases.{place}"
            kept, dropped = _grid(base, whole, where)
            for configs, labels, settings in kept:
                runs.append(PlannedRun(name, configs, labels, settings, seed))
            if seed == seeds[0]:
                left_out += dropped
    if len({run.id for run in runs}) < len(runs):
        raise ValueError("bases: two of the runs are the same")
    compare = _mapping(whole.get("compare", {}), "compare", _COMPARE_KEYS)
    return Study(name, runs, left_out, minutes, {key: str(value) for key, value in compare.items()})


_Point = tuple[tuple[str, ...], dict[str, str], dict[str, Any]]


def _grid(base: Any, whole: Settings, where: str) -> tuple[list[_Point], list[LeftOut]]:
    """The points of one base, and what it leaves out."""
    values = _mapping(base, where, _BASE_KEYS)
    given = values.get("config")
    configs = tuple(given) if isinstance(given, list) else (given,)
    if not configs or not all(isinstance(config, str) for config in configs):
        raise ValueError(f"{where}.config: expected the name of a config, or a list, got {given!r}")
    common = {
        **_settings(whole.get("set", {}), "set"),
        **_settings(values.get("set", {}), f"{where}.set"),
    }
    axes = {
        **_axes(whole.get("axes", {}), "axes"),
        **_axes(values.get("axes", {}), f"{where}.axes"),
    }
    rules = list(_rules(values.get("leave_out", []), axes, f"{where}.leave_out"))
    kept: list[_Point] = []
    for labels in itertools.product(*axes.values()):
        named = dict(zip(axes, labels, strict=True))
        if any(all(named[a] == label for a, label in rule.items()) for rule, _ in rules):
            continue
        settings = dict(common)
        for axis, label in named.items():
            settings |= axes[axis][label]
        kept.append((configs, named, settings))
    return kept, [LeftOut(configs[0], rule, because) for rule, because in rules]


def _axes(content: Any, where: str) -> dict[str, dict[str, dict[str, Any]]]:
    """For each axis the settings of each of its labels."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for axis, values in _mapping(content, where).items():
        if isinstance(values, list) and values:
            found[axis] = {_label(value): {axis: value} for value in values}
            if len(found[axis]) < len(values):
                raise ValueError(f"{where}.{axis}: a value stands there twice")
        elif isinstance(values, dict) and values:
            found[axis] = {
                str(label): _settings(settings, f"{where}.{axis}.{label}")
                for label, settings in values.items()
            }
        else:
            raise ValueError(
                f"{where}.{axis}: expected a list of values of this key, or labels with keys to set, got {values!r}"
            )
    return found


def _label(value: Any) -> str:
    """A value in a word: its own text, or the class that a part names."""
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    return value if isinstance(value, str) else json.dumps(value)


def _rules(
    content: Any, axes: Mapping[str, Mapping[str, Any]], where: str
) -> Iterator[tuple[dict[str, str], str]]:
    if not isinstance(content, list):
        raise ValueError(f"{where}: expected a list, got {content!r}")
    for place, item in enumerate(content):
        rule = dict(_mapping(item, f"{where}.{place}"))
        because = rule.pop("because", None)
        if not rule or not isinstance(because, str) or not because.strip():
            raise ValueError(
                f"{where}.{place}: expected an axis with its label, and `because` with the reason, got {item!r}"
            )
        for axis, label in rule.items():
            if axis not in axes:
                raise ValueError(
                    f"{where}.{place}: no axis {axis!r}; " + suggest(axis, axes, "axes")
                )
            if _label(label) not in axes[axis]:
                raise ValueError(
                    f"{where}.{place}.{axis}: no value {label!r}; "
                    + suggest(_label(label), axes[axis], "values")
                )
        yield {axis: _label(label) for axis, label in rule.items()}, because


def _settings(content: Any, where: str) -> dict[str, Any]:
    settings = dict(_mapping(content, where))
    for key in settings:
        if not all(part for part in key.split(".")):
            raise ValueError(f"{where}: {key!r} is no dotted key")
        if key in ("seed", "run.id", "run.root", "ckpt_path", "config"):
            raise ValueError(f"{where}: {key} is set for each run by the study itself")
    return settings


def _mapping(content: Any, where: str, allowed: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{where}: expected keys and values, got {content!r}")
    for key in content:
        if allowed and key not in allowed:
            raise ValueError(f"{where}: no key {key!r}; " + suggest(key, allowed, "keys"))
    return content


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")
