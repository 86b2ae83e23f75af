"""What all networks have in common."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from resdomains.core.residual import Residual


class Backbone(nn.Module):
    """The contract of a network: it returns ``Features``, and states what heads need to know.

    ``in_channels`` are the data's; ``out_channels`` and ``stride`` have an entry for each map;
    ``depth`` counts layers as the network's literature does.
    """

    in_channels: int
    out_channels: tuple[int, ...]
    stride: tuple[int, ...]
    depth: int

    def read(self, x: Tensor) -> Tensor:
        """``x`` as the network begins with it.

        Raises:
            ValueError: ``x`` is not what the network reads.
            TypeError: its dtype is not.
        """
        return x

    def blocks(self) -> Iterator[tuple[str, Residual]]:
        """Every block with its name, in the order in which data passes them."""
        for name, module in self.named_modules():
            if isinstance(module, Residual):
                yield name, module


def refusal(network: nn.Module, x: Tensor) -> ValueError | TypeError | None:
    """Why a network does not read ``x``; None if it does, or is no ``Backbone`` and cannot be asked."""
    if not isinstance(network, Backbone):
        return None
    try:
        network.read(x)
    except (ValueError, TypeError) as error:
        return error
    return None
