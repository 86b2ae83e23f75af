"""Residual trunks against plain ones at four depths, learning control by PPO.

The shipped configs of Acrobot-v1 and LunarLander-v3 with another trunk: as many blocks of 32 channels as asked, whose
branch is added to what passes it (`Add`) or stands alone (`BranchOnly`), all else equal. The critic shares the trunk,
and training is a third as long as shipped, validated five times. Beside the return of the test episodes stands the
first gradient ratio that was measured: the gradient norm of the first block over that of the last. Runs that have
finished are read, so that the benchmark goes on where it stopped.

python -m tests.benchmarks.rl_depth [--only acrobot] [--seeds 5] [--depths 2 8 32 128] [--jobs 2] [--picture]
"""

import argparse
import itertools
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from resdomains.statistics import bootstrap_interval, interquartile_mean
from tests.benchmarks.measure import OUTPUT, report
from tests.benchmarks.runs import first_gradient_ratio, fit_once

STEPS = {"acrobot": 150_000, "lunarlander": 300_000}
EPOCHS = 5
TRUNKS = {"residual": "Add", "plain": "BranchOnly"}
PICTURE = Path(__file__).parent / "pictures" / "rl_depth.png"


def run(name: str, trunk: str, depth: int, seed: int, kept: Path) -> dict[str, Any]:
    """Train one policy."""
    return fit_once(
        kept / name / f"{trunk}-{depth}" / f"seed-{seed}",
        "--config",
        f"rl_policy/{name}",
        "--trainer.callbacks+",
        "resdomains.probes.GradientFlow",
        "--model.backbone.layers",
        str(depth),
        "--model.backbone.merge",
        TRUNKS[trunk],
        "--model.backbone.width",
        "32",
        "--model.critic",
        "shared",
        "--trainer.max_epochs",
        str(EPOCHS),
        "--data.epoch_steps",
        str(STEPS[name] // EPOCHS),
        "--seed",
        str(seed),
        "--run.wandb.mode",
        "disabled",
    )


def row(name: str, trunk: str, depth: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the table."""
    returns = [run["test/return"] for run in runs]
    low, high = bootstrap_interval(returns)
    ratios = [ratio for run in runs if (ratio := first_gradient_ratio(run["folder"])) is not None]
    return {
        "config": name,
        "trunk": trunk,
        "blocks": depth,
        "seeds": len(runs),
        "interquartile mean": interquartile_mean(returns),
        "low": low,
        "high": high,
        "lowest seed": min(returns),
        "highest seed": max(returns),
        "gradient, first / last block": statistics.median(ratios) if ratios else None,
        "minutes a run": statistics.median(run["seconds"] for run in runs) / 60,
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw return and gradient ratio over depth, a column for each environment."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["config"] for row in rows))
    figure = Figure(figsize=(4.2 * len(names), 5.6), layout="constrained")
    axes = figure.subplots(2, len(names), squeeze=False, sharex=True)
    for column, name in enumerate(names):
        for trunk, colour in zip(TRUNKS, ("tab:blue", "tab:orange"), strict=True):
            of = [row for row in rows if (row["config"], row["trunk"]) == (name, trunk)]
            depths = [row["blocks"] for row in of]
            middle = [row["interquartile mean"] for row in of]
            axes[0, column].plot(depths, middle, color=colour, marker="o", label=trunk)
            axes[0, column].fill_between(
                depths,
                [row["low"] for row in of],
                [row["high"] for row in of],
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
            known = [row for row in of if row["gradient, first / last block"]]
            axes[1, column].plot(
                [row["blocks"] for row in known],
                [row["gradient, first / last block"] for row in known],
                color=colour,
                marker="o",
                label=trunk,
            )
        axes[0, column].set(title=name, ylabel="test return")
        axes[1, column].set(xlabel="blocks", ylabel="gradient norm, first / last block")
        axes[1, column].set_xscale("log", base=2)
        axes[1, column].set_xticks(depths, [str(depth) for depth in depths])
        axes[1, column].set_yscale("log")
        axes[0, column].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(path)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 8, 32, 128])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--kept", type=Path, default=OUTPUT / "rl_depth")
    parser.add_argument("--picture", action="store_true", help="replace the README's picture")
    arguments = parser.parse_args()
    setups = list(itertools.product(arguments.only, TRUNKS, arguments.depths))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        # Seed by seed, so that a benchmark that is stopped has all depths with fewer seeds.
        found = {
            (setup, seed): pool.submit(run, *setup, seed, arguments.kept)
            for seed in range(arguments.seeds)
            for setup in sorted(setups, key=lambda setup: -setup[2])
        }
        for seeds in range(1, arguments.seeds + 1):
            rows = [
                row(*setup, [found[setup, seed].result() for seed in range(seeds)])
                for setup in setups
            ]
            report("rl_depth", rows)
            draw(rows, PICTURE if arguments.picture else OUTPUT / "rl_depth.png")


if __name__ == "__main__":
    main()
