"""The processes of a Slurm job."""

import os

from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]  # re-exported
    SLURMEnvironment,
)


class SlurmTasks(SLURMEnvironment):
    """The tasks that `srun` started, a process each.

    Signals are left to the run, which saves and ends with the exit status by which a script queues its job again.
    (Lightning would save a file of its own and queue the job itself.)
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)

    def node_rank(self) -> int:
        """Return the number of this process's node.

        Raises:
            RuntimeError: If `srun` did not start it.
        """
        if "SLURM_NODEID" not in os.environ:
            raise RuntimeError(
                "trainer/slurm is for processes that `srun` starts, and SLURM_NODEID is not set;"
                " `resdomains slurm-script` prints a script that starts them, trainer/ddp needs no Slurm"
            )
        return int(super().node_rank())
