"""Evaluate a checkpoint on a split."""

import json
import sys
from typing import Literal

from pytorch_lightning import seed_everything
from pytorch_lightning.utilities import rank_zero_only

from resdomains import schema
from resdomains.cli import report
from resdomains.cli.arguments import Arguments
from resdomains.cli.errors import CliError
from resdomains.cli.fitting import (
    build_trainer,
    checkpoint_at,
    compose,
    end_process,
    leave_together,
    print_or_explain,
)
from resdomains.cli.interruption import StopBetweenSteps, Stopped
from resdomains.cli.main import complain
from resdomains.cli.quiet import quiet
from resdomains.cli.resume import check_spec
from resdomains.training import Task


def evaluate(arguments: Arguments, split: Literal["val", "test"], shape: str) -> int:
    """Print score, skill and metrics of a checkpoint on a split; returns the exit status.

    Raises:
        CliError: If the data have no such split or do not fit the checkpoint.
    """
    quiet()
    session = compose(arguments, portable=True)
    if print_or_explain(arguments, session):
        return 0
    assert session.ckpt_path is not None
    checkpoint = checkpoint_at(session.ckpt_path)
    seed_everything(session.seed, workers=True, verbose=False)
    spec = checkpoint["resdomains"]["spec"]
    data = session.data(spec)
    if not data.has(split):
        raise CliError(f"data: {session.data_name} has no {split} split")
    check_spec(spec, data.spec)
    task = session.task(spec)
    load_weights(task, checkpoint, session.ckpt_path)
    stop = StopBetweenSteps(None)
    bar = shape == "table" and sys.stdout.isatty()
    trainer, precision = build_trainer(session, [stop], bar=bar)
    run = trainer.validate if split == "val" else trainer.test
    try:
        with stop:
            run(task, datamodule=data, verbose=False)
    except Stopped as stopped:
        rank_zero_only(complain)(str(stopped))
        leave_together()
        return end_process(stopped.status, trainer)
    _show(task, split, shape, precision.name)
    leave_together()
    return 0


def load_weights(task: Task, checkpoint: dict[str, object], path: str) -> None:
    """Put a checkpoint's weights into a task.

    Raises:
        CliError: If they are those of another network.
    """
    try:
        task.load_state_dict(checkpoint["state_dict"])  # type: ignore[arg-type]  # read_checkpoint checked it
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise CliError(
            f"--ckpt_path {path}: its weights do not fit {type(task).__name__} as configured:"
            f" {lines[1].strip() if len(lines) > 1 else lines[0]}"
        ) from error


@rank_zero_only
def _show(task: Task, split: str, shape: str, precision: str) -> None:
    values = report.scalars(task, split)
    if shape == "json":
        print(json.dumps({schema.key(split, n): None if v != v else v for n, v in values.items()}))  # type: ignore[arg-type]
        return
    report.console.print(report.result_table({split: values}, {"precision": precision}))
