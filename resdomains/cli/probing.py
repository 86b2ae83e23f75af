"""Probe the residual blocks of a finished run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities import rank_zero_only
from rich.table import Table

from resdomains import schema
from resdomains.cli import report
from resdomains.cli.arguments import Arguments
from resdomains.cli.errors import CliError
from resdomains.cli.evaluation import load_weights
from resdomains.cli.fitting import (
    build_trainer,
    checkpoint_at,
    compose,
    leave_together,
    print_or_explain,
)
from resdomains.cli.main import complain
from resdomains.cli.quiet import quiet
from resdomains.cli.resume import check_spec
from resdomains.cli.session import Session
from resdomains.probes import (
    CompositeGain,
    Contribution,
    GradientFlow,
    Lesion,
    Probe,
    blocks_of,
    profile,
)
from resdomains.training import DataModule, Run, run_facts
from resdomains.training.weights_and_biases import WandbRecord

# As many rows as a terminal shows at once; `profile.csv` has all blocks.
_ROWS = 40


def probe(arguments: Arguments, chosen: Sequence[str], removed: list[int] | None) -> int:
    """Run probes on a checkpoint; returns the exit status.

    Args:
        arguments: The command line.
        chosen: Names of the probes.
        removed: How many random blocks to remove; None for the default.

    Raises:
        CliError: If the checkpoint has no residual blocks, or the data not what the probes need.
    """
    quiet()
    session = compose(arguments, portable=True)
    if print_or_explain(arguments, session):
        return 0
    assert session.ckpt_path is not None
    checkpoint = checkpoint_at(session.ckpt_path)
    folder = _folder(arguments, Path(session.ckpt_path))
    seed_everything(session.seed, workers=True, verbose=False)
    spec = checkpoint["resdomains"]["spec"]
    data = session.data(spec)
    _need(data, session.data_name, chosen)
    check_spec(spec, data.spec)
    task = session.task(spec)
    try:
        blocks_of(task)
    except ValueError as error:
        raise CliError(f"--ckpt_path {session.ckpt_path}: {error}") from error
    load_weights(task, checkpoint, session.ckpt_path)
    shape = arguments.choice("format", "table", ("table", "json"))
    bar = shape == "table" and sys.stdout.isatty()
    probes = _build(arguments, session, chosen, removed, folder, bar)
    trainer, precision = build_trainer(session, list(probes), folder, bar=False)
    # A config of a run with probes brings its own.
    others = [c for c in trainer.callbacks if not isinstance(c, Probe)]  # type: ignore[attr-defined]
    trainer.callbacks = [*others, *probes]  # type: ignore[attr-defined]
    if "batches" in arguments.options:
        trainer.limit_val_batches = arguments.number("batches", 1)
    options = session.run_options()
    options.wandb.job_type = "probe"
    run = Run(folder.absolute(), session.task_name, session.name, options.wandb)
    facts = run_facts(task, run, session.data_name, session.seed, trainer.world_size)
    if shape == "table":
        lines = report.first_lines(facts, task, data, trainer, precision)
        rank_zero_only(report.print_pairs)([*lines, ("weights", session.ckpt_path)])
    trainer.loggers = run.loggers(facts, list(task.metrics_of("val")))
    trainer.validate(task, datamodule=data, verbose=False)
    _end_wandb(trainer)
    _show(probes, shape, folder)
    leave_together()
    return 0


def _folder(arguments: Arguments, checkpoint: Path) -> Path:
    """Where the files go: what `--output` names, else beside the run's checkpoints."""
    given = arguments.options.get("output")
    if given is not None:
        folder = Path(given)
        if not folder.absolute().parent.is_dir():
            raise CliError(f"--output {given}: its parent folder does not exist")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CliError(f"--output {given}: is not empty; name a new folder")
        return folder
    home = checkpoint.absolute().parent
    home = home.parent if home.name == "checkpoints" else home
    first = folder = home / "probes" / checkpoint.stem
    number = 1
    while folder.exists():
        number += 1
        folder = first.with_name(f"{first.name}_{number}")
    return folder


