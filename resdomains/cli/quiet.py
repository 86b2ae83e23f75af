"""Keep third parties' remarks off the terminal; warnings that are not listed here still show."""

import logging
import warnings

# Lightning announces devices, seeds and tips at level INFO; the run's first lines say what matters.
LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "torch.distributed")
# What `--trainer.profiler` asks for comes at that level too.
ASKED_FOR = "pytorch_lightning.profilers"

# The beginning of each message, and above it why its reader cannot or need not act on it.
WARNINGS = (
    # num_workers is a key of the data module; data that lie in memory are fastest without workers.
    r"The '\w+' does not have many workers",
    # A small data set has fewer batches than the interval; the rest is logged at the epoch's end.
    r"The number of training batches \(\d+\) is smaller than the logging interval",
    # The loader keeps its own state, so that a run resumed in the middle of an epoch is exact.
    r"You're resuming from a checkpoint that ended before the epoch ended",
    # `--trainer.accelerator cpu` on a machine with a GPU is a choice, and the first lines name it.
    r"GPU available but not used",
    # Task logs what its metrics computed over all processes; there is nothing left to reduce.
    r"It is recommended to use `self\.log\(.*sync_dist=True\)`",
    # A run that goes on in its folder (`--run.id`) finds its checkpoints there.
    r"Checkpoint directory .* exists and is not empty",
    # Lightning says so wherever Slurm is installed and the run is no job.
    r"The `srun` command is available on your system but is not used",
    # Data without a validation split give no batches of one.
    r"Total length of `list` across ranks is zero",
    # Lightning calls names that torch has retired.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


def quiet() -> None:
    """Silence what is listed above."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(ASKED_FOR).setLevel(logging.INFO)
    for pattern in WARNINGS:
        warnings.filterwarnings("ignore", pattern)
