"""How long the first compiled training step of ResNet-110 takes: block by block, and as a whole.

python -m tests.benchmarks.compilation [--networks resnet110 preact_resnet110] [--rounds 1]

CIFAR pictures, batch 32, float32, forward and backward pass. Each measurement is a process of its own with an empty
cache of compiled code, so that nothing is left of the one before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from resdomains import core
from resdomains.core import PooledHead, compile_blocks
from tests.benchmarks.measure import report

WAYS = ("blocks", "whole")
BATCH = 32


def measure(way: str, name: str) -> dict[str, Any]:
    """Return the seconds of the first three steps in this process, and how many graphs were compiled."""
    torch.manual_seed(0)
    network = nn.Sequential(getattr(core, name)(), PooledHead(64, 10)).train()
    model = compile_blocks(network) if way == "blocks" else torch.compile(network)
    x, target = torch.randn(BATCH, 3, 32, 32), torch.randint(0, 10, (BATCH,))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        F.cross_entropy(model(x), target).backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - began)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return {"first": seconds[0], "third": seconds[2], "graphs": graphs}


def fresh(way: str, name: str) -> dict[str, Any]:
    """Return what `measure` returns in a new process with an empty cache."""
    with TemporaryDirectory() as cache:
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.benchmarks.compilation",
                "--way",
                way,
                "--networks",
                name,
            ],
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
            check=True,
            capture_output=True,
            text=True,
        )
    facts: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return facts


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet110"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help="measure this one here, and print JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.networks[0])))
        return
    rows = []
    for name in arguments.networks:
        runs = [{way: fresh(way, name) for way in WAYS} for _ in range(arguments.rounds)]
        rows += [
            {
                "network": name,
                "compiled": way,
                "first step, s": statistics.median(run[way]["first"] for run in runs),
                "of whole": statistics.median(
                    run[way]["first"] / run["whole"]["first"] for run in runs
                ),
                "third step, s": statistics.median(run[way]["third"] for run in runs),
                "graphs": runs[0][way]["graphs"],
            }
            for way in WAYS
        ]
    report("compilation", rows)


if __name__ == "__main__":
    main()
