"""Which files of a folder train, validate and test."""

import re
from collections.abc import Mapping
from pathlib import Path

from resdomains.schema import Split

from .tables import SUFFIXES

SPLITS: tuple[Split, ...] = ("train", "val", "test")
ALIASES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test",),
}
"""What files and folders of a split are called."""

# As the Hugging Face Hub names the parts of a split: train-00000-of-00002, older ones with a hash at the end.
_SHARD = r"(?:-\d+(?:-of-\d+)?(?:-[0-9a-f]+)?)?"
_NO_TABLES = re.compile(
    "readme|licen[cs]e|notice|citation|source|requirements|dataset_infos?", re.I
)


def existing(root: str) -> Path:
    """Return `root` as a path.

    Raises:
        ValueError: If there is nothing.
    """
    path = Path(root).expanduser()
    if not path.exists():
        raise ValueError(
            f"root: {path} does not exist; set --data.root to the file or the folder that holds the texts"
        )
    return path


def find_tables(root: Path, given: Mapping[Split, str | None]) -> dict[Split, list[Path]]:
    """Find the tables of each split.

    Args:
        root: A file, which is then the training split, or a folder.
        given: Names of files below the folder; None for a split that is to be found.

    Returns:
        The files of each split that there is; `train` is always there.

    Raises:
        ValueError: If there is no training file, or it is not clear which it is; the message says what was looked for.
    """
    if root.is_file():
        named = [f"{split} {name!r}" for split, name in given.items() if name is not None]
        if named:
            raise ValueError(
                f"root: {root} is a file, the training texts; for {', '.join(named)} give the folder that holds all"
            )
        return {"train": [root]}
    found: dict[Split, list[Path]] = {}
    for split in SPLITS:
        name = given[split]
        if name is not None:
            path = root / name
            if not path.is_file():
                what = "is a folder" if path.is_dir() else "does not exist"
                raise ValueError(f"{split}: {path} {what}; {_holds(root)}")
            found[split] = [path]
            continue
        paths = _of_split(root, split)
        if paths:
            found[split] = paths
    if "train" in found:
        return found
    tables = [path for path in _tables(root) if not _NO_TABLES.match(path.stem)]
    if len(tables) == 1 and not found:
        return {"train": tables}
    raise ValueError(
        f"root: {root} holds no training table; looked for {' and '.join(ALIASES['train'])} with "
        f"{', '.join(SUFFIXES)}, also in parts (train-00000-of-00002.parquet), in data/ and in train/; "
        f"{_holds(root)}; name the file with --data.train"
    )


def _of_split(root: Path, split: Split) -> list[Path]:
    names = "|".join(ALIASES[split])
    pattern = re.compile(f"({names}){_SHARD}", re.I)
    for folder in (root, root / "data"):
        paths = [path for path in _tables(folder) if pattern.fullmatch(path.stem)]
        kinds = {(path.stem.casefold().split("-")[0], path.suffix.lower()) for path in paths}
        if len(kinds) > 1:
            raise ValueError(
                f"{split}: {', '.join(path.name for path in paths)} in {folder} could all be it; "
                f"name one with --data.{split}"
            )
        if paths:
            return paths
        for name in ALIASES[split]:
            paths = _tables(folder / name)
            if paths:
                return paths
    return []


def _tables(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def _holds(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"the folder holds {', '.join(names[:12]) or 'nothing'}{more}"
