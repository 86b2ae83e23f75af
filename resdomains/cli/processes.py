"""Whether a trainer's processes are those that were started."""

import os

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]  # re-exported
    LightningEnvironment,
)
from pytorch_lightning.strategies import ParallelStrategy, SingleDeviceStrategy

from resdomains.cli.errors import ConfigError


def check_processes(trainer: Trainer) -> None:
    """Refuse a trainer that expects other processes than torchrun or Slurm started, or would wait for some in vain.

    Raises:
        ConfigError: With what to set.
    """
    strategy = trainer.strategy
    if torch.distributed.is_torchelastic_launched():
        _check_torchrun(trainer)
    elif isinstance(strategy, ParallelStrategy) and strategy.cluster_environment is not None:
        environment = strategy.cluster_environment
        by_hand = "NODE_RANK" in os.environ or "GROUP_RANK" in os.environ
        if isinstance(environment, LightningEnvironment) and trainer.num_nodes > 1 and not by_hand:
            raise ConfigError(
                "trainer.num_nodes",
                f"{trainer.num_nodes} machines need a launcher on each, or this one would wait for the others: run "
                f"torchrun --nnodes {trainer.num_nodes} --nproc-per-node {trainer.num_devices} --rdzv-backend c10d "
                "--rdzv-endpoint HOST:PORT -m resdomains.cli fit ... on every one, or use Slurm's srun",
            )
        try:
            environment.validate_settings(trainer.num_devices, trainer.num_nodes)
        except ValueError as error:
            raise ConfigError("trainer.devices", str(error)) from error


def _check_torchrun(trainer: Trainer) -> None:
    world, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    alone = isinstance(trainer.strategy, SingleDeviceStrategy)
    if (trainer.num_devices, trainer.num_nodes * trainer.num_devices) == (local, world) and not (
        alone and world > 1
    ):
        return
    machines = (
        f" --trainer.num_nodes {world // local}" if world > local or trainer.num_nodes > 1 else ""
    )
    strategy = " --config trainer/ddp (or trainer/fsdp)" if alone else ""
    raise ConfigError(
        "trainer.devices",
        f"torchrun started {world} process{'es' * (world > 1)}, {local} on this machine, but this trainer is one of "
        f"{trainer.num_nodes} machine{'s' * (trainer.num_nodes > 1)} with {trainer.num_devices} "
        f"process{'es' * (trainer.num_devices > 1)}; add{strategy} --trainer.devices {local}{machines}",
    )
