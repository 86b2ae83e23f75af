"""The shipped configs of object detection, whole processes, from the real command.

python -m tests.benchmarks.object_detection --data ../shared/data [--seeds 3] [--only scenes]
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import report
from tests.benchmarks.runs import fit

SEEDS = {"scenes": 1, "bccd": 1}


def run(config: str, folder: Path, seed: int) -> dict[str, Any]:
    """Train a shipped config and return what its test says."""
    root = ["--data.root", str(folder / config)] if config == "bccd" else []
    found = fit(
        "--config",
        f"object_detection/{config}",
        *root,
        "--seed",
        str(seed),
        "--run.wandb.mode",
        "disabled",
    )
    return {
        "data": config,
        "seed": seed,
        "AP": found["test/ap"],
        "AP50": found["test/ap50"],
        "AP75": found["test/ap75"],
        "AP of each class": _classes(Path(found["folder"]) / "tables" / "test_classes.csv"),
        "training s": found["seconds"],
        "process s": found["wall_seconds"],
    }


def _classes(table: Path) -> str:
    with table.open(newline="", encoding="utf-8") as file:
        return ", ".join(f"{row['class']} {float(row['ap']):.3f}" for row in csv.DictReader(file))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of bccd")
    parser.add_argument("--seeds", type=int, help="in place of those of each set")
    parser.add_argument("--only", choices=SEEDS)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, usual in SEEDS.items():
        if arguments.only in (None, name):
            for seed in range(arguments.seeds or usual):
                rows.append(run(name, arguments.data, seed))
                report("object_detection", rows)


if __name__ == "__main__":
    main()