def _need(data: DataModule, name: str, chosen: Sequence[str]) -> None:
    """Raise unless the data have the splits that the probes read."""
    if not data.has("val"):
        raise CliError(f"data: {name} has no val split, on which a finished run is probed")
    if "gradients" in chosen and not data.has("train"):
        others = ",".join(name for name in chosen if name != "gradients")
        raise CliError(
            f"data: {name} has no train split, whose gradient the probe measures; --probes {others} does without"
        )


def _build(
    arguments: Arguments,
    session: Session,
    chosen: Sequence[str],
    removed: list[int] | None,
    folder: Path,
    bar: bool,
) -> list[Probe]:
    made: dict[str, Probe] = {
        "gradients": GradientFlow(batches=arguments.number("batches", 8), folder=folder),
        "contribution": Contribution(folder=folder),
        "gain": CompositeGain(seed=session.seed, folder=folder),
        "lesion": Lesion(
            removed=removed,
            draws=arguments.number("draws", 3),
            seed=session.seed,
            progress=bar,
            folder=folder,
        ),
    }
    return [made[name] for name in chosen]


@rank_zero_only
def _end_wandb(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbRecord) and (unsent := logger.finish(True)):
            complain(f"W&B {unsent}; `wandb sync {report.relative(logger.folder)}` sends the rest")


@rank_zero_only
def _show(probes: Sequence[Probe], shape: str, folder: Path) -> None:
    rows: list[dict[str, Any]] = list(profile(probes))
    lesion = next((p for p in probes if isinstance(p, Lesion)), None)
    if shape == "json":
        result: dict[str, Any] = {"folder": str(folder), schema.PROFILE: rows}
        if lesion is not None:
            result |= {schema.VAL_SCORE: lesion.baseline, schema.REMOVAL: lesion.removal_rows()}
        print(json.dumps(result))
        return
    report.console.print(block_table(rows))
    if lesion is not None:
        whole = report.number(lesion.baseline)
        report.print_pairs([("val/score of the whole network", whole)])
        if lesion.removals:
            report.console.print(removal_table(lesion))
    report.print_pairs([("tables and figures", report.relative(folder.absolute()))])


_TITLES = {
    "block": "#",
    "name": "block",
    "gradient_norm": "gradient",
    "contribution": "branch /\nshortcut",
    "response_std": "branch\nstd",
    "gain": "gain",
    "score_without": "score\nwithout",
}
_MARKS = {"changes the shape": " *", "no shortcut": " x"}
_NOTES = {
    "changes the shape": "* changes the shape: a projection stays in its place",
    "no shortcut": "x no shortcut: cannot be removed",
}


def block_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each block, or for blocks at even distances where there are too many."""
    table = Table(show_edge=False, pad_edge=False, caption_justify="left")
    # A plain network has no contribution.
    columns = [name for name in _TITLES if any(row.get(name) is not None for row in rows)]
    for name in columns:
        text = name == "name"
        table.add_column(_TITLES[name], justify="left" if text else "right", no_wrap=text)
    last = len(rows) - 1
    every = last < _ROWS
    shown = rows if every else [rows[round(i * last / (_ROWS - 1))] for i in range(_ROWS)]
    for row in shown:
        cells = {name: _cell(row[name], 4 if "score" in name else 3) for name in columns}
        if "score_without" in cells:
            cells["score_without"] += _MARKS.get(row["lesion"], "  ")
        table.add_row(*cells.values())
    kinds = {row.get("lesion") for row in shown}
    notes = [note for kind, note in _NOTES.items() if kind in kinds]
    if not every:
        notes.append(f"{_ROWS} of {len(rows)} blocks; profile.csv has all")
    table.caption = "\n".join(notes) or None
    return table


def removal_table(lesion: Lesion) -> Table:
    """Return the scores without k random blocks, over the draws."""
    table = Table(show_edge=False, pad_edge=False)
    for title in ("random blocks removed", "mean score", "lowest", "highest"):
        table.add_column(title, justify="right")
    for k, values in lesion.scores_by_number().items():
        table.add_row(str(k), *(_cell(value) for value in values))
    return table


def _cell(value: Any, digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
