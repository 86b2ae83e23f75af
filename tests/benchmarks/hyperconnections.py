"""What hyper-connections cost: a training step with four streams against the same network with Add.

python -m tests.benchmarks.hyperconnections [--threads 1] [--rounds 7]

A pre-activation ResNet-20 for CIFAR, batch 32, whose 16 to 64 channels are few beside the weights of each position, and
an encoder of 4 layers, width 256, on 8 sequences of 64 tokens. float32, forward and backward pass.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from resdomains.core import (
    Add,
    DoublyStochastic,
    Dynamic,
    HyperConnection,
    Merge,
    PreActivationBasic,
    ResidualEncoder,
    ResNet2d,
    Site,
)
from tests.benchmarks.measure import in_turn, ratio, report

MERGES: dict[str, Callable[[Site], Merge]] = {
    "Add": Add,
    "Static, Free": HyperConnection,
    "Static, DoublyStochastic": partial(HyperConnection, mixing=DoublyStochastic()),
    "Dynamic, Free": partial(HyperConnection, weights=Dynamic),
    "Dynamic, DoublyStochastic": partial(
        HyperConnection, weights=Dynamic, mixing=DoublyStochastic()
    ),
}
NETWORKS: dict[str, tuple[Callable[..., nn.Module], Tensor]] = {
    "ResNet-20": (
        partial(ResNet2d, (3, 3, 3), block=PreActivationBasic),
        torch.randn(32, 3, 32, 32),
    ),
    "encoder": (
        partial(ResidualEncoder, layers=4, width=256, in_channels=50),
        torch.randint(0, 50, (8, 64)),
    ),
}


def training(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a forward and a backward pass."""

    def step() -> None:
        network.zero_grad()
        network(x).maps[-1].square().mean().backward()

    return step


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, (build, x) in NETWORKS.items():
        steps = {kind: training(build(merge=merge), x) for kind, merge in MERGES.items()}
        seconds = in_turn(steps, arguments.rounds)
        rows += [
            {
                "network": name,
                "merge": kind,
                "milliseconds": 1000 * statistics.median(seconds[kind]),
                "of Add": ratio(seconds[kind], seconds["Add"]),
            }
            for kind in MERGES
        ]
    report("hyperconnections", rows)


if __name__ == "__main__":
    main()
