"""Whether a network reads pictures."""

import torch
from torch import nn


def check_reads(backbone: nn.Module, shape: tuple[int, int, int]) -> None:
    """Refuse a network whose stem reads something else than pictures (C, H, W).

    A network of another library, whose stem has no ``read``, is not asked.

    Raises:
        ValueError: If it does.
    """
    stem = getattr(backbone, "stem", None)
    read = getattr(stem, "read", None)
    if read is None:
        return
    try:
        read(torch.zeros(1, *shape))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"backbone's stem {type(stem).__name__} cannot read these pictures ({error}); give it what it expects, "
            "or take a network over pictures of any size, such as ResNet2d or resnet50"
        ) from error
