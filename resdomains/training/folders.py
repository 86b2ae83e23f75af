"""The folder that a data module is given."""

from pathlib import Path


def existing_folder(root: str) -> Path:
    """Return `root` as a path.

    Raises:
        ValueError: If it is not a folder.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ValueError(f"root: {path} {what}; set --data.root to the folder that holds the data")
    return path
