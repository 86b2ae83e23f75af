"""A whole network in every process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from resdomains.core import Table

# Fewer numbers travel in less time than it takes to agree on those that need not.
_MANY = 2**18


class Replicated(DDPStrategy):
    """Each process keeps the whole network; gradients are averaged during the backward pass (Li et al. 2020, "DDP").

    Lightning's `ddp`, but gradients lie in the buckets that travel: they are neither copied there and back nor held
    twice. Every process begins with the first one's weights, and computes with the first one's buffers.

    On CPUs, of large tables (`core.Table`) only the rows travel that some process looked up, behind the backward pass:
    first all processes learn which rows those are, then their gradients are averaged (after Fei et al. 2021, "Efficient
    Sparse Collective Communication"). Until `on_after_backward` is over, such a gradient is sparse and the process's
    own; from there on it is dense and the mean, as all others are.

    Args:
        bucket_cap_mb: Size of a bucket in MiB; 25 if not given, and 1 of the first. One travels as soon as the last of
            its gradients is known, while those of earlier layers are computed: smaller ones begin sooner, larger ones
            cost fewer collectives.

    Raises:
        ValueError: If `bucket_cap_mb` is not above 0.
    """

    def __init__(self, bucket_cap_mb: float | None = None) -> None:
        if bucket_cap_mb is not None and not bucket_cap_mb > 0:
            raise ValueError(f"bucket_cap_mb must be above 0 MiB, got {bucket_cap_mb}")
        super().__init__(bucket_cap_mb=bucket_cap_mb, gradient_as_bucket_view=True)
        self._tables: list[Table] = []
        self._means: dict[Tensor, Tensor] = {}

    def configure_ddp(self) -> None:
        """Make the module that shares gradients."""
        assert self.model is not None
        if self.root_device.type == "cpu":
            self._tables = [module for module in self.model.modules() if _travels_by_rows(module)]
            self._means = {table.weight: torch.empty_like(table.weight) for table in self._tables}
        with self._sparse():
            super().configure_ddp()
        if self._means:
            assert isinstance(self.model, DistributedDataParallel)
            self.model.register_comm_hook(None, _average_dense)

    def training_step(self, *args: Any, **kwargs: Any) -> STEP_OUTPUT:
        """Take a task's step."""
        with self._sparse():
            return super().training_step(*args, **kwargs)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients of tables, unless further batches of the same step follow."""
        super().post_backward(closure_loss)
        assert isinstance(self.model, DistributedDataParallel)
        if self._means and self.model.require_backward_grad_sync:
            _average_rows(self._means)

    @contextmanager
    def _sparse(self) -> Iterator[None]:
        """Give tables sparse gradients in the steps that are averaged, and in those alone."""
        for table in self._tables:
            table.sparse = True
        try:
            yield
        finally:
            for table in self._tables:
                table.sparse = False


def _travels_by_rows(module: nn.Module) -> TypeGuard[Table]:
    return (
        isinstance(module, Table) and module.weight.requires_grad and module.weight.numel() >= _MANY
    )


def _average_dense(
    state: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # exported
) -> Future[Tensor]:
    """Average a bucket's gradients, as a communication hook of DistributedDataParallel; leave a sparse one as it is."""
    gradients = bucket.buffer()
    if gradients.is_sparse:
        done: Future[Tensor] = Future()
        done.set_result(gradients)
        return done
    work = dist.all_reduce(gradients.div_(dist.get_world_size()), async_op=True)
    assert work is not None
    averaged: Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
    return averaged


def _rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that were looked up, which may repeat, and their gradients."""
    if weight.grad is None:  # unused in this step: DistributedDataParallel says so in the next
        return torch.empty(0, dtype=torch.int64), weight.new_empty(0, weight.shape[1])
    return weight.grad._indices()[0], weight.grad._values()


def _average_rows(means: dict[Tensor, Tensor]) -> None:
    """Average sparse gradients over processes, all at once, into dense tensors that become the gradients."""
    gradients, marks = [], []
    for weight in means:
        gradients.append(_rows(weight))
        marks.append(torch.zeros(len(weight), dtype=torch.uint8))
        marks[-1][gradients[-1][0]] = 1
    known = torch.cat(marks)
    work = dist.all_reduce(known, dist.ReduceOp.MAX, async_op=True)
    assert work is not None
    for mean in means.values():
        mean.zero_()
    work.wait()
    sums = []
    marks = list(torch.split(known, [len(mark) for mark in marks]))
    for mark, (rows, values) in zip(marks, gradients, strict=True):
        place = mark.cumsum(0) - 1
        total = values.new_zeros(int(place[-1]) + 1, values.shape[1])
        sums.append(total.index_add_(0, place[rows], values))
    joined = torch.cat([total.flatten() for total in sums]).div_(dist.get_world_size())
    dist.all_reduce(joined)
    averages = torch.split(joined, [total.numel() for total in sums])
    for (weight, mean), mark, rows in zip(means.items(), marks, averages, strict=True):
        mean.index_copy_(0, mark.nonzero()[:, 0], rows.view(-1, mean.shape[1]))
        weight.grad = mean
