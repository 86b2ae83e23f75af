"""Training: the bases of tasks and data modules, and what every run does."""

from resdomains.training.averaging import EMA
from resdomains.training.checkpoints import (
    BadCheckpoint,
    average_checkpoints,
    load_task,
    read_checkpoint,
)
from resdomains.training.data import BadSample, DataModule
from resdomains.training.figures import Box, Boxed, Film, NoFilm, Sound
from resdomains.training.optimization import (
    Constant,
    Optimization,
    Schedule,
    Steps,
    WarmupCosine,
    WarmupLinear,
)
from resdomains.training.run import Run, RunOptions, run_facts
from resdomains.training.task import StepResult, Task, TrainingDiverged
from resdomains.training.weights_and_biases import WandbOptions

__all__ = [
    "EMA",
    "BadCheckpoint",
    "BadSample",
    "Box",
    "Boxed",
    "Constant",
    "DataModule",
    "Film",
    "NoFilm",
    "Optimization",
    "Run",
    "RunOptions",
    "Schedule",
    "Sound",
    "StepResult",
    "Steps",
    "Task",
    "TrainingDiverged",
    "WandbOptions",
    "WarmupCosine",
    "WarmupLinear",
    "average_checkpoints",
    "load_task",
    "read_checkpoint",
    "run_facts",
]
