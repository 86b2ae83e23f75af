"""Activation memory and time of a training step by depth: Store, Recompute and Reverse.

python -m tests.benchmarks.memory [--depths 20 56 110 302 1202] [--threads 1] [--rounds 5] [--device cuda]

Pre-activation ResNets for CIFAR (depth 6n + 2, basic blocks, 16 to 64 channels), batch 32. Memory is the peak of the
bytes that tensors hold during forward and backward pass, beyond parameters, buffers, their gradients and the batch: a
TorchDispatchMode notes every storage that an operation returns and, by a weak reference, when it is freed. What kernels
allocate and free within themselves is not seen.
"""

import argparse
import gc
import math
import statistics
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resdomains.core import (
    PooledHead,
    PreActivationBasic,
    Recompute,
    ResNet2d,
    Reverse,
    Reversible,
    Store,
)
from tests.benchmarks.measure import in_turn, report

BATCH = 32
PICTURE = Path(__file__).parent / "pictures" / "memory.png"
Step = Callable[[], None]


def plain(blocks: int, memory: Store | Recompute) -> ResNet2d:
    """Return a network whose blocks follow one another."""
    return ResNet2d((blocks,) * 3, block=PreActivationBasic, memory=memory)


def reversed_(blocks: int) -> ResNet2d:
    """Return a network whose blocks are coupled, and computed again from what leaves them."""
    return ResNet2d(
        (blocks,) * 3, block=PreActivationBasic, coupling=Reversible(), memory=Reverse()
    )


WAYS: dict[str, Callable[[int], ResNet2d]] = {
    "Store": partial(plain, memory=Store()),
    "Recompute(1)": partial(plain, memory=Recompute()),
    "Recompute(√n)": lambda n: plain(n, Recompute(every=round(math.sqrt(n)))),
    "Reverse": reversed_,
}


def training(network: ResNet2d, device: str) -> tuple[nn.Module, Step]:
    """Return the model, and its forward and backward pass with a step of SGD."""
    torch.manual_seed(0)
    model = nn.Sequential(network, PooledHead(64, 10)).to(device).train()
    x = torch.randn(BATCH, 3, 32, 32, device=device)
    target = torch.randint(0, 10, (BATCH,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return model, step


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hook untyped
    """Every storage that operations return: when it came, when it went."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[tuple[int, int]] = []
        self._alive: dict[int, tuple[int, Any]] = {}
        self._sizes: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._enter(leaf.untyped_storage())
        return out

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        number = len(self._sizes)
        self._sizes.append(storage.nbytes())
        self.events.append((number, storage.nbytes()))

        def leave(_: Any) -> None:
            self._alive.pop(key, None)
            self.events.append((number, -self._sizes[number]))

        self._alive[key] = (number, weakref.ref(storage, leave))

    def number_of(self, tensor: Tensor) -> int | None:
        """Return the number of the storage that `tensor` lies in."""
        entry = self._alive.get(tensor.untyped_storage()._cdata)
        return None if entry is None else entry[0]

    def peak(self, without: set[int | None]) -> int:
        """Return the most bytes held at once, leaving out the storages of those numbers."""
        now = most = 0
        for number, size in self.events:
            if number not in without:
                now += size
                most = max(most, now)
        return most


def activation_bytes(model: nn.Module, step: Step) -> int:
    """Return the peak of one step beyond parameters, buffers, their gradients and the batch."""
    gc.collect()
    ledger = Ledger()
    # What a view of a parameter or of a buffer lies in was there before.
    kept = [*model.parameters(), *model.buffers()]
    with ledger:
        known = {ledger.number_of(t.detach()) for t in kept}
        step()
        gradients = {ledger.number_of(p.grad) for p in model.parameters() if p.grad is not None}
    return ledger.peak(known | gradients)


def picture(rows: list[dict[str, Any]]) -> None:
    """Draw memory and time by depth."""
    mpl.use("Agg")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for way in WAYS:
        mine = [row for row in rows if row["memory"] == way]
        depths = [row["depth"] for row in mine]
        left.plot(depths, [row["activations MiB"] for row in mine], "o-", label=way)
        right.plot(depths, [row["time / Store"] for row in mine], "o-", label=way)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sorted({row["depth"] for row in rows}))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_xlabel("depth (weighted layers)")
        axes.grid(alpha=0.3)
    left.set_yscale("log")
    left.yaxis.set_major_formatter("{x:.0f}")
    left.set_ylabel("activation memory of a training step (MiB)")
    left.set_title("Memory")
    left.legend()
    right.set_ylim(0, None)
    right.set_ylabel("time of a training step (Store = 1)")
    right.set_title("Time")
    figure.suptitle(f"How a pre-activation ResNet for CIFAR keeps its activations, batch {BATCH}")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    print(PICTURE)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 56, 110, 302, 1202])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--picture", action="store_true", help="draw pictures/memory.png")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    for depth in arguments.depths:
        steps: dict[str, Step] = {}
        peaks: dict[str, int] = {}
        for name, build in WAYS.items():
            model, steps[name] = training(build((depth - 2) // 6), arguments.device)
            peaks[name] = activation_bytes(model, steps[name])
        # Short steps are disturbed more, and cost less to repeat.
        seconds = in_turn(steps, rounds=arguments.rounds * max(1, 300 // depth))
        rows += [
            {
                "depth": depth,
                "memory": name,
                "activations MiB": peaks[name] / 2**20,
                "of Store": peaks[name] / peaks["Store"],
                "seconds": statistics.median(seconds[name]),
                "time / Store": statistics.median(
                    a / b for a, b in zip(seconds[name], seconds["Store"], strict=True)
                ),
            }
            for name in WAYS
        ]
    report("memory" if arguments.device == "cpu" else "memory_gpu", rows)
    if arguments.picture:
        picture(rows)


if __name__ == "__main__":
    main()
