"""A grid of runs from one file: planned, run a few at a time, taken up again, compared."""

from resdomains.studies.plan import PlannedRun, Study, read_study
from resdomains.studies.running import Runner, State, Tracked

__all__ = ["PlannedRun", "Runner", "State", "Study", "Tracked", "read_study"]
