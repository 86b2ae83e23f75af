"""Signals end a run between two steps: in all its processes together, with its state saved."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging
from torch import Tensor, distributed

from resdomains.cli.errors import INTERRUPTED, TERMINATED
from resdomains.training.run import is_first_process
from resdomains.training.saving import validation_follows

# Ctrl-C; what schedulers send before they kill; what Slurm is asked to send before a job's time is up.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):
    """A signal ended the run.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else "terminated")
        self.number = number

    @property
    def status(self) -> int:
        """The exit status: 130 after Ctrl-C, else 143, which asks a scheduler to start the run again."""
        return status_of(self.number)


def status_of(number: int) -> int:
    """The exit status of a run that a signal ended."""
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


class Signals:
    """Keeps the first signal that arrives; a second one ends the process at once.

    A thread hears them from the file descriptor to which Python writes each signal's number as it arrives: a handler
    would have to wait for the main thread, which may be waiting in a collective for a process that has gone.

    Args:
        at_once: Called before the process ends by a second signal.
    """

    def __init__(self, at_once: Callable[[], None]) -> None:
        self.heard = 0
        self._at_once = at_once
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python gives signals to the main thread alone.
        if threading.current_thread() is threading.main_thread():
            self._ours, theirs = socket.socketpair()
            self._theirs = theirs
            theirs.setblocking(False)
            self._descriptor = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
            self.take()
            threading.Thread(target=self._listen, name="signals", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._descriptor)
            self._theirs.close()  # which ends the thread

    def take(self) -> None:
        """Take the signals from whoever has them; Lightning does where it begins to run."""
        if self._before:
            for number in SIGNALS:
                signal.signal(number, _nothing)

    def _listen(self) -> None:
        with self._ours:
            while byte := self._ours.recv(1):
                if byte[0] in SIGNALS:
                    self._hear(signal.Signals(byte[0]))

    def _hear(self, number: signal.Signals) -> None:
        if self.heard:
            self._at_once()
            os._exit(status_of(number))
        self.heard = number
        if is_first_process():
            print(
                f"{number.name}: stopping after this step; another one stops at once",
                file=sys.stderr,
                flush=True,
            )


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal: Python writes its number only where there is a handler."""


def _hear_nothing() -> None:
    """Let a forked process, such as a data worker, not speak for its parent."""
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_hear_nothing)


class _Agreement:
    """What any process has heard, known to all of them at the same step.

    A round begins with one call and ends with the next: nobody waits but for a process that is a step behind.
    """

    def __init__(self) -> None:
        # On CPU tensors, whatever the devices compute. A process may be busy for longer than gloo's half an hour, as
        # with a long test; that one has died is seen by its connection.
        self._group = distributed.new_group(backend="gloo", timeout=timedelta(days=7))
        self._round: tuple[Tensor, Any] | None = None

    def highest(self, heard: int) -> int:
        """Return the highest signal of the last round, 0 for none, and begin the next with this one."""
        agreed = 0
        if self._round is not None:
            value, work = self._round
            work.wait()
            agreed = int(value)
        value = torch.tensor(heard)
        work = distributed.all_reduce(
            value, distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._round = value, work
        return agreed

    def least(self, count: int) -> int:
        """Return the least of all processes' counts."""
        value = torch.tensor(count)
        distributed.all_reduce(value, distributed.ReduceOp.MIN, group=self._group)
        return int(value)


class StopBetweenSteps(Checkpoint):
    """End a run between two steps when a signal has arrived in any of its processes.

    All processes stop at the same step, save together and raise `Stopped`. In validation and test they stop at a
    batch; a run that goes on then begins that validation anew. To be entered (`with`) around what the Trainer runs.

    As a `Checkpoint` it stands behind the callbacks that count steps, and behind those that save an epoch's end.

    Args:
        path: Where to save; None if there is nothing to be saved, as where a checkpoint is evaluated.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._signals = Signals(self._kill_others)
        self._agreement: _Agreement | None = None
        self._agreed = 0
        self._rounds = 0  # of an evaluation: as many as all processes have batches
        self._saving_in_validation = False
        self._trainer: Trainer | None = None

    def __enter__(self) -> Self:
        self._signals.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._signals.__exit__(kind, error, where)

    def _kill_others(self) -> None:
        # Those that Lightning started; schedulers and torchrun see to theirs.
        launcher = None if self._trainer is None else self._trainer.strategy.launcher
        kill = getattr(launcher, "kill", None)
        if kill is not None:
            kill(signal.SIGKILL)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the processes."""
        self._trainer = trainer
        if self._agreement is None and trainer.world_size > 1:
            self._agreement = _Agreement()

    def _ask(self) -> None:
        heard = self._signals.heard
        if self._agreement is not None:
            heard = self._agreement.highest(heard)
        self._agreed = self._agreed or heard

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals from Lightning, whose handlers would end the run with status 0."""
        self._signals.take()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after a whole step.

        Raises:
            Stopped: If a process heard a signal.
        """
        self._ask()
        # Gradients that are still accumulated are in no checkpoint.
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # What follows a step without being part of it would be left out by a run that goes on from here: of these,
        # validation and the epoch's end stop a run themselves.
        if whole and not validation_follows(trainer):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after an epoch.

        Raises:
            Stopped: If a process heard a signal.
        """
        self._stop(trainer)

    def _on_evaluation_start(self, trainer: Trainer, batches: int) -> None:
        self._signals.take()
        self._rounds = batches if self._agreement is None else self._agreement.least(batches)
        self._stop(trainer)

    def _on_evaluation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, batch_idx: int
    ) -> None:
        if batch_idx >= self._rounds:
            return
        self._ask()
        if self._agreed and trainer.validating:
            # Averaged weights stand in the network's place while they are validated.
            for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by a connector
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)
        self._stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before a validation.

        Raises:
            Stopped: If a process heard a signal.
        """
        self._on_evaluation_start(trainer, int(sum(trainer.num_val_batches)))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop within a validation.

        Raises:
            Stopped: If a process heard a signal.
        """
        self._on_evaluation_batch_end(trainer, pl_module, batch_idx)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before a test.

        Raises:
            Stopped: If a process heard a signal.
        """
        self._on_evaluation_start(trainer, int(sum(trainer.num_test_batches)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop within a test.

        Raises:
            Stopped: If a process heard a signal.
        """
        self._on_evaluation_batch_end(trainer, pl_module, batch_idx)

    def _stop(self, trainer: Trainer) -> None:
        if not self._agreed:
            return
        if self._path is not None and trainer.state.fn == "fit":
            self._saving_in_validation = trainer.validating
            trainer.save_checkpoint(self._path)
        raise Stopped(self._agreed)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a run that goes on from within a validation begin it anew.

        Lightning does that where it finds the validation within its first batch, and skips the rest of it otherwise.
        """
        if self._saving_in_validation:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            done = progress["total"]["completed"] - progress["current"]["completed"]
            for name, before in (("current", 0), ("total", done)):
                progress[name].update(
                    ready=before + 1, started=before + 1, processed=before, completed=before
                )
            progress["is_last_batch"] = False
