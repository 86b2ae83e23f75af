"""A small residual network over points, in a task that trains in milliseconds."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback
from torch import Tensor, nn

from resdomains.core import Add, Bare, Merge, Residual, Site
from resdomains.training import Optimization
from tests.resdomains.training.toy import Clouds, Side


class Blocks(nn.Module):
    """Linear branches of width 4 with identity shortcuts, then a linear layer."""

    def __init__(
        self,
        count: int = 3,
        merge: Callable[[Site], Merge] = Add,
        branch: Callable[[], nn.Module] = lambda: nn.Linear(4, 4),
        last: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Residual(branch(), Bare(), merge(Site(4, -1, index, count))) for index in range(count)
        )
        self.last = last or nn.Linear(4, 2)

    def residuals(self) -> list[Residual]:
        """The blocks."""
        return [layer for layer in self.layers if isinstance(layer, Residual)]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.last(x)
        return y


def trainer(folder: Path, callbacks: Sequence[Callback], **options: Any) -> pl.Trainer:
    """A trainer that shows and keeps nothing but what the callbacks write into `folder`."""
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    return pl.Trainer(**{**settings, **options}, callbacks=list(callbacks), default_root_dir=folder)


def side(backbone: Callable[[], nn.Module] = Blocks) -> tuple[Side, Clouds]:
    """A task on the clouds, seeded."""
    data = Clouds()
    pl.seed_everything(0, verbose=False)
    task = Side(backbone=backbone(), spec=data.spec, optimization=Optimization(lr=0.05))
    return task, data


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hooks(network: nn.Module) -> int:
    """How many hooks a network's modules have."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in network.modules() for kind in kinds)
