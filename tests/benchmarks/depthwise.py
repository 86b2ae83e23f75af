"""A separable one-dimensional stage against `nn.Conv1d`: 256 channels, 33 taps, batch 16, 400 frames.

python -m tests.benchmarks.depthwise
"""

import argparse
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import nn

from resdomains.core import BatchNorm, Chain, Conv, ReLU
from tests.benchmarks.measure import in_turn, ratio, report

CHANNELS, KERNEL, BATCH, FRAMES = 256, 33, 16, 400


def ours(separable: bool) -> nn.Module:
    """Return the depthwise convolution, or the whole separable stage, as ResNet1d runs it."""
    depthwise = Conv(CHANNELS, CHANNELS, KERNEL, dims=1, groups=CHANNELS)
    if not separable:
        return depthwise
    return Chain(
        depthwise=depthwise,
        pointwise=Conv(CHANNELS, CHANNELS, 1, dims=1),
        norm=BatchNorm(CHANNELS),
        act=ReLU(),
    )


def theirs(separable: bool) -> nn.Module:
    """Return the same of torch.nn's one-dimensional parts."""
    depthwise = nn.Conv1d(
        CHANNELS, CHANNELS, KERNEL, padding=KERNEL // 2, groups=CHANNELS, bias=False
    )
    if not separable:
        return depthwise
    return nn.Sequential(
        depthwise,
        nn.Conv1d(CHANNELS, CHANNELS, 1, bias=False),
        nn.BatchNorm1d(CHANNELS),
        nn.ReLU(inplace=True),
    )


def forward(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """Return one forward pass without gradients."""

    def run() -> object:
        with torch.no_grad():
            return model(x)

    return run


def both(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """Return one forward and backward pass, with the gradients of input and weights."""
    x = x.clone().requires_grad_()  # in the layout that x has
    gradient = torch.randn_like(x)
    wanted = [x, *model.parameters()]

    def run() -> object:
        return torch.autograd.grad(model(x), wanted, gradient)

    return run


def rows(rounds: int) -> Iterator[dict[str, object]]:
    """Measure each combination of stage, precision, threads and direction."""
    for separable in (False, True):
        for dtype in (torch.float32, torch.bfloat16):
            line = torch.randn(BATCH, CHANNELS, FRAMES, dtype=dtype)
            plane = line.unsqueeze(2).contiguous(memory_format=torch.channels_last)
            mine, other = ours(separable).to(dtype), theirs(separable).to(dtype)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                for pass_ in (forward, both):
                    seconds = in_turn(
                        {"ours": pass_(mine, plane), "theirs": pass_(other, line)},
                        rounds=rounds,
                        warmup=3,
                    )
                    yield {
                        "stage": "separable" if separable else "depthwise",
                        "precision": str(dtype).removeprefix("torch."),
                        "threads": threads,
                        "pass": "forward" if pass_ is forward else "forward+backward",
                        "resdomains ms": 1e3 * statistics.median(seconds["ours"]),
                        "nn.Conv1d ms": 1e3 * statistics.median(seconds["theirs"]),
                        "faster by": ratio(seconds["theirs"], seconds["ours"]),
                    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    report("depthwise", list(rows(arguments.rounds)))


if __name__ == "__main__":
    main()
