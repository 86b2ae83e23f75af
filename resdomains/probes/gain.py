"""Composite gain: what reaches the network's output of a change at each depth."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn

from resdomains.core import Features, Recompute, Stack, Store, eager
from resdomains.core.masks import hide
from resdomains.core.recomputation import recomputation
from resdomains.probes.blocks import Block, blocks_of, network_of, randomness_kept
from resdomains.probes.probe import Probe, number
from resdomains.training import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _OutputReached(Exception):
    """Ends a forward pass: what follows the network is not needed."""


def composite_gains(
    network: nn.Module, run: Callable[[], object], draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return sums (blocks,) of `||J_l^T v||^2` and () of `||v||^2` over random `v` at a network's output.

    `J_l` is the Jacobian of the network's output (the last of its maps) with respect to block l's output, `v` has
    independent normal entries. Their ratio estimates `||J_l||_F^2 / m`, m being the output's number of values,
    without bias. A merge of several streams is asked about a change that all streams share.

    Args:
        network: A network whose blocks all take part in one forward pass.
        run: Runs that forward pass.
        draws: How many `v` to draw.
        generator: Where `v` comes from.

    Raises:
        TypeError: If the network returns neither `Features` nor a tensor, or `run` does not run it with gradients.
    """
    blocks = blocks_of(network)
    outputs: dict[int, Tensor] = {}
    reached: list[Tensor] = []
    valid: list[Any] = []

    def keep_block(index: int) -> Callable[..., Tensor | None]:
        def after_block(_: object, __: object, y: Tensor) -> Tensor | None:
            if not torch.is_grad_enabled():  # a policy that acts, before it learns
                return None
            if not y.requires_grad:  # all before it is frozen; the gain begins here
                y = y.detach().requires_grad_()
            outputs[index] = y
            return y

        return after_block

    def keep_output(module: nn.Module, __: object, output: object) -> None:
        if not torch.is_grad_enabled():
            return
        if isinstance(output, Features):
            reached.append(output.maps[-1])
            valid.append(output.valid[-1])
        elif isinstance(output, Tensor):
            reached.append(output)
            valid.append(None)
        else:
            raise TypeError(
                f"CompositeGain: {type(module).__name__} returned a {type(output).__name__}, expected Features or a "
                "tensor"
            )
        raise _OutputReached

    with ExitStack() as attached:
        attached.enter_context(eager())
        attached.enter_context(_graph_kept(network))
        # Not a pass of the run: statistics and other probes leave it out.
        attached.enter_context(recomputation())
        for block in blocks:
            # `after` returns the block's output, also where a stack calls `join` in place of the block.
            handle = block.module.after.register_forward_hook(keep_block(block.index))
            attached.callback(handle.remove)
        attached.callback(network_of(network).register_forward_hook(keep_output).remove)
        with suppress(_OutputReached):
            run()
    if not reached or not reached[0].requires_grad or len(outputs) < len(blocks):
        raise TypeError(
            f"CompositeGain: {len(outputs)} of {len(blocks)} blocks took part in a forward pass with gradients; "
            "let the task's step run its backbone outside of torch.no_grad"
        )
    return _propagate(blocks, outputs, reached[0], valid[0], draws, generator)


def _propagate(
    blocks: Sequence[Block],
    outputs: dict[int, Tensor],
    output: Tensor,
    valid: Any,
    draws: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    squares = torch.zeros(len(blocks), dtype=torch.float64, device=output.device)
    drawn = torch.zeros((), dtype=torch.float64, device=output.device)
    places = [outputs[block.index] for block in blocks]
    for draw in range(draws):
        v = torch.randn(output.shape, generator=generator).to(output)
        v = hide(v, valid)
        gradients = torch.autograd.grad(
            output, places, v, retain_graph=draw + 1 < draws, allow_unused=True
        )
        for block, gradient in zip(blocks, gradients, strict=True):
            if gradient is not None:
                shared = gradient.sum(0) if block.module.merge.streams > 1 else gradient
                squares[block.index] += shared.double().square().sum()
        drawn += v.double().square().sum()
    return squares, drawn


@contextmanager
def _graph_kept(network: nn.Module) -> Iterator[None]:
    """Let stacks keep the whole graph, where their own memory would rebuild it piece by piece."""
    stacks = [
        (module, module.memory)
        for module in network.modules()
        if isinstance(module, Stack) and not isinstance(module.memory, Store | Recompute)
    ]
    try:
        for stack, _ in stacks:
            stack.memory = Store()
        yield
    finally:
        for stack, memory in stacks:
            stack.memory = memory


class CompositeGain(Probe):
    """How strongly a change of each block's output arrives at the network's output.

    `gain_l = ||J_l||_F / sqrt(m)`: the root mean square of the change at the output (m values, the last of the
    network's maps), when every value at block l's output changes independently by 1 root mean square. So depths of
    different shape compare, the identity has gain 1, and a network whose gain stays near 1 passes signal and
    gradient alike. Estimated by `sqrt(sum ||J_l^T v||^2 / sum ||v||^2)` over `draws` random `v` at the output: one
    forward and `draws` backward passes a batch, for all depths at once. (Hyper-connections were compared by such
    composite gains: Xie et al. 2025, "mHC".)

    It measures the network in evaluation mode, in float32 under mixed precision, on the first `batches` batches of
    each validation; weights, gradients and random numbers of the run stay as they are.

    Args:
        batches: Validation batches to measure on, of each process.
        draws: Random directions a batch.
        seed: Seed of the directions.
        folder: Where the files go; `probes` in the run's folder if not given.

    Raises:
        ValueError: If a number is below 1.
    """

    name = "gain"

    def __init__(
        self, batches: int = 1, draws: int = 4, seed: int = 0, folder: Path | None = None
    ) -> None:
        super().__init__(folder)
        if batches < 1:
            raise ValueError(f"batches must be at least 1, got {batches}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        self.batches, self.draws, self.seed = batches, draws, seed
        self._sums: Tensor | None = None

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure the first batches of a validation."""
        if trainer.sanity_checking or batch_idx >= self.batches:
            return
        task = cast(Task, pl_module)
        generator = torch.Generator().manual_seed(
            (self.seed * 1_000_003 + batch_idx) * trainer.world_size + trainer.global_rank
        )
        # A copy: what inference mode made takes part in no gradient.
        with torch.inference_mode(False), torch.enable_grad(), randomness_kept(task.device):
            copy = deepcopy(batch)
            # The training step computes the same features and leaves the metrics alone.
            squares, drawn = composite_gains(
                task, lambda: task.step(copy, "train"), self.draws, generator
            )
        sums = torch.cat([squares, drawn[None]])
        self._sums = sums if self._sums is None else self._sums + sums

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reduce and record; every process comes here, also one that saw no batch."""
        if trainer.sanity_checking:
            return
        nothing = torch.zeros(len(self.blocks) + 1, dtype=torch.float64, device=pl_module.device)
        sums = nothing if self._sums is None else self._sums
        total = cast(Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
        self._sums = None
        gains = (total[:-1] / total[-1]).sqrt().tolist()
        self.record(trainer, {"gain": [number(gain) for gain in gains]})

    def figure(self, task: Task) -> "Figure | None":
        """Return the gain over depth."""
        from resdomains.probes import figures

        return figures.gain(self.blocks, self.newest) if self.newest else None
