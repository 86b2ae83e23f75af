"""A task's batches outside of Lightning's loops, as those loops would hand them over."""

from collections.abc import Iterator
from typing import Any, cast

from pytorch_lightning import Trainer

from resdomains.schema import Split
from resdomains.training import DataModule, Task


def batches(
    trainer: Trainer, split: Split, limit: float, transformed_for: Split | None = None
) -> Iterator[Any]:
    """Yield this process's first batches of a split, on its device and transformed.

    Args:
        trainer: What runs the task.
        split: Split of the samples.
        limit: How many batches at most.
        transformed_for: Split whose transformation they get; their own's if not given.

    Raises:
        TypeError: If the trainer does not run on a data module of resdomains.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by fit and validate
    if not isinstance(data, DataModule):
        raise TypeError(
            f"probes read batches from a resdomains.training.DataModule, the trainer has {type(data).__name__}; "
            "call fit or validate with datamodule=..."
        )
    task = cast(Task, trainer.lightning_module)
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    for number, batch in enumerate(loader):
        if number >= limit:
            return
        batch = trainer.precision_plugin.convert_input(batch)
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        yield data.transform(batch, transformed_for or split)


def validation_batches(trainer: Trainer) -> float:
    """Return how many batches this process validates on; 0 without a validation split."""
    return float(sum(trainer.num_val_batches))
