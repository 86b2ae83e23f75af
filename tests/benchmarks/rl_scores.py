"""The shipped configs of policies over seeds, whole processes of the real command.

A run is judged by the mean return of its 100 test episodes, played by the policy that did best in validation; the seeds
by their mean and their interquartile mean with a bootstrap interval (Agarwal et al. 2021). Runs that have finished are
read, so that the benchmark goes on where it stopped; after a change of a shipped config give another `--kept`.

python -m tests.benchmarks.rl_scores [--only cartpole acrobot] [--seeds 5] [--kept runs/benchmarks/rl_scores]
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from resdomains.statistics import bootstrap_interval, interquartile_mean
from tests.benchmarks.measure import OUTPUT, report
from tests.benchmarks.runs import fit_once

CONFIGS = ("cartpole", "acrobot", "pendulum", "lunarlander", "minatar_breakout")
SEEDS = {"cartpole": 10}


def rows(name: str, seeds: int, kept: Path) -> list[dict[str, Any]]:
    """Train a shipped config with several seeds."""
    found: list[dict[str, Any]] = []
    for seed in range(seeds):
        run = fit_once(
            kept / name / f"seed-{seed}",
            "--config",
            f"rl_policy/{name}",
            "--seed",
            str(seed),
            "--run.wandb.mode",
            "disabled",
        )
        found.append(
            {
                "config": name,
                "what": f"seed {seed}",
                "test/return": run["test/return"],
                "samples": run["samples"],
                "minutes of training": run["seconds"] / 60,
                "seconds of the process": run["wall_seconds"],
            }
        )
    returns = [row["test/return"] for row in found]
    rest = {
        "samples": statistics.mean(row["samples"] for row in found),
        "minutes of training": statistics.median(row["minutes of training"] for row in found),
        "seconds of the process": statistics.median(row["seconds of the process"] for row in found),
    }
    low, high = bootstrap_interval(returns)
    return [
        *found,
        {"config": name, "what": "mean", "test/return": statistics.mean(returns), **rest},
        {"config": name, "what": "lowest", "test/return": min(returns)},
        {
            "config": name,
            "what": f"interquartile mean, 95 % [{low:.4g}, {high:.4g}]",
            "test/return": interquartile_mean(returns),
        },
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--seeds", type=int, help="5, and of CartPole 10, unless given")
    parser.add_argument("--kept", type=Path, default=OUTPUT / "rl_scores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        seeds = arguments.seeds or SEEDS.get(name, 5)
        # A table each: a run of the benchmark with --only leaves the others' alone.
        report(f"rl_scores_{name}", rows(name, seeds, arguments.kept))


if __name__ == "__main__":
    main()
