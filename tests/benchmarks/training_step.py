"""ResNet-50 against timm's: a training step and inference, 160 px, batch 16, on the CPU.

Each network has a process of its own; they run in turn. Ours keeps freed memory, as the launcher has it.

python -m tests.benchmarks.training_step [--threads 2]
"""

import argparse
import statistics
from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.nn import functional as F

from resdomains.cli.heap import keep_freed_memory
from resdomains.core import PooledHead, fold, resnet50
from tests.benchmarks.measure import Apart, channels_last, figures_in_turn, ratio, report

BATCH, SIZE, CLASSES = 16, 160, 1000


def pictures() -> torch.Tensor:
    """Return random pictures."""
    torch.manual_seed(0)
    return torch.randn(BATCH, 3, SIZE, SIZE)


def pictures_last() -> torch.Tensor:
    """Return them in channels_last."""
    return pictures().to(memory_format=torch.channels_last)


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


def our_training() -> Callable[[], None]:
    """Return our step."""
    keep_freed_memory()
    return training(network(), pictures_last(), bf16=True, fused=True)


def their_training() -> Callable[[], None]:
    """Return timm's, as documented."""
    return training(timm.create_model("resnet50"), pictures(), bf16=False, fused=False)


def their_training_by_hand() -> Callable[[], None]:
    """Return timm's with what a user can set."""
    model = channels_last(timm.create_model("resnet50"))
    return training(model, pictures_last(), bf16=True, fused=False)


def our_inference() -> Callable[[], None]:
    """Return our forward pass."""
    keep_freed_memory()
    model = fold(network().eval()).to(torch.bfloat16)
    return inference(model, pictures_last().to(torch.bfloat16), bf16=False)


def their_inference() -> Callable[[], None]:
    """Return timm's."""
    return inference(timm.create_model("resnet50"), pictures(), bf16=False)


WHATS = {
    "training step": {
        "resdomains": our_training,
        "timm float32 contiguous": their_training,
        "timm bf16 channels_last": their_training_by_hand,
    },
    "inference": {"resdomains": our_inference, "timm float32": their_inference},
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for what, of in WHATS.items():
        things = {name: Apart(build, arguments.threads) for name, build in of.items()}
        seconds = figures_in_turn(things, rounds=arguments.rounds, warmup=2)
        rows += [
            {
                "what": f"{what}, {name}",
                "seconds": statistics.median(values),
                "images/s": BATCH / statistics.median(values),
                "resdomains is faster by": ratio(values, seconds["resdomains"]),
            }
            for name, values in seconds.items()
        ]
    report("training_step", rows)


if __name__ == "__main__":
    main()
