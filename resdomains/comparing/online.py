"""Read the runs of a W&B project through W&B's public API."""

import os
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from resdomains import schema
from resdomains.comparing.offline import GLOBAL_STEP, PROBE, PROBED, read_table
from resdomains.comparing.runs import STEP, RecordedRun, UnreadableRun

PREFIX = "wandb:"
# Requests wait for the server, not for this machine.
_AT_ONCE = 8
# Seconds that a request may take, how often it is tried again and after how many: W&B itself goes on for hours.
_PATIENCE, _RETRIES, _PAUSE = 15, 2, 2.0
# A row for each block, or each draw of some; what is larger is none.
_LARGEST_TABLE = 64 * 2**20


def read_online(text: str) -> list[RecordedRun | UnreadableRun]:
    """Read the runs of a project, or of a group in it, with all their records.

    Args:
        text: `wandb:PROJECT`, `wandb:ENTITY/PROJECT` or `wandb:ENTITY/PROJECT/GROUP`; a group may contain slashes.

    Returns:
        For each run, in the order of their beginnings, its record, or why there is none.

    Raises:
        ValueError: If W&B cannot be asked, or has no such runs.
    """
    path, group = _parts(text)
    try:
        runs = find_runs(connect(), path, {"group": group} if group else {})
    except ValueError as error:
        raise ValueError(f"{text}: {error}") from error
    if not runs:
        where = f"the group {group!r} of {path}" if group else path
        raise ValueError(f"{text}: W&B has no run in {where}")
    found: list[RecordedRun | UnreadableRun] = []
    failures = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for run in pool.map(_read, runs):
            found.append(run)
            failures = failures + 1 if isinstance(run, _NotSent) else 0
            if failures > _AT_ONCE:
                pool.shutdown(cancel_futures=True)
                raise ValueError(f"{text}: W&B does not answer any more; {run}")
    return found


class _NotSent(UnreadableRun):
    """A run whose records W&B did not give."""


def _parts(text: str) -> tuple[str, str | None]:
    """The project, with its entity if that is given, and the group."""
    parts = text.removeprefix(PREFIX).split("/", 2)
    if not all(parts):
        raise ValueError(f"{text}: expected wandb:PROJECT or wandb:ENTITY/PROJECT[/GROUP]")
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else None


def connect() -> Any:
    """Return W&B's API, `wandb.Api`, with bounded patience.

    Raises:
        ValueError: If this account or its settings cannot use it, or W&B does not answer.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if mode in ("offline", "dryrun", "disabled"):
        raise ValueError(f"W&B cannot be asked while WANDB_MODE is {mode}; unset it")
    import wandb

    patient = wandb.Settings(
        silent=True,
        x_graphql_timeout_seconds=_PATIENCE,
        x_graphql_retry_max=_RETRIES,
        x_graphql_retry_wait_min_seconds=_PAUSE,
        x_graphql_retry_wait_max_seconds=_PAUSE,
        x_file_transfer_timeout_seconds=_PATIENCE,
        x_file_transfer_retry_max=_RETRIES,
        x_file_transfer_retry_wait_min_seconds=_PAUSE,
        x_file_transfer_retry_wait_max_seconds=_PAUSE,
    )
    with naming_failures():
        wandb.setup(patient)
        if wandb.login(prompt=False, verify=False):
            return wandb.Api(timeout=2 * _PATIENCE)
    raise ValueError("not logged in to W&B; `wandb login` does that")


@contextmanager
def naming_failures() -> Iterator[None]:
    """Raise as ValueError whatever W&B's code makes of an answer, or of none.

    Its errors have no base in common, and damaged answers raise any.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"W&B refused or failed: {_shortly(error)}") from error


def find_runs(api: Any, path: str, filters: Mapping[str, Any]) -> list[Any]:
    """Return the runs of a project, as W&B's API gives them.

    Args:
        api: What `connect` gave.
        path: `PROJECT` or `ENTITY/PROJECT`.
        filters: W&B's query; empty for all runs.

    Raises:
        ValueError: If there is no such project, or W&B fails.
    """
    with naming_failures():
        try:
            return list(api.runs(path, filters=dict(filters), lazy=False))
        except ValueError as error:
            if not str(error).startswith("Could not find project"):
                raise
    raise ValueError(f"W&B has no project {path} that this account can read")


def _read(run: Any) -> RecordedRun | UnreadableRun:
    try:
        return _record(run)
    except UnreadableRun as error:
        return error
    except Exception as error:  # as in `naming_failures`
        return _NotSent(_source(run), f"cannot be read from W&B: {_shortly(error)}")


def _source(run: Any) -> str:
    return f"{PREFIX}{run.entity}/{run.project}/{run.id}"


def _record(run: Any) -> RecordedRun:
    facts, summary = dict(run.config), run.summary_metrics
    if "task" not in facts:
        raise UnreadableRun(_source(run), "holds no run of resdomains")
    if run.job_type == PROBE:
        raise UnreadableRun(_source(run), PROBED)
    result = summary.get("result")
    return RecordedRun(
        source=_source(run),
        run_id=str(facts.get("run_id", run.id)),
        continues=facts.get("continues"),
        facts=facts,
        result=result if isinstance(result, Mapping) else {},
        history=pd.DataFrame(_once(map(_scalars, run.scan_history()))),
        profile=_table(run, summary.get(schema.PROFILE)),
        removal=_table(run, summary.get(schema.REMOVAL)),
    )


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by name, with its step."""
    row = {
        name: float(value) if value in ("NaN", "Infinity", "-Infinity") else value
        for name, value in record.items()
        if not name.startswith("_")
    }
    row = {name: value for name, value in row.items() if isinstance(value, int | float)}
    step = row.pop(GLOBAL_STEP, None)
    return {} if step is None or not row else {STEP: step, **row}


def _once(rows: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """The records without those that a run repeated when it went on from a checkpoint: W&B keeps both."""
    kept: list[dict[str, float]] = []
    for row in rows:
        if not row:
            continue
        step = row[STEP]
        back = kept and step < kept[-1][STEP]
        if back or any(row.keys() == other.keys() for other in _at(kept, step)):
            kept = [other for other in kept if other[STEP] < step]
        kept.append(row)
    return kept


def _at(rows: list[dict[str, float]], step: float) -> Iterable[dict[str, float]]:
    """The last records, as far as they are of a step."""
    for row in reversed(rows):
        if row[STEP] != step:
            return
        yield row


def _table(run: Any, table: Any) -> pd.DataFrame:
    """The newest of a table of the probes; empty where W&B has none."""
    name = table.get("path") if isinstance(table, Mapping) else None
    if not isinstance(name, str):
        return pd.DataFrame()
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UnreadableRun(_source(run), f"its table lies outside of its files: {name}")
    with tempfile.TemporaryDirectory() as folder:
        for file in run.files(names=[name]):
            if file.name == name and file.size <= _LARGEST_TABLE:
                file.download(root=folder).close()
        return read_table(Path(folder), name)


def _shortly(error: Exception) -> str:
    """What was raised, on one line."""
    return textwrap.shorten(str(error), 300) or type(error).__name__
