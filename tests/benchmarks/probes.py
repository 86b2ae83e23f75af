"""What probes cost: a training step on which each measures, and one on which it does not.

python -m tests.benchmarks.probes [--threads 1] [--rounds 9]

ResNet-20 and ResNet-110 for CIFAR, batch 64, float32, on the CPU. A step with a probe takes turns with one without.
"""

import argparse
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from resdomains.core import PooledHead, resnet20, resnet110
from resdomains.probes import (
    Contribution,
    GradientFlow,
    Watch,
    blocks_of,
    composite_gains,
    gradient_norms,
)
from tests.benchmarks.measure import in_turn, report

BATCH, CLASSES = 64, 10


def steps(build: Callable[[], nn.Module]) -> dict[str, Callable[[], object]]:
    """Return a training step alone, and with each probe."""
    torch.manual_seed(0)
    network = build()
    model = nn.Sequential(network, PooledHead(64, CLASSES)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    x = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    target = torch.randint(0, CLASSES, (BATCH,))
    blocks = blocks_of(network)

    def step(before_update: Callable[[], object] = lambda: None) -> None:
        loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        before_update()
        optimizer.step()

    def watched() -> None:
        with Watch(blocks) as watch:
            step()
        watch.take(lambda sums: sums)

    def gain() -> None:
        composite_gains(network, lambda: network(x), 4, torch.Generator())

    flow, contribution = GradientFlow(every_n_steps=50), Contribution(every_n_steps=50)
    between = cast(Any, SimpleNamespace(global_step=1))

    def unobserved() -> None:
        contribution.on_train_batch_start(between, between, None, 0)
        step(lambda: flow.on_before_optimizer_step(between, between, optimizer))
        contribution.on_train_batch_end(between, between, None, None, 0)

    return {
        "training step": step,
        "step between measurements, probes on": unobserved,
        "step with GradientFlow": lambda: step(lambda: gradient_norms(blocks).tolist()),
        "step with Contribution": watched,
        "CompositeGain, a batch, 4 draws (once a validation)": gain,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for build in (resnet20, resnet110):
        seconds = in_turn(steps(build), rounds=arguments.rounds)
        bare = seconds["training step"]
        for name, values in seconds.items():
            ratios = [a / b for a, b in zip(values, bare, strict=True)]
            rows.append(
                {
                    "network": build.__name__,
                    "what": name,
                    "milliseconds": 1000 * statistics.median(values),
                    "of a training step": statistics.median(ratios),
                }
            )
    report("probes", rows)


if __name__ == "__main__":
    main()
