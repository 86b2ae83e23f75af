"""What the runs of a study cost, before any of them is run."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning import seed_everything
from rich.table import Table

from resdomains.cli.arguments import split
from resdomains.cli.consoles import table_console
from resdomains.cli.errors import CliError
from resdomains.cli.fitting import build_trainer
from resdomains.cli.footprint import measure
from resdomains.cli.options import CONFIG_KEYS
from resdomains.cli.quiet import quiet
from resdomains.cli.session import Session
from resdomains.studies import PlannedRun, Study
from resdomains.training import Task
from resdomains.training.batches import Batches
from resdomains.training.task import counted, trained_flops


@dataclass(frozen=True)
class Cost:
    """What one run takes.

    Args:
        parameters: Of the whole task.
        samples: That training sees; None for a run without a planned end.
        flops: A sample, forward and backward; None where a task learns from its own actions.
        memory: Bytes of a training step beside the weights; None as above.
    """

    parameters: int
    samples: int | None
    flops: int | None
    memory: float | None


def show_costs(study: Study) -> int:
    """Print a study's runs, a row for each that differs in more than its seed; returns the exit status.

    Raises:
        CliError: If a config of a run is not accepted: a study says so before its first run.
    """
    quiet()
    table = Table(show_edge=False, pad_edge=False)
    for name in ("run", "seeds", "parameters", "samples", "FLOPs a sample", "FLOPs", "memory, MiB"):
        table.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    total, unknown = 0.0, 0
    groups = list(_setups(study))
    for runs in groups:
        first = runs[0]
        try:
            cost = cost_of(first)
        except CliError as error:
            raise CliError(f"{first.title}: {error}") from error
        whole = None
        if cost.flops is not None and cost.samples is not None:
            whole = float(cost.flops * cost.samples)
            total += whole * len(runs)
        else:
            unknown += len(runs)
        table.add_row(
            ", ".join([first.configs[0], *first.labels.values()]),
            f"{len(runs)}",
            f"{cost.parameters:,}",
            "" if cost.samples is None else f"{cost.samples:,}",
            "" if cost.flops is None else f"{cost.flops:.3g}",
            "" if whole is None else f"{whole:.3g}",
            "" if cost.memory is None else f"{cost.memory / 2**20:,.0f}",
        )
    table_console().print(table)
    for part in study.left_out:
        print(f"left out: {part}")
    rest = f", and {unknown} whose operations are counted when they run" if unknown else ""
    print(f"{len(study.runs)} runs, {len(groups)} setups, {total:.3g} FLOPs{rest}")
    return 0


def _setups(study: Study) -> Iterator[list[PlannedRun]]:
    """The runs that differ in their seed alone, together."""
    found: dict[str, list[PlannedRun]] = {}
    for run in study.runs:
        found.setdefault(repr((run.configs, dict(run.settings))), []).append(run)
    yield from found.values()


def cost_of(run: PlannedRun) -> Cost:
    """Build what a run trains, and measure a step on a few of its samples.

    Raises:
        CliError: If its config is not accepted.
    """
    session = Session(split(run.arguments(Path("runs")), roots=CONFIG_KEYS, composing=True))
    seed_everything(session.seed, workers=True, verbose=False)
    data = session.data()
    task = session.task(data.spec)
    parameters = sum(p.numel() for p in task.parameters())
    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = build_trainer(session, [], Path(folder), bar=False)
        trainer.strategy.connect(task)
        task.trainer = data.trainer = trainer
        trainer.datamodule = data  # type: ignore[attr-defined]  # what `fit` sets
        batches = data.batch_sampler("train", 0, 1)
        steps = trainer.max_steps
        if steps < 0 and trainer.max_epochs is not None and trainer.max_epochs >= 0:
            steps = trainer.max_epochs * len(batches)
        samples = None if steps < 0 else round(steps * batches.mean_items)
        if not task.automatic_optimization:
            return Cost(parameters, samples, None, None)
        need, _ = measure(trainer)
        return Cost(parameters, samples, _flops(task, batches), need.of(need.samples))


def _flops(task: Task, batches: Batches) -> int:
    """Operations a sample of a training step, counted on the first batch as a run does."""
    data = task.data
    assert data is not None
    batch = data.transform(data.batch("train", next(iter(batches))), "train")
    task.train()
    _, operations = counted(lambda: task.step(batch, "train"))
    return trained_flops(operations, batches.mean_items)
