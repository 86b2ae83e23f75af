"""A run's record in Weights & Biases."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from resdomains.training import schema

if TYPE_CHECKING:
    from wandb import Run as WandbRun


@dataclass
class WandbOptions:
    """Where a run goes in Weights & Biases.

    Args:
        project: Project name.
        entity: User or team; None for the account's default.
        mode: `auto` is online when logged in, else offline; it never asks.
        group: Runs to show together.
        job_type: Kind of run within a group.
        tags: Labels.
    """

    project: str = "resdomains"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    group: str | None = None
    job_type: str = "fit"
    tags: list[str] = field(default_factory=list)

    def resolved_mode(self) -> Literal["online", "offline", "disabled"]:
        """Return the mode that `auto` stands for here and now; W&B's own WANDB_MODE has its say first."""
        if self.mode != "auto":
            return self.mode
        said = os.environ.get("WANDB_MODE")
        if said in ("offline", "dryrun"):
            return "offline"
        if said == "disabled":
            return "disabled"
        import wandb

        return "online" if wandb.login(prompt=False, verify=False) else "offline"


def begin_wandb(
    options: WandbOptions,
    mode: Literal["online", "offline"],
    folder: Path,
    *,
    name: str,
    group: str,
    tags: Sequence[str],
    facts: dict[str, Any],
    metric_names: Sequence[str],
) -> "WandbRun":
    """Begin a W&B run, with the shared axes under the shared names.

    Args:
        options: Where it goes.
        mode: Whether it is sent now.
        folder: Where its files lie.
        name: The run's name.
        group: The group's name unless the options give one.
        tags: Labels beside those of the options.
        facts: The run's config, all plain.
        metric_names: The names of the task's own metrics.
    """
    import wandb

    # The run is begun here and not by Lightning's logger, which would define `*` (a glob that competes with exact names
    # and wins at random) and pass an argument that W&B warns about.
    run = wandb.init(
        name=name,
        dir=str(folder),
        mode=mode,
        project=options.project,
        entity=options.entity,
        group=options.group or group,
        job_type=options.job_type,
        tags=[*tags, *options.tags],
        config=facts,
        settings=wandb.Settings(silent=True, console="off"),
    )
    for axis in ("trainer/global_step", *schema.PROGRESS):
        run.define_metric(axis)
    for metric in (*schema.logged_names(list(metric_names)), *schema.RESIDUAL):
        run.define_metric(metric, step_metric=schema.SAMPLES)
    return run


def finish_wandb(succeeded: bool) -> None:
    """End the W&B run of this process."""
    import wandb

    wandb.finish(exit_code=0 if succeeded else 1)
