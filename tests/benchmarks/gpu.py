"""ResNet-50 training on a GPU, 224 px, batch 256, bf16, against timm compiled with channels_last.

python -m tests.benchmarks.gpu [--steps 20]
"""

import argparse
import statistics
from collections.abc import Callable

import timm
import torch
from torch import nn
from torch.nn import functional as F

from resdomains.core import PooledHead, compile_blocks, resnet50
from tests.benchmarks.measure import channels_last, in_turn, ratio, report

BATCH, SIZE, CLASSES = 256, 224, 1000


def training(model: nn.Module, steps: int) -> Callable[[], None]:
    """Return `steps` steps of SGD on random pictures that stay on the device."""
    model = channels_last(model.cuda()).train()
    x = torch.randn(BATCH, 3, SIZE, SIZE, device="cuda").to(memory_format=torch.channels_last)
    target = torch.randint(0, CLASSES, (BATCH,), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, fused=True)

    def run() -> None:
        for _ in range(steps):
            with torch.autocast("cuda", torch.bfloat16):
                loss = F.cross_entropy(model(x), target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        torch.cuda.synchronize()

    return run


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU: torch.cuda.is_available() is False")
    per_block = nn.Sequential(resnet50(), PooledHead(2048, CLASSES))
    compile_blocks(per_block[0])
    whole = nn.Sequential(resnet50(), PooledHead(2048, CLASSES))
    things = {
        "resdomains, compiled": training(torch.compile(whole), steps),  # type: ignore[arg-type]
        "resdomains, blocks compiled": training(per_block, steps),
        "timm, compiled": training(torch.compile(timm.create_model("resnet50")), steps),  # type: ignore[arg-type]
    }
    seconds = in_turn(things, warmup=2)
    report(
        "gpu",
        [
            {
                "what": name,
                "images/s": BATCH * steps / statistics.median(values),
                "against timm": ratio(seconds["timm, compiled"], values),
            }
            for name, values in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
