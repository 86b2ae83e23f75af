"""The residual blocks of a network, in order, and the state in which they are watched."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resdomains.core import Residual, Valid, eager


@dataclass(frozen=True)
class Block:
    """One residual block and its place.

    Args:
        name: Its dotted name in the network.
        index: Its number, from 0, in the order of the network's modules.
        count: How many blocks the network has.
        module: The block.
    """

    name: str
    index: int
    count: int
    module: Residual

    @property
    def relative_depth(self) -> float:
        """The share of the network's blocks that are passed at this block's output: (index + 1) / count."""
        return (self.index + 1) / self.count


def blocks_of(network: nn.Module) -> list[Block]:
    """Return the blocks of a network, or of a task's backbone.

    Raises:
        ValueError: If there are none.
    """
    root = network_of(network)
    found = [(name, m) for name, m in root.named_modules() if isinstance(m, Residual)]
    if not found:
        raise ValueError(
            f"probes watch blocks of the class resdomains.core.Residual, and {type(root).__name__} has none; "
            "take a network of resdomains.core as the backbone"
        )
    return [Block(name, i, len(found), module) for i, (name, module) in enumerate(found)]


def network_of(task: nn.Module) -> nn.Module:
    """Return a task's backbone, or the module itself if it has none."""
    backbone = getattr(task, "backbone", None)
    return backbone if isinstance(backbone, nn.Module) else task


@contextmanager
def randomness_kept(device: torch.device) -> Iterator[None]:
    """Leave the random numbers that a run draws later as they would have been."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Put a network in training or evaluation mode, and each module back into its own afterwards."""
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


@contextmanager
def evaluating(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluate a network as written and without gradients, and leave it and the random numbers as they were."""
    with torch.inference_mode(), eager(), mode(network, training=False), randomness_kept(device):
        yield


def counted(x: Tensor, valid: Valid | None, streams: int = 1) -> tuple[Tensor, Tensor]:
    """Return `x` with padding zeroed, and how many of its values are no padding.

    Shapes: maps (B, C, H, L) or (B, C, L), sequences (B, T, D), with a leading axis where there are several streams;
    packed rows (N, D) and vectors (B, D) hold no padding.
    """
    everything = torch.tensor(x.numel(), device=x.device)
    axes = x.dim() - (streams > 1)
    if not isinstance(valid, Valid) or axes < 3:
        return x, everything
    mask = valid.mask
    if axes == 4:
        mask = mask[:, None, None, :]
    else:
        mask = mask[:, :, None] if x.shape[-2] == mask.shape[1] else mask[:, None, :]
    return x.masked_fill(~mask, 0.0), valid.mask.sum() * (x.numel() // valid.mask.numel())
