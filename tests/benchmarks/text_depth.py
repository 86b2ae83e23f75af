"""VDCNN of 9, 17, 29 and 49 convolutions with and without shortcuts, on sentences of SST-2 by characters.

Conneau et al. (2017) found on millions of texts that shortcuts lose up to 29 layers and win at 49.

python -m tests.benchmarks.text_depth --root ../shared/data/sst2 [--seeds 3] [--epochs 8]
"""

import argparse
import statistics
from typing import Any

from tests.benchmarks.measure import report
from tests.benchmarks.runs import fit

DEPTHS = (9, 17, 29, 49)


def run(root: str, network: str, seed: int, epochs: int) -> dict[str, Any]:
    """Train one network as the shipped config does."""
    return fit(
        "--config",
        "text_classification/sst2_vdcnn",
        "--data.root",
        root,
        "--model.backbone",
        network,
        "--seed",
        str(seed),
        "--trainer.max_epochs",
        str(epochs),
        "--run.wandb.mode",
        "disabled",
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder of SST-2's tables")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    rows = []
    for depth in DEPTHS:
        for name in (f"plain_vdcnn{depth}", f"vdcnn{depth}"):
            runs = [
                run(arguments.root, name, seed, arguments.epochs) for seed in range(arguments.seeds)
            ]
            test = [100 * r["test/score"] for r in runs]
            rows.append(
                {
                    "network": name,
                    "shortcuts": "none" if name.startswith("plain") else "Add",
                    "best val/score": statistics.mean(r["best"]["val/score"] for r in runs) * 100,
                    "test/score": statistics.mean(test),
                    "from": min(test),
                    "to": max(test),
                    "seconds a run": statistics.mean(r["wall_seconds"] for r in runs),
                }
            )
            report("text_depth", rows)


if __name__ == "__main__":
    main()
