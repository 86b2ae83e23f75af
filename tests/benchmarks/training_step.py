"""ResNet-50 against timm's: a training step and inference, 160 px, batch 16, on the CPU.

python -m tests.benchmarks.training_step [--threads 2]
"""

import argparse
import statistics
from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.nn import functional as F

from resdomains.core import PooledHead, fold, resnet50
from tests.benchmarks.measure import channels_last, in_turn, ratio, report

BATCH, SIZE, CLASSES = 16, 160, 1000


def network() -> nn.Module:
    """Return ResNet-50 with a head, as the task runs it: channels_last."""
    return channels_last(nn.Sequential(resnet50(), PooledHead(2048, CLASSES)))


def training(model: nn.Module, x: torch.Tensor, *, bf16: bool, fused: bool) -> Callable[[], None]:
    """Return one step of SGD on random pictures."""
    target = torch.randint(0, CLASSES, (BATCH,))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=fused or None)
    model.train()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def inference(model: nn.Module, x: torch.Tensor, *, bf16: bool) -> Callable[[], None]:
    """Return one forward pass."""
    model.eval()

    def run() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model(x)

    return run


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x = torch.randn(BATCH, 3, SIZE, SIZE)
    last = x.to(memory_format=torch.channels_last)
    by_hand = channels_last(timm.create_model("resnet50"))
    steps = {
        "resdomains": training(network(), last, bf16=True, fused=True),
        "timm float32 contiguous": training(
            timm.create_model("resnet50"), x, bf16=False, fused=False
        ),
        "timm bf16 channels_last": training(by_hand, last, bf16=True, fused=False),
    }
    seconds = in_turn(steps, rounds=arguments.rounds, warmup=2)
    rows = [
        {
            "what": f"training step, {name}",
            "seconds": statistics.median(values),
            "images/s": BATCH / statistics.median(values),
            "resdomains is faster by": ratio(values, seconds["resdomains"]),
        }
        for name, values in seconds.items()
    ]
    runs = {
        "resdomains folded bf16": inference(
            fold(network().eval()).to(torch.bfloat16), last.to(torch.bfloat16), bf16=False
        ),
        "timm float32": inference(timm.create_model("resnet50"), x, bf16=False),
    }
    seconds = in_turn(runs, rounds=arguments.rounds, warmup=2)
    rows += [
        {
            "what": f"inference, {name}",
            "seconds": statistics.median(values),
            "images/s": BATCH / statistics.median(values),
            "resdomains is faster by": ratio(values, seconds["resdomains folded bf16"]),
        }
        for name, values in seconds.items()
    ]
    report("training_step", rows)


if __name__ == "__main__":
    main()
