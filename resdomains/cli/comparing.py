"""Compare runs: read them, write tables, figures and a page, and print the means."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from resdomains import schema
from resdomains.cli.consoles import table_console
from resdomains.cli.errors import CliError

try:
    from resdomains.comparing import (
        figures,
        page,
        read_runs,
        run_table,
        seed_table,
        terminal_table,
        write_figures,
    )
    from resdomains.comparing.wandb_report import ReportPlan, send
except ModuleNotFoundError as missing:
    raise CliError(
        f'{missing}; `pip install "resdomains[compare]"` installs what comparing needs'
    ) from missing

_CURVES = (schema.TRAIN_LOSS, schema.VAL_LOSS, schema.VAL_SCORE)
_MARK, PLAN = "report.html", "wandb_report.json"


def compare(
    asked: Sequence[str], output: Path, *, x: str, y: str | None, title: str | None, kind: str
) -> int:
    """Compare runs and write what was found; returns the exit status.

    Args:
        asked: What holds the runs.
        output: Where to write.
        x: Axis of the training curves.
        y: What they show; None for the first of loss, validation loss and score that was logged.
        title: The page's.
        kind: What is printed: `table`, `json` or `csv`.

    Raises:
        CliError: If there is nothing to compare, or the output cannot be written.
    """
    _check(output)
    try:
        found = read_runs(asked)
    except ValueError as error:
        raise CliError(str(error)) from error
    left_out = [str(error) for error in found.left_out]
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    if not found.runs:
        raise CliError("none of the runs can be read")
    logged = sorted({str(name) for run in found.runs for name in run.history})
    if y is None:
        y = next((name for name in _CURVES if name in logged), None)
    if y is None:
        raise CliError(
            f"no run logged {', '.join(_CURVES[:-1])} or {_CURVES[-1]}, which curves show unless --y "
            f"names another; logged are {', '.join(logged) or 'no values'}"
        )
    if y not in logged:
        raise CliError(f"--y {y}: no run logged it; logged are {', '.join(logged) or 'no values'}")
    runs = run_table(found.runs)
    seeds = seed_table(runs)
    drawn = figures(found.runs, runs, seeds, x=x, y=y)
    heading = title or "Comparison of runs"
    text = page(
        heading,
        drawn,
        runs,
        seeds,
        left_out,
        shlex.join(["resdomains", *sys.argv[1:]]),
    )
    try:
        write_figures(drawn, output / "figures")
        runs.to_csv(output / "runs.csv", index=False)
        seeds.to_csv(output / "seeds.csv", index=False)
        ReportPlan.of(found.runs, heading, x, y).write(output / PLAN)
        (output / _MARK).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CliError(f"--output {output}: cannot be written: {error.strerror}") from error
    if kind == "json":
        print(seeds.to_json(orient="records"))
    elif kind == "csv":
        print(seeds.to_csv(index=False), end="")
    else:
        console = table_console()
        console.print(terminal_table(seeds, console.width))
        print(f"\n{len(runs)} runs, {len(seeds)} finished setups; report {output / _MARK}")
    return 0


def push(plan: Path, project: str) -> int:
    """Send the report of a comparison to W&B; returns the exit status.

    Args:
        plan: What the comparison wrote.
        project: `PROJECT` or `ENTITY/PROJECT`.

    Raises:
        CliError: If it cannot be read or sent.
    """
    entity, _, name = project.rpartition("/")
    if not name or "/" in entity:
        raise CliError(f"--push {project}: expected PROJECT or ENTITY/PROJECT")
    try:
        sent = send(ReportPlan.read(plan), entity, name)
    except ValueError as error:
        raise CliError(f"--push {project}: {error}") from error
    print(f"report {sent.report}\nworkspace {sent.workspace}")
    if sent.found < sent.asked:
        print(f"note: W&B has {sent.found} of the {sent.asked} runs", file=sys.stderr)
    return 0


def _check(output: Path) -> None:
    if output.is_dir() and any(output.iterdir()) and not (output / _MARK).exists():
        raise CliError(
            f"--output {output}: holds other files; give a new folder or that of an earlier comparison"
        )
    if output.exists() and not output.is_dir():
        raise CliError(f"--output {output}: is no folder")
