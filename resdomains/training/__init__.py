"""Training: the bases of tasks and data modules, and what every run does."""

from resdomains.training.averaging import EMA
from resdomains.training.checkpoints import (
    BadCheckpoint,
    DamagedCheckpoint,
    Start,
    average_checkpoints,
    load_task,
    newest_checkpoint,
    read_checkpoint,
    start_at,
)
from resdomains.training.data import BadSample, DataModule
from resdomains.training.figures import Box, Boxed, Film, NoFilm, Sound
from resdomains.training.locking import InUse
from resdomains.training.optimization import (
    Constant,
    Optimization,
    Schedule,
    Steps,
    WarmupCosine,
    WarmupLinear,
)
from resdomains.training.replication import Replicated
from resdomains.training.run import Run, RunOptions, run_facts
from resdomains.training.sharding import Sharded, check_sharding
from resdomains.training.task import StepResult, Task, TrainingDiverged
from resdomains.training.weights_and_biases import WandbOptions

__all__ = [
    "EMA",
    "BadCheckpoint",
    "BadSample",
    "Box",
    "Boxed",
    "Constant",
    "DamagedCheckpoint",
    "DataModule",
    "Film",
    "InUse",
    "NoFilm",
    "Optimization",
    "Replicated",
    "Run",
    "RunOptions",
    "Schedule",
    "Sharded",
    "Sound",
    "Start",
    "StepResult",
    "Steps",
    "Task",
    "TrainingDiverged",
    "WandbOptions",
    "WarmupCosine",
    "WarmupLinear",
    "average_checkpoints",
    "check_sharding",
    "load_task",
    "newest_checkpoint",
    "read_checkpoint",
    "run_facts",
    "start_at",
]
