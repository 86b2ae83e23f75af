"""The names that every run logs, in every domain. No other module spells them out."""

from typing import Literal

Split = Literal["train", "val", "test"]

SAMPLES = "progress/samples"
FLOPS = "progress/flops"
SECONDS = "progress/seconds"
PROGRESS = (SAMPLES, FLOPS, SECONDS)

SAMPLES_PER_SECOND = "perf/samples_per_second"
STEP_SECONDS = "perf/step_seconds"
DATA_WAIT = "perf/data_wait"
PEAK_MEMORY = "perf/peak_memory_mib"
PERF = (SAMPLES_PER_SECOND, STEP_SECONDS, DATA_WAIT, PEAK_MEMORY)

LEARNING_RATE = "train/lr"

# What probes log, where they are switched on.
GRAD_RATIO = "residual/grad_ratio"
CONTRIBUTION_MEAN = "residual/contribution_mean"
RESIDUAL = (GRAD_RATIO, CONTRIBUTION_MEAN)
PROFILE = "residual/profile"
REMOVAL = "residual/removal"


def key(split: Split, name: str) -> str:
    """Return the logged name of a split's value, such as `val/score`."""
    return f"{split}/{name}"


LOSS, SCORE, SKILL = "loss", "score", "skill"

TRAIN_LOSS = key("train", LOSS)
VAL_LOSS = key("val", LOSS)
VAL_SCORE = key("val", SCORE)
VAL_SKILL = key("val", SKILL)


def skill(score: float, chance: float | None) -> float:
    """Return (score - chance) / (1 - chance): 0 at chance level, 1 when perfect, NaN where chance is not defined."""
    return float("nan") if chance is None else (score - chance) / (1.0 - chance)


def logged_names(metrics: list[str]) -> list[str]:
    """List every scalar that a run logs, given the names of its task's own metrics."""
    per_split = [LOSS, SCORE, SKILL, *metrics]
    splits: tuple[Split, ...] = ("val", "test")
    return [TRAIN_LOSS, LEARNING_RATE, *PERF, *(key(s, n) for s in splits for n in per_split)]
