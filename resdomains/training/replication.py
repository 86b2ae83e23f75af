"""A whole network in every process."""

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

_LINE = 64  # bytes that travel or stay together
# Above this share of lines that are not zero, finding them in each step is taken to save too little.
_FEW = 0.25


class Replicated(DDPStrategy):
    """Each process keeps the whole network; gradients are averaged during the backward pass (Li et al. 2020, "DDP").

    Lightning's `ddp`, but gradients lie in the buckets that travel: they are neither copied there and back nor held
    twice. Every process begins with the first one's weights, and computes with the first one's buffers. On CPUs, what
    is zero in all processes does not travel (`NonZero`).

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

    def configure_ddp(self) -> None:
        """Make the module that shares gradients."""
        super().configure_ddp()
        if self.root_device.type == "cpu":
            assert isinstance(self.model, DistributedDataParallel)
            self.model.register_comm_hook(NonZero(), NonZero.average)


class NonZero:
    """Averages gradients over processes; of a bucket that is mostly zero, only the lines travel that are not.

    A table of words has a gradient in the few rows that a batch looks up. First all processes learn which lines of 64
    bytes are not zero in any of them, then those are averaged (after Fei et al. 2021, "Efficient Sparse Collective
    Communication"); the sums are those of whole buckets. A bucket of which more than a quarter was not zero is
    averaged whole from then on.
    """

    def __init__(self) -> None:
        self._whole: set[tuple[int, int]] = set()

    def average(
        self,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # exported
    ) -> Future[Tensor]:
        """Average a bucket's gradients in place, as a communication hook of DistributedDataParallel."""
        gradients = bucket.buffer()
        place = bucket.index(), gradients.numel()
        if place not in self._whole:
            if _average_lines(gradients):
                done: Future[Tensor] = Future()
                done.set_result(gradients)
                return done
            self._whole.add(place)
        work = dist.all_reduce(gradients.div_(dist.get_world_size()), async_op=True)
        assert work is not None
        averaged: Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
        return averaged


def _average_lines(gradients: Tensor) -> bool:
    """Average the lines that are not zero in all processes, and the rest behind the last line, if they are few."""
    size = _LINE // gradients.element_size()
    length = gradients.numel() // size * size
    lines, rest = gradients[:length].view(-1, size), gradients[length:]
    # Eight bytes to one, and once more.
    known = lines.view(torch.int64).ne(0).view(torch.int64).ne(0).view(torch.uint8)[:, 0]
    dist.all_reduce(known, dist.ReduceOp.MAX)
    found = known.nonzero()[:, 0]
    if len(found) > _FEW * len(lines):
        return False
    sums = torch.cat([lines.index_select(0, found).flatten(), rest])
    dist.all_reduce(sums.div_(dist.get_world_size()))
    lines.index_copy_(0, found, sums[: len(found) * size].view(-1, size))
    rest.copy_(sums[len(found) * size :])
    return True
