"""Compiling a network block by block."""

from __future__ import annotations

from torch import nn

from resdomains.core.residual import Residual
from resdomains.core.stack import Stack


def compile_blocks(network: nn.Module, mode: str | None = None) -> nn.Module:
    """Compiles every residual block of ``network`` in place and returns it.

    Equal blocks share their code, so the first step waits far less than for the whole network.
    Where a stack couples blocks by their parts, the branch is what is compiled. Attach hooks
    before: a hook added to a compiled block never fires.

    Raises:
        ValueError: the network has no residual blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, Residual)]
    if not blocks:
        raise ValueError(
            f"network: expected Residual blocks in {type(network).__name__}, found none"
        )
    stacks = [module for module in network.modules() if isinstance(module, Stack)]
    whole = {block: stack.coupling.whole(block) for stack in stacks for block in stack}
    for block in blocks:
        whole.get(block, block).compile(mode=mode)
    return network
