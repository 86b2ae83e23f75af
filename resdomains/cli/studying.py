"""Carry out a study: a table of its runs while they run, reports of failures, a comparison at the end."""

import contextlib
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from resdomains.cli.errors import FAILED, INTERRUPTED, TERMINATED, CliError
from resdomains.cli.tables import duration
from resdomains.studies import Executor, Runner, State, Study, Tracked
from resdomains.studies.slurm import SlurmError

_console = Console(highlight=False, soft_wrap=True)
_ROWS = 30


def carry_out(study: Study, root: Path, executor: Executor, *, comparing: bool = True) -> int:
    """Run what has not finished, and compare all that has; returns the exit status: 1 if a run failed.

    Args:
        study: The study.
        root: Folder of its runs.
        executor: What runs them.
        comparing: Whether to compare at the end.

    Raises:
        CliError: If the folder cannot be written, or Slurm refuses something.
    """
    runner = Runner(study, root, executor)
    for part in study.left_out:
        print(f"left out: {part}")
    try:
        with _shown(runner) as changed, _terminable():
            runner.run(changed)
    except KeyboardInterrupt as stopped:
        again = shlex.join(["resdomains", *sys.argv[1:]])
        print(f"\ninterrupted; {runner.left}\n  go on with: {again}", file=sys.stderr)
        return TERMINATED if isinstance(stopped, _Terminated) else INTERRUPTED
    except OSError as error:
        raise CliError(f"--root {root}: {error.strerror} ({error.filename})") from error
    except SlurmError as error:
        raise CliError(f"{error}\n{runner.left}") from error
    bad = [tracked for tracked in runner.runs if tracked.state is not State.FINISHED]
    for tracked in bad:
        print(f"{tracked.state.value}: {tracked.run.title} ({tracked.log})", file=sys.stderr)
        if tracked.state is State.FAILED:
            print("".join(f"  | {line}\n" for line in tracked.last_lines), file=sys.stderr, end="")
    if comparing and len(bad) < len(runner.runs):
        _compare(runner, root)
    return FAILED if bad else 0


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as W&B's agents and schedulers send it: the study ends as after Ctrl-C."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare(runner: Runner, root: Path) -> None:
    """Compare the study's runs; runs that an earlier version of its file left beside them are none of them."""
    from resdomains.cli.comparing import compare

    study = runner.study
    compare(
        [str(tracked.folder) for tracked in runner.runs if tracked.folder is not None],
        root / "comparison",
        x=study.compare.get("x", "progress/samples"),
        y=study.compare.get("y"),
        title=study.compare.get("title", study.name),
        kind="table",
    )


@contextlib.contextmanager
def _shown(runner: Runner) -> Iterator["_Display"]:
    """A table that is drawn anew on a terminal, a line for each change elsewhere."""
    if not _console.is_terminal:
        yield _Display(runner, None)
        return
    with Live(
        get_renderable=lambda: _table(runner),
        console=_console,
        refresh_per_second=1,
        transient=True,
    ) as live:
        yield _Display(runner, live)


class _Display:
    def __init__(self, runner: Runner, live: Live | None) -> None:
        self.runner = runner
        self.live = live

    def __call__(self, tracked: Tracked) -> None:
        """Show that a run has changed."""
        if self.live is not None:
            return
        score = tracked.score if tracked.state is State.FINISHED else None
        said = "" if score is None else f", val/score {score:.4f}, {duration(tracked.seconds)}"
        done = sum(run.state is State.FINISHED for run in self.runner.runs)
        count = f"{done}/{len(self.runner.runs)}"
        title = f"{tracked.run.title} ({tracked.run.id})"
        print(f"{count}  {tracked.state.value}: {title}{said}", flush=True)


def _table(runner: Runner) -> Table:
    states = Counter(tracked.state for tracked in runner.runs)
    said = ", ".join(f"{count} {state.value}" for state, count in states.items())
    left = runner.seconds_left()
    table = Table(
        title=f"{runner.study.name}: {said}"
        + ("" if left is None else f", about {duration(left)} left"),
        title_justify="left",
        show_edge=False,
        pad_edge=False,
    )
    for name, justify in (
        ("config", "left"),
        ("run", "left"),
        ("state", "left"),
        ("val/score", "right"),
        ("time", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]  # one of rich's words
    # What runs first, then what ended last: a grid may be longer than the terminal.
    order = {
        State.RUNNING: 0,
        State.ELSEWHERE: 0,
        State.QUEUED: 0,
        State.FAILED: 1,
        State.OVER_TIME: 1,
        State.STOPPED: 1,
    }
    rows = sorted(
        runner.runs,
        key=lambda tracked: order.get(tracked.state, 2 + (tracked.state is State.WAITING)),
    )
    for tracked in rows[:_ROWS]:
        score = None if tracked.state is State.WAITING else tracked.score
        table.add_row(
            tracked.run.configs[0],
            tracked.run.id,
            tracked.state.value,
            "" if score is None else f"{score:.4f}",
            duration(tracked.seconds) if tracked.seconds else "",
        )
    if len(rows) > _ROWS:
        table.add_row(f"... and {len(rows) - _ROWS} more", "", "", "", "")
    return table
