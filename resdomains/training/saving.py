"""Which checkpoints a run keeps, and how they are written."""

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from resdomains.training.checkpoints import LAST, PREVIOUS, read_checkpoint


class CheckpointFiles(TorchCheckpointIO):
    """Write checkpoints whole or not at all, keep the one before the last, and read none that is damaged.

    A checkpoint is complete on the disk before it gets its name; then `last.ckpt` becomes `previous.ckpt`, and the new
    one `last.ckpt`. So whenever the process is killed, a sound one is there. (Lightning writes to the temporary folder
    and moves the file, which is a copy where that is another disk.)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If the disk is full or fails; what was there before stays.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The same name each time: what a killed process left of it is overwritten.
        draft = path.with_name(f"{path.name}.part")
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            draft.unlink(missing_ok=True)
            reason = error.__context__
            if isinstance(error, RuntimeError) and isinstance(reason, OSError):
                # torch hides what the file said behind an error of its own
                raise OSError(reason.errno, reason.strerror, str(path)) from error
            raise
        if path.name == LAST and path.exists():
            path.replace(path.with_name(PREVIOUS))
        draft.replace(path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU.

        Raises:
            BadCheckpoint: If it is damaged, or holds more than plain values.
        """
        return read_checkpoint(path)


class LastCheckpoint(Checkpoint):
    """Keep `last.ckpt`: after each validation, at the end of each epoch, and every few optimizer steps if asked for.

    (Lightning's ModelCheckpoint saves its last one only where it saves its best.) A step that a validation or the
    epoch's end follows is left to them: going on from before a validation, Lightning would leave it out.

    Args:
        path: The file.
        every_n_steps: How many; None for none within an epoch.
    """

    def __init__(self, path: Path, every_n_steps: int | None) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self._saved = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where a run goes on."""
        self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when enough steps were taken; a batch may make several."""
        every = self.every_n_steps
        if every is None or trainer.global_step // every == self._saved // every:
            return
        if not validation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save with what the validation brought."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what no validation has."""
        if trainer.global_step != self._saved:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by a connector
            trainer.save_checkpoint(self.path)
            self._saved = trainer.global_step


def validation_follows(trainer: Trainer) -> bool:
    """Say, at the end of a training batch, whether a validation or the epoch's end comes next."""
    if trainer.is_last_batch:
        return True
    every = trainer.val_check_batch
    if every is None or trainer.limit_val_batches == 0:
        return False
    loop = trainer.fit_loop
    done = loop.total_batch_idx if trainer.check_val_every_n_epoch is None else loop.batch_idx
    return (done + 1) % every == 0


class Checkpoints(ModelCheckpoint):
    """Keep `best.ckpt` by a result of the validation.

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

    A run that goes on in a folder of its own leaves those of the run before where they are.

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
            enable_version_counter=False,  # an epoch that is done again replaces its checkpoint
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up this folder's files; those of the run before Lightning would count as this one's and remove."""
        if state_dict["dirpath"] == self.dirpath:
            super().load_state_dict(state_dict)
