"""A grid of runs from one file: planned, run a few at a time, taken up again, compared."""

from resdomains.studies.plan import ROOT, PlannedRun, Study, chosen, read_study
from resdomains.studies.running import Executor, Job, Runner, State, Tracked

__all__ = [
    "ROOT",
    "Executor",
    "Job",
    "PlannedRun",
    "Runner",
    "State",
    "Study",
    "Tracked",
    "chosen",
    "read_study",
]
