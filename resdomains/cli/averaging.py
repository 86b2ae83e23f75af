"""Write the mean of checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import torch

from resdomains.cli.errors import CliError
from resdomains.training import BadCheckpoint, average_checkpoints


def write_mean(paths: Sequence[str], output: Path) -> int:
    """Write the mean of checkpoints to a file, whole or not at all; returns the exit status.

    Raises:
        CliError: If they cannot be averaged or written.
    """
    try:
        mean = average_checkpoints(paths)
    except BadCheckpoint as error:
        raise CliError(str(error)) from error
    draft = output.with_name(f".{output.name}.part")
    try:
        torch.save(mean, draft)
        draft.replace(output)
    except (OSError, RuntimeError) as error:  # torch says so of a disk that is full
        draft.unlink(missing_ok=True)
        raise CliError(f"--output {output}: cannot be written: {error}") from error
    print(
        f"mean of {len(paths)} checkpoints, the last of step {mean.get('global_step', 0):,}, written to {output}"
    )
    return 0
