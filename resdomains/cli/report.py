"""The first lines and the last table of a run."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer
from rich.console import Console
from rich.table import Table

from resdomains.training import DataModule, Task
from resdomains.training.precision import Precision

console = Console(highlight=False, soft_wrap=True)


def first_lines(
    facts: Mapping[str, Any], task: Task, data: DataModule, trainer: Trainer, precision: Precision
) -> list[tuple[str, str]]:
    """What runs, on what, and how exactly."""
    depth = "" if facts["depth"] is None else f", depth {facts['depth']}"
    world = trainer.world_size
    processes = f"{world} process{'es' if world > 1 else ''}"
    accumulate = trainer.accumulate_grad_batches
    batch = f"batch {data.batch_size}" + (f" x {accumulate} accumulated" if accumulate > 1 else "")
    device = str(trainer.strategy.root_device)
    return [
        ("task", f"{facts['task']} ({type(task).__name__})"),
        ("data", f"{facts['data']}, {batch}{' over all processes' if world > 1 else ''}"),
        (
            "network",
            f"{facts['network']}{depth}, {facts['parameters']:,} parameters, {joins(facts)}",
        ),
        ("device", f"{device}, {processes}, {precision.name}, because {precision.reason}"),
    ]


def joins(facts: Mapping[str, Any]) -> str:
    """How the blocks join, and what else a run's network was told to do with them."""
    others = {name: count for name, count in facts["merges"].items() if name != facts["merge"]}
    said = [
        f"{name} in {count} that change{'s' * (count == 1)} the shape"
        for name, count in others.items()
    ]
    merge = f"merge {facts['merge']}" + (f" ({', '.join(said)})" if said else "")
    usual = {"coupling": "Plain", "memory": "Store"}
    rest = [f"{key} {facts[key]}" for key, name in usual.items() if facts[key] not in (None, name)]
    return ", ".join([merge, *rest])


def never_validated(trainer: Trainer) -> str | None:
    """Why a run will not be validated though it may be; None if it will, or was told not to."""
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    if epochs is None or every is None or not 0 < epochs < every or not trainer.limit_val_batches:
        return None
    return (
        f"nothing is validated: the run ends after epoch {epochs}, and the first validation would follow epoch {every} "
        f"(--trainer.check_val_every_n_epoch {every})"
    )


def ended_early(trainer: Trainer) -> str | None:
    """What ended training before its epochs and steps were over; None if nothing did."""
    done, wanted = trainer.current_epoch, trainer.max_epochs
    if done == wanted or trainer.global_step == trainer.max_steps:
        return None  # a checkpoint may hold why an earlier run ended
    found = []
    for stopping in trainer.early_stopping_callbacks:
        if message := stopping.stopping_reason_message:
            found.append(message.removesuffix(" Signaling Trainer to stop."))
    for timer in trainer.callbacks:  # type: ignore[attr-defined]  # set by the trainer's constructor
        if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None and left <= 0:
            found.append("the time of --trainer.max_time is over")
    if not found:
        return None
    of = "" if wanted in (None, -1) else f" of {wanted}"
    return f"after {done}{of} epochs: {'; '.join(found)}"


def print_pairs(pairs: list[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        console.print(f"[bold]{name:<{width}}[/bold]", end="")
        console.print(value, markup=False)


def number(value: Any) -> str:
    """A number as a table shows it."""
    if not isinstance(value, float | int):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return "not defined"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def scalars(task: Task, split: str) -> dict[str, float]:
    """A split's results that are one number, score and skill first."""
    results = task.results.get(split, {})
    names = sorted(results, key=lambda n: ({"score": 0, "skill": 1}.get(n, 2), n))
    return {name: float(results[name]) for name in names if results[name].ndim == 0}


def result_table(columns: Mapping[str, Mapping[str, float]], rest: Mapping[str, str]) -> Table:
    """One table: a column a split, then what belongs to the whole run.

    Args:
        columns: For each column's title its values by name.
        rest: Further rows with one value.
    """
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for title in columns:
        table.add_column(title, justify="right")
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    for name in names:
        table.add_row(
            name, *(number(values[name]) if name in values else "" for values in columns.values())
        )
    table.add_section()
    for name, value in rest.items():
        table.add_row(name, value, *[""] * (len(columns) - 1))
    return table


def relative(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
