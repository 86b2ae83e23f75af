"""Compare runs across domains: read them, one table, figures, a page."""

from resdomains.comparing.figures import figures
from resdomains.comparing.offline import read_offline
from resdomains.comparing.page import number, page, write_figures
from resdomains.comparing.runs import RecordedRun, UnreadableRun, joined
from resdomains.comparing.sources import Found, read_runs
from resdomains.comparing.table import run_table, seed_table
from resdomains.comparing.terminal import terminal_table

__all__ = [
    "Found",
    "RecordedRun",
    "UnreadableRun",
    "figures",
    "joined",
    "number",
    "page",
    "read_offline",
    "read_runs",
    "run_table",
    "seed_table",
    "terminal_table",
    "write_figures",
]
