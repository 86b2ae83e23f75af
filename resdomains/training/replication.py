"""A whole network in every process."""

from pytorch_lightning.strategies import DDPStrategy


class Replicated(DDPStrategy):
    """Each process keeps the whole network; gradients are averaged during the backward pass (Li et al. 2020, "DDP").

    Lightning's `ddp`, but gradients lie in the buckets that travel: they are neither copied there and back nor held
    twice. Every process begins with the first one's weights, and computes with the first one's buffers.

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
