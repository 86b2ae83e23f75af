"""Which checkpoints a run keeps."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor


class Checkpoints(ModelCheckpoint):
    """Keep `last.ckpt`, and `best.ckpt` by a result of the validation.

    A run that goes on from a checkpoint has a folder of its own, and still competes with the best of the run before.

    Args:
        folder: Where they go.
        monitor: The result's name, such as `val/score`, higher is better; None without a validation: `best.ckpt` is
            the newest.
    """

    def __init__(self, folder: Path, monitor: str | None) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode="max",
            save_last=True,
            enable_version_counter=False,
            # A resumed epoch may end without a validation, and then has no score to monitor.
            save_on_train_epoch_end=monitor is None,
        )

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Let a later state of an equal score take the earlier one's place: it has learned longer."""
        equal = (
            current is not None
            and self.best_model_score is not None
            and current == self.best_model_score
        )
        return bool(equal) or super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best score and its file, which Lightning forgets when the folder is another."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


class LastEpochs(ModelCheckpoint):
    """Keep a checkpoint of each of the last epochs, `epoch=07.ckpt`, counted from 0.

    A run that goes on from a checkpoint leaves those of the run before where they are.

    Args:
        folder: Where they go.
        count: How many.
    """

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(
            dirpath=folder,
            filename="{epoch:02d}",
            monitor="epoch",  # which Lightning knows by itself
            mode="max",
            save_top_k=count,
            save_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Forget the files of the run before, which Lightning would count as this one's and remove."""
