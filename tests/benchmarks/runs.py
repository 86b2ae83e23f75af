"""Run `resdomains fit` as a user would and read what it reports."""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any


def fit(*arguments: str) -> dict[str, Any]:
    """Run `resdomains fit` in a process of its own.

    Returns:
        The run's `summary.json`, with its `folder`, and `wall_seconds`: from the start of the process to its end.
    """
    return _fit(Path(mkdtemp(prefix="resdomains-benchmark-")), arguments)


def fit_once(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run `resdomains fit` unless the folder holds a finished run of the same arguments, and keep what `fit` returns.

    Args:
        folder: Of this run alone.
        arguments: Of the command.
    """
    kept = folder / "result.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text())
        if result["arguments"] == list(arguments):
            return result
    if folder.exists():
        shutil.rmtree(folder)
    result = {**_fit(folder, arguments), "arguments": list(arguments)}
    kept.write_text(json.dumps(result, indent=2) + "\n")
    return result


def first_gradient_ratio(folder: str) -> float | None:
    """Return the gradient norm of a run's first block over that of its last, as first measured.

    Args:
        folder: Of a run with `resdomains.probes.GradientFlow`; None comes back if that measured nothing.
    """
    with (Path(folder) / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get("residual/grad_ratio"):
                return float(row["residual/grad_ratio"])
    return None


def _fit(root: Path, arguments: Sequence[str]) -> dict[str, Any]:
    command = str(Path(sys.executable).with_name("resdomains"))
    began = time.perf_counter()
    subprocess.run([command, "fit", *arguments, "--run.root", str(root)], check=True)
    wall = time.perf_counter() - began
    (summary,) = root.rglob("summary.json")
    facts: dict[str, Any] = json.loads(summary.read_text())
    return {**facts, "folder": str(summary.parent), "wall_seconds": wall}
