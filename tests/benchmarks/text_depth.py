"""VDCNN of 9, 17, 29 and 49 convolutions with and without shortcuts, on sentences of SST-2 by characters.

Conneau et al. (2017) found on millions of texts that shortcuts lose up to 29 layers and win at 49. The shipped config
with another network, all else equal; a plain twin has exactly the weights of its residual one. Beside the scores stands
the first gradient ratio that was measured: the gradient norm of the first block over that of the last. Runs that have
finished are read, so that the benchmark goes on where it stopped.

python -m tests.benchmarks.text_depth --root ../shared/data/sst2 [--seeds 3] [--depths 9 17 29 49] [--jobs 2]
"""

import argparse
import itertools
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import OUTPUT, report
from tests.benchmarks.runs import first_gradient_ratio, fit_once

NETWORKS = {"plain": "plain_vdcnn", "residual": "vdcnn"}


def run(depth: int, network: str, seed: int, root: str, kept: Path) -> dict[str, Any]:
    """Train one network as the shipped config does."""
    return fit_once(
        kept / f"{network}-{depth}" / f"seed-{seed}",
        "--config",
        "text_classification/sst2_vdcnn",
        "--data.root",
        root,
        "--trainer.callbacks+",
        "resdomains.probes.GradientFlow",
        "--model.backbone",
        f"{NETWORKS[network]}{depth}",
        "--seed",
        str(seed),
        "--run.wandb.mode",
        "disabled",
    )


def row(depth: int, network: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the table."""
    test = [100 * run["test/score"] for run in runs]
    ratios = [ratio for run in runs if (ratio := first_gradient_ratio(run["folder"])) is not None]
    return {
        "convolutions": depth,
        "network": network,
        "seeds": len(runs),
        "best val/score": statistics.mean(100 * run["best"]["val/score"] for run in runs),
        "test/score": statistics.mean(test),
        "lowest seed": min(test),
        "highest seed": max(test),
        "gradient, first / last block": statistics.median(ratios) if ratios else None,
        "minutes a run": statistics.median(run["seconds"] for run in runs) / 60,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder of SST-2's tables")
    parser.add_argument("--depths", type=int, nargs="+", default=[9, 17, 29, 49])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--kept", type=Path, default=OUTPUT / "text_depth")
    arguments = parser.parse_args()
    setups = list(itertools.product(arguments.depths, NETWORKS))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        # Seed by seed, so that a benchmark that is stopped has all depths with fewer seeds.
        found = {
            (setup, seed): pool.submit(run, *setup, seed, arguments.root, arguments.kept)
            for seed in range(arguments.seeds)
            for setup in sorted(setups, reverse=True)
        }
        for seeds in range(1, arguments.seeds + 1):
            rows = [
                row(*setup, [found[setup, seed].result() for seed in range(seeds)])
                for setup in setups
            ]
            report("text_depth", rows)


if __name__ == "__main__":
    main()
