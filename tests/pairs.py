"""Two processes that form a group, as a run of two processes has one."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def in_two_processes(work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Run `work(rank, *arguments)` in two processes of a gloo group, a thread each, warnings as errors.

    Args:
        work: A function of a module.
        folder: Where the processes meet; empty.
        arguments: What `work` gets after its rank.

    Returns:
        What each returned, which torch must be able to load as weights.
    """
    with pytest.MonkeyPatch.context() as patch:
        # The new processes import the test's module by its name, which pytest alone knows the folder of.
        patch.syspath_prepend(Path(__file__).parents[1])
        spawn(_member, args=(work, folder, arguments), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def _member(rank: int, work: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # How torchmetrics says that a process saw no batch.
    warnings.filterwarnings("ignore", "The ``compute`` method of metric .* was called before")
    # As in pyproject.toml.
    warnings.filterwarnings("ignore", "The `srun` command is available")
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
    store = dist.FileStore(f"{folder}/store", 2)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(work(rank, *arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
