"""What the core's composition costs over a hand-written loop of the same operations, eager.

python -m tests.benchmarks.composition [--threads 2] [--rounds 15]

100 of ResNet-50's blocks, bottlenecks, with 256 channels (64 inside), 28x28, batch 8, channels_last. (Blocks of two 3x3
convolutions at 256 channels are 17 times the arithmetic: the composition's share would be smaller.) The loop runs over
the very parameters of the blocks, with the operations that the blocks use: the sum overwrites the branch, activations
work in place. The same with 8 channels and 1x1 maps, where operations cost next to nothing, shows what the composition
costs by itself. "core / loop" compares the fastest rounds, which other processes disturb least.
"""

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core import Add, BatchNorm, Bottleneck, Identity, Place, ReLU, Residual, Stack
from tests.benchmarks.measure import in_turn, ratio, report

BLOCKS, BATCH, WIDTH, SIZE = 100, 8, 256, 28
NAMES = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3")


def composed(width: int) -> Stack:
    """Return the blocks, joined by the core."""
    places = [
        Place(width, width, BatchNorm, ReLU, index=index, depth=BLOCKS) for index in range(BLOCKS)
    ]
    branches = [Bottleneck(place) for place in places]
    return Stack(
        [
            Residual(branch, Identity(place), Add(place.site), branch.after(place))
            for branch, place in zip(branches, places, strict=True)
        ]
    )


class Loop(nn.Module):
    """The same operations on the same parameters, with nothing in between."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.parts = [[block.branch.get_submodule(name) for name in NAMES] for block in stack]

    def forward(self, x: Tensor) -> Tensor:
        for conv1, norm1, conv2, norm2, conv3, norm3 in self.parts:
            y = F.conv2d(x, conv1.weight)  # type: ignore[arg-type]
            y = F.relu(normalised(norm1, y), inplace=True)
            y = F.conv2d(y, conv2.weight, None, 1, 1)  # type: ignore[arg-type]
            y = F.relu(normalised(norm2, y), inplace=True)
            y = F.conv2d(y, conv3.weight)  # type: ignore[arg-type]
            x = F.relu(normalised(norm3, y).add_(x), inplace=True)
        return x


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """Return batch normalisation with the statistics of the batch, which are counted."""
    norm.num_batches_tracked.add_(1)  # type: ignore[operator]
    return F.batch_norm(
        x,
        norm.running_mean,  # type: ignore[arg-type]
        norm.running_var,  # type: ignore[arg-type]
        norm.weight,  # type: ignore[arg-type]
        norm.bias,  # type: ignore[arg-type]
        True,
        0.1,
        1e-5,
    )


def training(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a forward and a backward pass."""

    def step() -> None:
        model.zero_grad()
        model(x).mean().backward()

    return step


def forward(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a forward pass without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(x)

    return run


def row(what: str, seconds: dict[str, list[float]]) -> dict[str, object]:
    """Return what the report shows."""
    core, loop = (min(seconds[name]) for name in ("core", "loop"))
    return {
        "what": what,
        "core, s": core,
        "loop, s": loop,
        "core / loop": core / loop,
        "median of rounds": ratio(seconds["core"], seconds["loop"]),
        "µs a block": (core - loop) / BLOCKS * 1e6,
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for width, size, rounds in ((WIDTH, SIZE, arguments.rounds), (8, 1, 200)):
        torch.manual_seed(0)
        stack = composed(width).train()
        models: dict[str, nn.Module] = {"core": stack, "loop": Loop(stack)}
        x = torch.randn(BATCH, width, size, size).contiguous(memory_format=torch.channels_last)
        assert torch.equal(models["core"](x), models["loop"](x))
        for what, make in (("training step", training), ("forward pass", forward)):
            seconds = in_turn({name: make(model, x) for name, model in models.items()}, rounds)
            rows.append(row(f"{what}, {width} channels, {size}x{size}", seconds))
    report("composition", rows)


if __name__ == "__main__":
    main()
