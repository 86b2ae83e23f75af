"""Gradient norm of the first block over that of the last, at initialisation: plain and residual networks.

python -m tests.benchmarks.gradients [--depths 20 56 110 1202] [--seeds 3]

The networks of He et al. 2015 for CIFAR, in training mode, on random pictures and labels. `zero_init` is the residual
network as this library builds it, each branch silent at first; `resnet` starts as the paper's. In float32, and beyond
1,000 layers in float64: there the plain network's gradient is larger than any number in float32.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import resdomains.core
from resdomains.core import Add, PooledHead
from resdomains.probes import blocks_of, composite_gains, grad_ratio, gradient_norms
from tests.benchmarks.measure import report

CLASSES = 10


def networks(depth: int) -> dict[str, Callable[[], nn.Module]]:
    """Return the networks that are compared at a depth."""
    residual: Callable[..., nn.Module] = getattr(resdomains.core, f"resnet{depth}")
    return {
        f"plain{depth}": getattr(resdomains.core, f"plain{depth}"),
        f"resnet{depth}": partial(residual, merge=partial(Add, zero_init=False)),
        f"resnet{depth} zero_init": residual,
    }


def measure(
    build: Callable[[], nn.Module], seed: int, batch: int
) -> tuple[Tensor, float | None, float]:
    """Return the norm of each block, first over last, and the gain from the first block to the last map."""
    torch.manual_seed(seed)
    network = build()
    dtype = torch.float64 if len(blocks_of(network)) > 500 else torch.float32
    model = nn.Sequential(network, PooledHead(64, CLASSES)).train().to(dtype)
    x = torch.randn(batch, 3, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    loss = F.cross_entropy(model(x), torch.randint(0, CLASSES, (batch,)))
    torch.autograd.backward(loss)
    norms = gradient_norms(blocks_of(network))
    generator = torch.Generator().manual_seed(seed)
    squares, drawn = composite_gains(network, lambda: network(x), 1, generator)
    return norms, grad_ratio(norms.tolist()), math.sqrt(float(squares[0] / drawn))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56, 110, 1202])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for depth in arguments.depths:
        # A thousand layers of activations for two pictures only.
        batch = arguments.batch if depth < 1000 else 2
        for name, build in networks(depth).items():
            found = [measure(build, seed, batch) for seed in range(arguments.seeds)]
            ratios = [ratio for _, ratio, _ in found if ratio is not None]
            rows.append(
                {
                    "network": name,
                    "blocks": len(found[0][0]),
                    "batch": batch,
                    "norm, first block": statistics.median(float(n[0]) for n, _, _ in found),
                    "norm, last block": statistics.median(float(n[-1]) for n, _, _ in found),
                    "first / last": statistics.median(ratios) if ratios else None,
                    "lowest": min(ratios, default=None),
                    "highest": max(ratios, default=None),
                    "gain, first block": statistics.median(gain for _, _, gain in found),
                }
            )
    report("gradients", rows)


if __name__ == "__main__":
    main()
