"""What a task supplies so that it can be checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resdomains.plugins import PluginError, TaskPlugin, find, shipped_configs
from resdomains.training import DataModule, Task


@dataclass(frozen=True, kw_only=True)
class BadFile:
    """A file that the task must refuse by name when it predicts.

    Args:
        name: File name.
        content: What it holds.
        message: Regular expression that the reason must contain.
    """

    name: str
    content: bytes
    message: str


@dataclass(frozen=True, kw_only=True)
class BadArgument:
    """A config value that must be refused before training.

    Args:
        key: Dotted key, such as `data.batch_size`.
        value: Its text, as on the command line.
        message: Regular expression that the error must contain.
    """

    key: str
    value: str
    message: str


@dataclass(frozen=True, kw_only=True)
class TaskCase:
    """A task and the material that its checks need.

    Args:
        plugin: The task's plugin.
        config: A run of seconds: name or path of a YAML config, or its keys and values. An epoch must have at least
            three steps, and there must be a validation split.
        changes: Dotted keys to set on top of the config, with their text.
        shipped: Dotted keys to set on top of shipped configs, beside batches of eight samples, by a config's name or a
            pattern such as `audio_tagging/*`.
        modules: Modules to import first, as `--plugin` names them; for classes of packages that are no plugin's.
        inputs: Writes at least three files to predict into a folder, of different sizes where sizes may differ, and
            returns their paths.
        bad_files: Files that cannot be read, with the reason that must be given; at least one.
        bad_arguments: Config values that cannot be used, with the reason that must be given; at least one.
        batch: Makes the batch to overfit from the built task and data; the first eight training samples, without
            augmentation, if None. A task that learns from its own actions gives a fixed rollout.
        overfit_steps: Optimizer steps, at the config's rate, in which that batch must be learned.
        sample_wise: Changes after which a training loss is the mean of what each sample alone would give: without
            batch norm above all. One and two processes are compared with these.
        roots: For shipped configs whose data lie on this machine, the folder to give as `--data.root`.
        exportable: Changes after which the network is one that every format can express, if the config's is not.
        exported: For each format that the task exports, what runs the exported folder on the files of `inputs` with
            the library that the format is for: a mapping for each prediction, with some of the names that the record
            has, and what they should be; an empty one for a file that the export cannot take as it lies there.
        bf16_tolerance: How far bfloat16 may move the loss, relative to float32.
        exempt: Checks that the task need not pass, by name, each with its reason.

    Raises:
        ValueError: If an exemption has no reason.
    """

    plugin: TaskPlugin
    config: Mapping[str, Any] | str | Path
    changes: Mapping[str, str] = field(default_factory=dict)
    shipped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    modules: Sequence[str] = ()
    inputs: Callable[[Path], Sequence[Path]] | None = None
    bad_files: Sequence[BadFile] = ()
    bad_arguments: Sequence[BadArgument] = ()
    batch: Callable[[Task, DataModule], Any] | None = None
    overfit_steps: int = 100
    sample_wise: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, Path] = field(default_factory=dict)
    exportable: Mapping[str, str] = field(default_factory=dict)
    exported: Mapping[str, Callable[[Path, Sequence[Path]], Sequence[Mapping[str, Any]]]] = field(
        default_factory=dict
    )
    bf16_tolerance: float = 0.05
    exempt: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, reason in self.exempt.items():
            if not reason.strip():
                raise ValueError(f"exempt[{name!r}] needs a reason")

    @classmethod
    def of(cls, task: "TaskCase | TaskPlugin | str") -> "TaskCase":
        """Return the case itself, or one with the first shipped config of a plugin that needs no data on disk.

        Raises:
            PluginError: If there is no such task or no such config.
        """
        if isinstance(task, TaskCase):
            return task
        plugin = find(task) if isinstance(task, str) else task
        for name, entry in shipped_configs().items():
            if entry.plugin == plugin and not reads_from_disk(plugin, entry.path):
                return cls(plugin=plugin, config=name)
        raise PluginError(
            f"task {plugin.name!r} ships no config that trains with nothing but the install; "
            "give check_task a TaskCase with one"
        )


def reads_from_disk(plugin: TaskPlugin, config: Path) -> bool:
    """Say whether a config's data module needs `--data.root`."""
    from resdomains.cli.yaml_files import read_config

    data = read_config(config).get("data")
    path = data.get("class_path", "") if isinstance(data, dict) else str(data)
    return path.rpartition(".")[2] in plugin.reads_from_disk
