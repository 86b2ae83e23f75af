"""Read the folder that every run leaves."""

import json
from pathlib import Path

import pandas as pd

from resdomains.comparing.runs import RecordedRun, UnreadableRun
from resdomains.messages import first_line

SUMMARY, METRICS = "summary.json", "metrics.csv"
PROFILE, REMOVAL = "probes/profile.csv", "probes/removal.csv"

# What looks like a number where a list of numbers has one entry.
_WORDS = {"blocks": str}


def read_folder(folder: Path) -> RecordedRun:
    """Read a run's folder: `summary.json`, `metrics.csv` and, of probes, `profile.csv` and `removal.csv`.

    Raises:
        UnreadableRun: If one of them is damaged, or the folder is no run's.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableRun(str(folder), f"{SUMMARY}: {error.strerror}") from error
    except ValueError as error:
        raise UnreadableRun(str(folder), f"{SUMMARY} is damaged ({error})") from error
    if not isinstance(summary, dict) or "task" not in summary:
        raise UnreadableRun(str(folder), f"{SUMMARY} is of no run of resdomains")
    return RecordedRun(
        source=str(folder),
        run_id=str(summary.get("run_id", folder.absolute())),
        continues=summary.get("continues"),
        facts=summary,
        result=summary if summary.get("status") != "running" else {},
        history=_csv(folder, METRICS),
        profile=_csv(folder, PROFILE),
        removal=_csv(folder, REMOVAL),
    )


def _csv(folder: Path, name: str) -> pd.DataFrame:
    path = folder / name
    if not path.exists():
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, dtype=_WORDS)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise UnreadableRun(str(folder), f"{name} is damaged ({first_line(error)})") from error
    words = [c for c in table if name == METRICS and not pd.api.types.is_numeric_dtype(table[c])]
    if words:
        raise UnreadableRun(str(folder), f"{name} is damaged ({words[0]} holds more than numbers)")
    return table
