"""Find the runs that somebody names: folders, globs, files of W&B, projects in W&B, studies."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resdomains.comparing.folders import SUMMARY, read_folder
from resdomains.comparing.offline import read_offline
from resdomains.comparing.online import PREFIX, read_online
from resdomains.comparing.runs import RecordedRun, UnreadableRun, joined
from resdomains.studies import ROOT


@dataclass(frozen=True)
class Found:
    """The runs that were asked for.

    Args:
        runs: Each run once and whole.
        left_out: What could not be read, each with the reason.
    """

    runs: list[RecordedRun]
    left_out: list[UnreadableRun]


def read_runs(asked: Sequence[str]) -> Found:
    """Read runs.

    Args:
        asked: Run folders, folders that hold some at any depth, `run-<id>.wandb` files, globs of these, names of
            studies, and `wandb:PROJECT` or `wandb:ENTITY/PROJECT[/GROUP]`.

    Raises:
        ValueError: If something that was asked for is not there or holds no run.
    """
    runs: list[RecordedRun] = []
    left_out: list[UnreadableRun] = []
    local = [text for text in asked if not text.startswith(PREFIX)]
    for path in dict.fromkeys(path for text in local for path in _paths(text)):
        try:
            runs.append(read_offline(path) if path.is_file() else read_folder(path))
        except UnreadableRun as error:
            left_out.append(error)
    for text in dict.fromkeys(text for text in asked if text.startswith(PREFIX)):
        for run in read_online(text):
            if isinstance(run, RecordedRun):
                runs.append(run)
            else:
                left_out.append(run)
    return Found(joined(runs), left_out)


def _paths(text: str) -> Iterable[Path]:
    """The run folders and W&B files at what a user wrote, in a fixed order."""
    # pathlib's globs begin in a folder; what a shell would expand may begin anywhere.
    found = sorted(glob.glob(text, recursive=True))  # noqa: PTH207
    named = [Path(name) for name in found] or [Path(text)]
    if not found and (ROOT / text).is_dir():
        named = [ROOT / text]
    paths = [path.resolve() for start in named for path in _runs_below(start)]
    if not paths:
        what = "holds no run" if named[0].exists() else "is not there"
        raise ValueError(
            f"{text}: {what}; give run folders (runs/<task>/<config>/<time>), folders of them, globs, "
            "a study's name, W&B's run-<id>.wandb files, or wandb:ENTITY/PROJECT[/GROUP]"
        )
    return paths


def _runs_below(start: Path) -> Iterable[Path]:
    if start.is_file():
        return [start.parent if start.name == SUMMARY else start]
    folders = sorted(path.parent for path in start.rglob(SUMMARY))
    owned = {folder.resolve() for folder in folders}
    # A run's folder holds its W&B files too: the same run, once is enough.
    files = [
        path
        for path in sorted(start.rglob("run-*.wandb"))
        if not owned & set(path.resolve().parents)
    ]
    return [*folders, *files]
