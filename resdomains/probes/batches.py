"""A task's batches outside of Lightning's loops, as those loops would hand them over."""

from collections.abc import Iterator
from typing import Any, cast

from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from resdomains.schema import Split
from resdomains.training import DataModule, Task
from resdomains.training.batches import ShardedBatches


def batches(trainer: Trainer, split: Split, limit: float) -> Iterator[Any]:
    """Yield this process's first batches of a split, on its device and transformed for the split.

    Raises:
        TypeError: If the trainer does not run on a data module of resdomains.
    """
    data = _data(trainer)
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    for number, batch in enumerate(loader):
        if number >= limit:
            return
        yield data.transform(_on_device(trainer, batch), split)


def training_batches(trainer: Trainer) -> Iterator[Any]:
    """Yield this process's share of the training samples, each once, as an evaluation would get them.

    Raises:
        TypeError: If the trainer does not run on a data module of resdomains.
    """
    data = _data(trainer)
    samples = data.unchanged()
    share = ShardedBatches(
        len(samples),  # type: ignore[arg-type]  # map-style data sets have a length
        data.batch_size,
        trainer.global_rank,
        trainer.world_size,
        shuffle=False,
        seed=data.seed,
    )
    for batch in DataLoader(
        samples, batch_sampler=share, collate_fn=data.collate, num_workers=data.num_workers
    ):
        yield data.transform(_on_device(trainer, batch), "val")


def _data(trainer: Trainer) -> DataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by fit and validate
    if not isinstance(data, DataModule):
        raise TypeError(
            f"probes read batches from a resdomains.training.DataModule, the trainer has {type(data).__name__}; "
            "call fit or validate with datamodule=..."
        )
    return data


def _on_device(trainer: Trainer, batch: Any) -> Any:
    task = cast(Task, trainer.lightning_module)
    batch = trainer.precision_plugin.convert_input(batch)
    return task.transfer_batch_to_device(batch, task.device, 0)


def validation_batches(trainer: Trainer) -> float:
    """Return how many batches this process validates on; 0 without a validation split."""
    return float(sum(trainer.num_val_batches))
