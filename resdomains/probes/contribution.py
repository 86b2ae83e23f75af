"""Contribution: what each block's branch adds to what its shortcut brings."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from resdomains import schema
from resdomains.core import Merge, Valid, eager, recomputing
from resdomains.probes.blocks import Block, counted
from resdomains.probes.probe import Probe, number
from resdomains.training import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By how much the branch is made larger than the shortcut where both are compared.
_LARGE = 1024.0
_BRANCH, _SHORTCUT, _SUM, _SQUARES, _COUNT = range(5)


@torch.no_grad()
def terms(merge: Merge, s: Tensor, b: Tensor, state: Any) -> tuple[Tensor, Tensor]:
    """Split what a merge returns into the shortcut's term and the branch's, which add up to it.

    `brought = merge(s, 0)` and `added = (merge(s, c b) - merge(s, 0)) / c`: all merges of the core are linear in
    `b`, so `added` is `b` for Add, `g b` for LayerScale, `t b` for Highway, whatever the number c. It is computed in
    float32 with a large c, since a small branch would be lost in the difference of two sums.
    """
    weight = next(merge.parameters(), None)
    dtype = torch.promote_types(s.dtype, torch.float32) if weight is None else weight.dtype
    s, b = s.detach().to(dtype), b.detach().to(dtype)
    size, branch_size = s.norm(), b.norm()
    c = torch.where((size > 0) & (branch_size > 0), _LARGE * size / branch_size, 1.0)
    # New tensors in the branch's place, since a merge may write into it.
    brought = merge.forward(s, torch.zeros_like(b), state)
    return brought, (merge.forward(s, c * b, state) - brought) / c


class Watch:
    """Sums over what blocks' merges are given, in every forward pass but those that recompute.

    Leave it through `close`, or use it as a context manager.

    Args:
        blocks: The blocks to watch.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = blocks
        self._sums: list[Tensor | None] = [None] * len(blocks)
        self._attached = ExitStack()

    def __enter__(self) -> "Watch":
        self._attached.enter_context(eager())
        for block in self.blocks:
            # The parts, not the block: a reversible stack calls `join` in place of the block.
            before_branch, before_merge = self._hooks(block)
            for part, hook in (
                (block.module.branch, before_branch),
                (block.module.merge, before_merge),
            ):
                handle = part.register_forward_pre_hook(hook)
                self._attached.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the hooks away; the sums stay, and watching may go on later."""
        self._attached.close()

    def _hooks(self, block: Block) -> tuple[Callable[..., None], Callable[..., None]]:
        branch, merge = block.module.branch, block.module.merge
        valid: Valid | None = None

        def before_branch(_: object, arguments: tuple[Any, ...]) -> None:
            nonlocal valid
            valid = branch.advance(arguments[1] if len(arguments) > 1 else None)

        def before_merge(_: object, arguments: tuple[Any, ...]) -> None:
            if not recomputing():
                s, b, state = (*arguments, None)[:3]
                self._add(block.index, merge, s, b, state, valid)

        return before_branch, before_merge

    @torch.no_grad()
    def _add(
        self, index: int, merge: Merge, s: Tensor, b: Tensor, state: Any, valid: Valid | None
    ) -> None:
        response, count = counted(b.detach().float(), valid)
        if merge.reads_shortcut:
            brought, added = (
                counted(t, valid, merge.streams)[0] for t in terms(merge, s, b, state)
            )
            squares = [added.square().sum(), brought.square().sum()]
        else:
            squares = [response.square().sum(), torch.zeros_like(response.sum())]
        new = torch.stack([*squares, response.sum(), response.square().sum(), count]).double()
        old = self._sums[index]
        self._sums[index] = new if old is None else old + new

    def take(self, reduce: Callable[[Tensor], Tensor]) -> tuple[list[float], list[float]]:
        """Return each block's contribution and the standard deviation of its branch, and begin anew.

        Args:
            reduce: Adds a tensor over all processes.
        """
        nothing = torch.zeros(5, dtype=torch.float64)
        device = next((s.device for s in self._sums if s is not None), nothing.device)
        sums = [nothing.to(device) if s is None else s for s in self._sums]
        total = reduce(torch.stack(sums)).cpu()
        self._sums = [None] * len(self.blocks)
        mean = total[:, _SUM] / total[:, _COUNT]
        variance = (total[:, _SQUARES] / total[:, _COUNT] - mean.square()).clamp_min(0)
        # A block without a shortcut has nothing to compare with: 0 / 0, or infinity, is no value.
        ratio = (total[:, _BRANCH] / total[:, _SHORTCUT]).sqrt()
        ratio[ratio.isinf()] = torch.nan
        return ratio.tolist(), variance.sqrt().tolist()


class Contribution(Probe):
    """How much each block's branch adds: the norm of its term over the norm of the shortcut's term.

    `contribution = ||added|| / ||brought||`, where the merge returns `brought + added` and `added` is what would be
    missing without the branch: `||b|| / ||s||` for Add, `||g b|| / ||s||` for LayerScale, `||t b|| / ||(1 - t) s||`
    for Highway, both over all streams for a merge of several. `residual/contribution_mean` is its mean over the
    blocks; a plain block (BranchOnly) has no shortcut and no value. `response_std` is the standard deviation of the
    branch's output before the merge, the responses of He et al. 2015, figure 7. Norms and deviations are over all
    values of a batch and all processes; padding does not count.

    In a fit it watches every forward pass of the training batches that an observed step accumulates; of a finished
    run, the validation batches. Hooks are on the blocks' parts for these batches only, which are run uncompiled.

    Args:
        every_n_steps: Observe the first optimizer step and then every so many.
        folder: Where the files go; `probes` in the run's folder if not given.

    Raises:
        ValueError: If every_n_steps is below 1.
    """

    name = "contribution"

    def __init__(self, every_n_steps: int = 50, folder: Path | None = None) -> None:
        super().__init__(folder)
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._watch: Watch | None = None
        self._step = 0
        self._observed: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._watch = Watch(self.blocks)
        self._observed = None

    def detach(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Watch the batches of every n-th step; a batch may make several steps."""
        self._step = trainer.global_step
        if self._observed is None:
            self._observed = self._step - 1
        if self._watch is not None and self._due():
            self._watch.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop watching; when the step is made, record it."""
        self.detach()
        if trainer.global_step > self._step and self._due():
            self._observed = self._step
            self._keep(trainer, cast(Task, pl_module))

    def _due(self) -> bool:
        every, last = self.every_n_steps, self._observed
        return last is not None and self._step // every > last // every

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Watch a finished run's validation."""
        if self._watch is not None and trainer.state.fn == "validate":
            self._watch.__enter__()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop watching."""
        if trainer.state.fn == "validate":
            self.detach()

    def measure(self, trainer: Trainer, task: Task) -> None:
        """Record a finished run's validation."""
        if trainer.state.fn == "validate":
            self._keep(trainer, task)

    def _keep(self, trainer: Trainer, task: Task) -> None:
        assert self._watch is not None
        ratios, deviations = self._watch.take(
            lambda sums: cast(Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
        )
        columns = {
            "contribution": [number(ratio) for ratio in ratios],
            "response_std": [number(deviation) for deviation in deviations],
        }
        self.record(trainer, columns, self._step)
        known = [ratio for ratio in ratios if ratio == ratio]
        if known:
            task.write({schema.CONTRIBUTION_MEAN: sum(known) / len(known)})

    def figure(self, task: Task) -> "Figure | None":
        """Return contribution and response over depth."""
        from resdomains.probes import figures

        return figures.contribution(self.blocks, self.newest) if self.newest else None
