"""Gradient flow: how strong the gradient is in each block, over time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from resdomains import schema
from resdomains.probes.batches import batches
from resdomains.probes.blocks import Block, mode, randomness_kept
from resdomains.probes.probe import Probe, number
from resdomains.training import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_norms(blocks: Sequence[Block]) -> Tensor:
    """Return (blocks,) the L2 norm of the gradient of each block's parameters; NaN where none has a gradient."""
    norms = []
    for block in blocks:
        gradients = [p.grad for p in block.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients) if gradients else torch.tensor(torch.nan)
        # Sharded parameters (FSDP) have a norm that is still to be summed over the processes.
        norms.append(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    device = next((norm.device for norm in norms if norm.device.type != "cpu"), norms[0].device)
    dtype = torch.float64 if any(norm.dtype == torch.float64 for norm in norms) else torch.float32
    return torch.stack([norm.to(device, dtype) for norm in norms])


class GradientFlow(Probe):
    """The gradient norm of each block: `||dL/dw||`, `w` being all parameters of the block.

    That is the norm by which gradients of layers are compared in the literature on depth (Xiong et al. 2020, "On
    Layer Normalization in the Transformer Architecture"; Wang et al. 2022, "DeepNet"). `residual/grad_ratio` is the
    first block's norm over the last one's: 1 where the gradient is even, 0 where it vanishes on its way to the input.

    In a fit it reads the gradient that the optimizer is about to use: before clipping, of the whole accumulated
    batch, averaged over the processes. It attaches nothing to the network, so memory and compilation do not matter.
    Of a finished run it takes the mean norm over `batches` training batches, the network being in training mode;
    weights and statistics stay as they were.

    Args:
        every_n_steps: Measure before the first optimizer step and then every so many.
        batches: Training batches that a finished run is measured on.
        folder: Where the files go; `probes` in the run's folder if not given.

    Raises:
        ValueError: If a number is below 1.
    """

    name = "gradients"

    def __init__(
        self, every_n_steps: int = 50, batches: int = 8, folder: Path | None = None
    ) -> None:
        super().__init__(folder)
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        if batches < 1:
            raise ValueError(f"batches must be at least 1, got {batches}")
        self.every_n_steps = every_n_steps
        self.batches = batches
        self.history: list[tuple[int, list[float]]] = []
        """The optimizer steps before each measurement, and the norm of each block."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier fit left."""
        self.history = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the gradient of every n-th step."""
        if trainer.global_step % self.every_n_steps == 0:
            self._keep(trainer, cast(Task, pl_module), gradient_norms(self.blocks).tolist())

    def _keep(self, trainer: Trainer, task: Task, norms: list[float]) -> None:
        if trainer.state.fn == "fit":
            self.history.append((trainer.global_step, norms))
        self.record(trainer, {"gradient_norm": [number(norm) for norm in norms]})
        ratio = grad_ratio(norms)
        if ratio is not None:
            task.write({schema.GRAD_RATIO: ratio})

    def measure(self, trainer: Trainer, task: Task) -> None:
        """Measure a finished run on training batches."""
        if trainer.state.fn == "fit":
            return
        found = []
        with torch.inference_mode(False), torch.enable_grad(), _untouched(task):
            for batch in batches(trainer, "train", self.batches):
                task.zero_grad()
                with trainer.precision_plugin.train_step_context():
                    loss = task.step(batch, "train").loss
                torch.autograd.backward(loss)
                _average(trainer, task)
                found.append(gradient_norms(self.blocks))
        self._keep(trainer, task, torch.stack(found).mean(0).tolist())

    def figure(self, task: Task) -> "Figure | None":
        """Return the norms over depth, at the beginning, in the middle and at the end, and their ratio over time."""
        from resdomains.probes import figures

        values = self.newest.get("gradient_norm")
        if values is None:
            return None
        history = self.history or [(0, [float("nan") if v is None else float(v) for v in values])]
        return figures.gradients(self.blocks, history, trained=not self.history)


def grad_ratio(norms: Sequence[float]) -> float | None:
    """Return the first norm over the last one; None where either is missing or the last is zero."""
    first, last = norms[0], norms[-1]
    return first / last if last > 0 and first == first else None


@contextmanager
def _untouched(task: Task) -> Iterator[None]:
    """Train mode for a while; gradients, statistics and random numbers are afterwards what they were."""
    buffers = [(buffer, buffer.clone()) for buffer in task.buffers()]
    gradients = [(p, p.grad) for p in task.parameters()]
    with randomness_kept(task.device), mode(task, training=True):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for parameter, gradient in gradients:
                parameter.grad = gradient


def _average(trainer: Trainer, task: nn.Module) -> None:
    """Average gradients over the processes: outside of a fit nobody else does."""
    if trainer.world_size == 1:
        return
    for parameter in task.parameters():
        if parameter.grad is not None:
            mean: Any = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
            parameter.grad = mean
