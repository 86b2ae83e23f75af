"""How much memory a training step takes, measured on a few samples, and what to set where it does not fit."""

import gc
import resource
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from resdomains.cli.heap import give_back_freed_memory
from resdomains.core import Memory, Recompute, Stack, Store
from resdomains.training import DataModule, Task

_ROOM = 0.9  # of what is free: allocators round up, and other processes move


@dataclass
class Need:
    """Bytes that a training step takes beside the weights.

    Args:
        samples: Of a step in one process.
        sample: For one sample: what is kept for its gradient, and its share of what is at work.
        fixed: For any number of samples: gradients, and what the optimizer keeps from its first step on.
    """

    samples: int
    sample: float
    fixed: float

    def of(self, samples: float) -> float:
        """Return the bytes for so many samples."""
        return self.fixed + self.sample * samples


def measure(trainer: Trainer) -> tuple[Need, Need | None]:
    """Measure a training step on the first samples of an epoch, and the same with `Recompute` where that can be had.

    Activations are what autograd keeps of a forward pass (each storage once, weights left out), and twice the largest
    of them, which a backward pass has at work. Two numbers of samples tell what grows with them.
    """
    task = cast(Task, trainer.lightning_module)
    data = cast(DataModule, task.data)
    chosen = next(iter(data.batch_sampler("train", trainer.global_rank, trainer.world_size)))
    few = max(2, min(8, len(chosen) // 4))
    one, two = (_kept(trainer, chosen[:count]) for count in (few, 2 * few))
    sample = (two - one) / few
    fixed = max(one - sample * few, 0.0) + _gradients(trainer)
    need = Need(len(chosen), sample, fixed)
    stacks = [s for s in task.modules() if isinstance(s, Stack) and type(s.memory) is Store]
    if not stacks:
        return need, None
    with _remembering(stacks, Recompute()):
        one, two = (_kept(trainer, chosen[:count], stacks) for count in (few, 2 * few))
    again = (two - one) / few
    # A block at a time is computed again, and has its activations as if they had been kept.
    again += (sample - again) / max(sum(len(list(stack)) for stack in stacks), 1)
    return need, Need(len(chosen), again, fixed)


def _kept(trainer: Trainer, chosen: list[int], recomputed: Sequence[Stack] = ()) -> float:
    """The bytes that activations of samples take in a step; blocks that are computed again keep their inputs."""
    task = cast(Task, trainer.lightning_module)
    data = cast(DataModule, task.data)
    batch = task.transfer_batch_to_device(data.batch("train", chosen), task.device, 0)
    weights = {p.untyped_storage().data_ptr() for p in task.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    inputs = 0

    def count(stack: nn.Module, arguments: tuple[Any, ...]) -> None:
        nonlocal inputs
        inputs += len(list(cast(Stack, stack))) * arguments[0].nbytes

    hooks = [stack.register_forward_pre_hook(count) for stack in recomputed]
    task.train()
    with (
        trainer.precision_plugin.forward_context(),
        saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        # The loss holds all that was kept, so that no storage's place is taken by another.
        loss = task.step(data.transform(batch, "train"), "train").loss
    del loss
    for hook in hooks:
        hook.remove()
    return sum(kept.values()) + inputs + 2 * max(kept.values(), default=0)


def _gradients(trainer: Trainer) -> float:
    """The bytes of gradients, and of optimizer states that are still to come."""
    total = 0.0
    for optimizer in trainer.optimizers:
        learned = [p for group in optimizer.param_groups for p in group["params"]]
        size = sum(p.numel() * p.element_size() for p in learned)
        total += size if optimizer.state else size * (1 + _states(optimizer))
    return total


def _states(optimizer: Optimizer) -> float:
    """How many times a weight's bytes an optimizer keeps for it, found by a step of another of its kind."""
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.ones_like(weight)
    again = cast(Any, type(optimizer))([weight], **optimizer.defaults)
    again.step()
    states = (v for v in again.state[weight].values() if isinstance(v, Tensor))
    return sum(v.numel() * v.element_size() for v in states) / (weight.numel() * 4)


@contextmanager
def _remembering(stacks: list[Stack], memory: Memory) -> Iterator[None]:
    before = [stack.memory for stack in stacks]
    for stack in stacks:
        stack.memory = memory
    try:
        yield
    finally:
        for stack, was in zip(stacks, before, strict=True):
            stack.memory = was


def free_bytes(device: torch.device) -> int:
    """Return what a process can still take on a device; on a CPU it gives back what it keeps and does not use."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    give_back_freed_memory()
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    free = available * 1024
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        free = min(free, limit - pages * resource.getpagesize())
    return free


def let_go(error: BaseException, trainer: Trainer) -> None:
    """Free what a failed step holds."""
    held: BaseException | None = error
    while held is not None:
        traceback.clear_frames(held.__traceback__)
        held = held.__cause__ or held.__context__
    for optimizer in trainer.optimizers:
        optimizer.zero_grad(set_to_none=True)
    gc.collect()
    give_back_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def advise(trainer: Trainer) -> list[str]:
    """Say what a step needs, what is free, and what to set so that it fits; a line each."""
    task = cast(Task, trainer.lightning_module)
    data = cast(DataModule, task.data)
    need, recomputed = measure(trainer)
    free = free_bytes(task.device)
    lines = [
        f"a step with {need.samples} samples needs about {_gib(need.of(need.samples))} beside the weights, "
        f"{_gib(free)} are free"
    ]
    parts = next(
        (
            parts
            for parts in range(1, need.samples + 1)
            if need.samples % parts == 0 and need.of(need.samples / parts) <= _ROOM * free
        ),
        None,
    )
    if parts == 1:
        lines.append("which is enough now: something else took the memory; start again")
    elif parts is not None:
        size = data.batch_size // parts
        steps = trainer.accumulate_grad_batches * parts
        lines.append(
            f"--data.batch_size {size} fits ({_gib(need.of(need.samples / parts))}); "
            f"with --trainer.accumulate_grad_batches {steps} a step learns from as many samples"
        )
    if parts != 1 and recomputed is not None and recomputed.sample < need.sample:
        needed = recomputed.of(need.samples)
        fits = "fits" if needed <= _ROOM * free else "does not fit by itself"
        lines.append(
            f"--model.backbone.memory Recompute {fits} (about {_gib(needed)}), and is slower"
        )
    if parts is None:
        lines.append("not even one sample fits: take a smaller network or smaller samples")
    return lines


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
