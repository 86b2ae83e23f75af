"""A network whose parameters are shared out among processes (FSDP2)."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from pytorch_lightning.strategies import FSDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.export import register_dataclass
from torch.optim import Optimizer

from resdomains.core import Plain, Stack
from resdomains.training.task import StepResult, Task

# So the loss in it is found, behind which gradients begin to be shared out.
register_dataclass(StepResult)

_INSTEAD = "train with --config trainer/ddp"


class Sharded(ModelParallelStrategy):
    """Each process keeps a share of parameters, gradients and optimizer state (Zhao et al. 2023, "PyTorch FSDP").

    A residual block's parameters are gathered when the block runs and given back after it; gradients arrive summed at
    the process that keeps the share. Blocks of a stack that is not `Plain`, and all parameters outside of blocks, are
    gathered once a step. Among several machines, each holds a whole network, shared out within it, so that blocks are
    gathered over the fast links and only shares of gradients travel between machines; where a machine runs one process,
    all share one network.

    Every process begins with the first one's weights, and evaluates with the first one's buffers (the statistics of
    batch norms), as under ddp. Checkpoints are those of ddp: one file of whole tensors, which any number of processes
    reads.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning restores the optimizer: a checkpoint is read as any other."""
        return True

    def shard(self, task: Task) -> None:
        """Share out a task's parameters: one group a block, one of all that is left. A second call does nothing."""
        if isinstance(task, FSDPModule):
            return
        task.to(self.root_device)
        for parameter in task.parameters():
            # Their strides may be those of channels_last, which cannot be cut.
            parameter.data = parameter.data.contiguous()
        _copy_from_first((*task.parameters(), *task.buffers()))
        machines, processes = self.device_mesh.shape
        # Lightning's name for the processes of a machine; nothing here is tensor parallel.
        within = "tensor_parallel" if machines == 1 else "data_parallel"
        mesh = self.device_mesh if min(machines, processes) > 1 else self.device_mesh[within]
        for block in _gathered_alone(task):
            fully_shard(block, mesh=mesh)
        fully_shard(task, mesh=mesh)
        # Lightning calls `training_step`, and everything calls `step`, where a module's own hooks see `forward` only.
        register_fsdp_forward_method(task, "step")

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Let the task make its optimizers."""
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            _unfuse(optimizer)

    def on_validation_start(self) -> None:
        """Take the first process's buffers."""
        self._take_buffers()

    def on_test_start(self) -> None:
        """Take the first process's buffers."""
        self._take_buffers()

    def _take_buffers(self) -> None:
        assert self.lightning_module is not None
        _copy_from_first(self.lightning_module.buffers())

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole state in the first process, nothing in the others."""
        assert self.lightning_module is not None
        return cast(dict[str, Any], self._whole(self.lightning_module.state_dict()))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state in the first process, nothing in the others."""
        return cast(dict[str, Any], self._whole(optimizer.state_dict()))

    def _whole(self, state: Mapping[str, Any]) -> Any:
        gathered = _gather(state)
        return gathered if self.is_global_zero else {}

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a file of whole tensors, in every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's share of the weights."""
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        state = {n: _share(v, ours.get(n)) for n, v in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of the optimizers' states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            # As in any optimizer's state: parameters are numbered in the order of their groups.
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            shares = {
                number: {name: _share(value, parameters[number]) for name, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})
            _unfuse(optimizer)


def check_sharding(trainer: Trainer, task: Task) -> None:
    """Refuse what cannot be trained with shared parameters.

    Raises:
        ValueError: With the reason and what to take instead.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, Sharded):
        if isinstance(strategy, FSDPStrategy | ModelParallelStrategy):
            raise ValueError(
                f"{type(strategy).__name__} does not know which modules to share out, nor writes checkpoints that "
                "predict; take resdomains.training.Sharded (--config trainer/fsdp)"
            )
        return
    name = type(task).__name__
    if not task.automatic_optimization:
        raise ValueError(
            f"{name} makes its optimizer steps itself and acts in between, which Sharded does not follow; {_INSTEAD}"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            raise ValueError(
                f"the callback {type(callback).__name__} copies the whole network, and with Sharded no process has it; "
                "take resdomains.training.EMA, which averages shares"
            )
    numbers = [name for name, parameter in task.named_parameters() if parameter.ndim == 0]
    if numbers:
        raise ValueError(
            f"the parameter {numbers[0]} is a single number, which cannot be shared out (merge ReZero has one a "
            f"block); take merge LayerScale or {_INSTEAD}"
        )


def shares(module: nn.Module) -> list[Tensor]:
    """Return what this process keeps of each parameter and buffer, to be read or changed in place.

    That is all of them, unless they are `Sharded`.
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()  # after an evaluation, what was gathered for it is still there
    with torch.no_grad():
        return [
            tensor.to_local() if isinstance(tensor, DTensor) else tensor
            for tensor in (*module.parameters(), *module.buffers())
        ]


def _gathered_alone(task: Task) -> list[nn.Module]:
    """The blocks that are called as modules, each on its own: what a coupling of its own calls is no block."""
    coupled = {
        block
        for module in task.modules()
        if isinstance(module, Stack) and not isinstance(module.coupling, Plain)
        for block in module
    }
    return [block for _, block in task.blocks() if block not in coupled]


def _unfuse(optimizer: Optimizer) -> None:
    """Compute a step of several kernels where torch (2.11) has no fused one for shared parameters: but for Adam's."""
    if isinstance(optimizer, torch.optim.Adam):  # AdamW is one
        return
    for group in optimizer.param_groups:
        if group.get("fused"):
            group["fused"], group["foreach"] = False, True


def _copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values."""
    for tensor in tensors:
        dist.broadcast(tensor.detach(), 0)


def _gather(value: Any) -> Any:
    """The value with its shared tensors whole, on the CPU; every process takes part."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {name: _gather(child) for name, child in value.items()}
    return value


def _share(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, shared out as another of its shape is; other values as they are."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    whole = value.to(like.device)
    # Every process has read the whole, so nothing needs to be sent.
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
