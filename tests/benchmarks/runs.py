"""Run `resdomains fit` as a user would and read what it reports."""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any


def fit(*arguments: str) -> dict[str, Any]:
    """Run `resdomains fit` in a process of its own.

    Returns:
        The run's `summary.json`, with its `folder`, and `wall_seconds`: from the start of the process to its end.
    """
    root = Path(mkdtemp(prefix="resdomains-benchmark-"))
    command = str(Path(sys.executable).with_name("resdomains"))
    began = time.perf_counter()
    subprocess.run([command, "fit", *arguments, "--run.root", str(root)], check=True)
    wall = time.perf_counter() - began
    (summary,) = root.rglob("summary.json")
    facts: dict[str, Any] = json.loads(summary.read_text())
    return {**facts, "folder": str(summary.parent), "wall_seconds": wall}
