"""Convolutions along one axis against `nn.Conv1d`: alone and as a separable stage, 1 and 2 threads.

python -m tests.benchmarks.depthwise

The depthwise one has 256 channels, 33 taps, batch 16 and 400 frames. In the separable stage the pointwise convolution
does 8/9 of the products, as fast in both libraries: that bounds what the stage can gain. The dense rows show that the
2-D kernels of height one, in channels_last, are no slower anywhere that the named networks use them.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import nn

from resdomains.core import BatchNorm, Chain, Conv, ReLU
from tests.benchmarks.measure import in_turn, ratio, report

Case = tuple[nn.Module, nn.Module, tuple[int, int, int]]


def pair(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> Case:
    """Return our convolution, torch's, and the shape `(B, C, L)` of their input: 16 items of 400 positions."""
    ours = Conv(inputs, outputs, kernel, dims=1, stride=stride, groups=groups)
    theirs = nn.Conv1d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return ours, theirs, (16, inputs, 400)


def separable() -> Case:
    """Return a depthwise and a pointwise convolution, batch norm and ReLU, as ResNet1d runs them and of torch.nn."""
    depthwise, their_depthwise, shape = pair(256, 256, 33, groups=256)
    pointwise, their_pointwise, _ = pair(256, 256, 1)
    ours = Chain(depthwise=depthwise, pointwise=pointwise, norm=BatchNorm(256), act=ReLU())
    theirs = nn.Sequential(
        their_depthwise, their_pointwise, nn.BatchNorm1d(256), nn.ReLU(inplace=True)
    )
    return ours, theirs, shape


def waveform() -> Case:
    """Return the first convolution over raw samples, one second at 16 kHz."""
    ours, theirs, _ = pair(1, 64, 79, stride=4)
    return ours, theirs, (16, 1, 16000)


CASES: dict[str, Callable[[], Case]] = {
    "depthwise, 33 taps": lambda: pair(256, 256, 33, groups=256),
    "separable stage, 33 taps": separable,
    "dense, 3 taps": lambda: pair(64, 64, 3),
    "dense, 3 taps, stride 2": lambda: pair(64, 128, 3, stride=2),
    "pointwise": lambda: pair(256, 256, 1),
    "waveform, 79 taps": waveform,
}


def forward(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """Return one forward pass without gradients."""

    def run() -> object:
        with torch.no_grad():
            return model(x)

    return run


def both(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    """Return one forward and backward pass, with the gradients of input and weights."""
    x = x.clone().requires_grad_()  # in the layout that x has
    gradient = torch.randn_like(model(x))
    wanted = [x, *model.parameters()]

    def run() -> object:
        return torch.autograd.grad(model(x), wanted, gradient)

    return run


def rows(rounds: int) -> Iterator[dict[str, object]]:
    """Measure each case in each precision, number of threads and direction."""
    for name, build in CASES.items():
        for dtype in (torch.float32, torch.bfloat16):
            ours, theirs, shape = build()
            line = torch.randn(shape, dtype=dtype)
            plane = line.unsqueeze(2).contiguous(memory_format=torch.channels_last)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                for direction in (forward, both):
                    seconds = in_turn(
                        {
                            "ours": direction(ours.to(dtype), plane),
                            "theirs": direction(theirs.to(dtype), line),
                        },
                        rounds=rounds,
                        warmup=3,
                    )
                    yield {
                        "what": name,
                        "precision": str(dtype).removeprefix("torch."),
                        "threads": threads,
                        "pass": "forward" if direction is forward else "forward+backward",
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
