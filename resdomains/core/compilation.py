"""Compiling a network block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from resdomains.core.residual import Residual
from resdomains.core.stack import Stack

# ResNet-110's two, of 54, took 6 of the first step's 27 seconds and gained nothing measurable.
_FEW = 0.1
# torch's own limit for one function.
_VERSIONS = 8


def compile_blocks(
    network: nn.Module, mode: str | None = None, backend: str | Callable[..., Any] = "inductor"
) -> nn.Module:
    """Compiles the residual blocks of ``network`` in place and returns it.

    Equal blocks share their code, so the first step waits far less than for the whole network.
    Blocks outside stacks, which change the shape, share with none: in networks so deep that they
    are less than a tenth of all blocks they are left as they are. Where a stack couples blocks by
    their parts, the branch is what is compiled. Attach hooks before: a hook added to a compiled
    block never fires. ``mode`` and ``backend`` are those of ``torch.compile``.

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
    alone = [block for block in blocks if block not in whole]
    few = len(alone) < _FEW * len(blocks)
    chosen = [whole.get(block, block) for block in blocks if block in whole or not few]
    _allow(len({repr(module) for module in chosen}))
    for module in chosen:
        module.compile(mode=mode, backend=backend)
    return network


def _allow(kinds: int) -> None:
    """Lets torch compile the one ``forward`` that all blocks share for so many kinds of blocks.

    It stops at 8 versions of a function, which is what one kind may need: in training and in evaluation, for one size
    and for any. The limit is the process's.
    """
    import torch._dynamo  # loading it takes a second

    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _VERSIONS * kinds)
    config.accumulated_recompile_limit = max(
        config.accumulated_recompile_limit, config.recompile_limit
    )
