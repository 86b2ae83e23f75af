"""Say why a run ended, and what to do about it."""

import errno
import re

import torch
from pytorch_lightning import Trainer

from resdomains.cli.footprint import advise, let_go
from resdomains.cli.main import unexpected
from resdomains.training import BadSample, Run

# How gloo and NCCL say that a process at the other end has gone.
_PEER_GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "remote process has terminated",
)
_FULL = (errno.ENOSPC, errno.EDQUOT)
# How torch says that a loader's process died or kept the run waiting, and what it adds to an error of one.
_WORKER_DIED = re.compile(
    r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (is killed by signal|exited unexpectedly)"
)
_WORKER_HANGS = re.compile(r"DataLoader timed out after ([\d.]+) seconds")
_IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.")
_IN_PROCESS = "--data.num_workers 0 reads in the training process"


def explain_failure(error: Exception, run: Run, trainer: Trainer, go_on: str) -> str:
    """Return what the command says of an error that ended a run.

    Args:
        error: What was raised.
        run: The run; the traceback of an error that nothing is known about goes to its folder.
        trainer: The run's trainer.
        go_on: The command that goes on from the last checkpoint, as a line.
    """
    if trainer.world_size > 1 and any(sign in str(error) for sign in _PEER_GONE):
        return "stopped, because another process ended; its own error says why"
    if isinstance(error, BadSample):
        return f"data: {error}"
    if said := _of_worker(str(error)):
        return f"data: {said}\n{go_on}"
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"no space left for {error.filename or run.folder}; free some and go on:\n{go_on}"
    if _lacked_memory(error):
        return f"out of memory: {_lower(error, trainer)}\n{go_on}"
    return unexpected(error, run.folder)


def _lacked_memory(error: Exception) -> bool:
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def _lower(error: Exception, trainer: Trainer) -> str:
    """What to lower so that a step fits in the memory."""
    general = "lower --data.batch_size, raise --trainer.accumulate_grad_batches by as much"
    task = trainer.lightning_module
    # Steps that a task makes by itself have batches of its own, and of several processes one cannot measure alone.
    if not task.automatic_optimization or trainer.world_size > 1:
        return general
    let_go(error, trainer)
    try:
        return "\n  ".join(advise(trainer))
    except Exception as failure:  # a measurement in what memory is left may fail like the step did
        return f"{general} (what a step needs could not be measured: {type(failure).__name__})"


def _of_worker(text: str) -> str | None:
    """What an error says that came about in a loader's process; None if it did not."""
    if died := _WORKER_DIED.search(text):
        killed = died[1] == "is killed by signal"
        # Where the loader finds it gone before the system says why, nobody knows.
        how = "was killed" if killed else "ended by itself or was killed"
        why = (
            f"a loader worker {how}, as the system does where memory runs out: "
            "lower --data.num_workers or --data.batch_size"
        )
        return f"{why}; {_IN_PROCESS} and shows what it does"
    if waited := _WORKER_HANGS.search(text):
        return (
            f"no loader worker gave a batch within {float(waited[1]):g} s: reading hangs, or takes longer than "
            f"--run.data_timeout allows (0 waits for ever); {_IN_PROCESS} and shows where"
        )
    if (caught := _IN_WORKER.search(text)) and caught[1] == BadSample.__name__:
        # Its traceback ends with `resdomains.training.data.BadSample: photo.jpg: cannot be read`.
        return text.strip().rpartition(f"{caught[1]}: ")[2]
    return None
