"""Say why a run ended, and what to do about it."""

import errno

from pytorch_lightning import Trainer

from resdomains.cli.main import unexpected
from resdomains.training import BadSample, Run, TrainingDiverged

# How gloo and NCCL say that a process at the other end has gone.
_PEER_GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "remote process has terminated",
)


def explain_failure(error: Exception, run: Run, trainer: Trainer, go_on: str) -> str:
    """Return what the command says of an error that ended a run.

    Args:
        error: What was raised.
        run: The run; the traceback of an error that nothing is known about goes to its folder.
        trainer: The run's trainer.
        go_on: The command that goes on from the last checkpoint, as a line.
    """
    if isinstance(error, TrainingDiverged):
        return str(error)
    if trainer.world_size > 1 and any(sign in str(error) for sign in _PEER_GONE):
        return "stopped, because another process ended; its own error says why"
    if isinstance(error, BadSample):
        return f"data: {error}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for {error.filename or run.folder}; free some and go on:\n{go_on}"
    return unexpected(error, run.folder)
