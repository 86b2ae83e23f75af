"""Run a study's runs as processes of `resdomains fit`, a few at a time, and know how each of them is."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from resdomains.studies.plan import PlannedRun, Study


class State(Enum):
    """How a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    ELSEWHERE = "running elsewhere"
    FINISHED = "finished"
    FAILED = "failed"
    OVER_TIME = "over time"
    STOPPED = "stopped"


_ENDED = (State.FINISHED, State.FAILED, State.OVER_TIME, State.STOPPED)
# `resdomains fit`'s exit statuses for a run that a signal stopped: it can go on.
_STOPPED_STATUS = (130, 143)


@dataclass
class Tracked:
    """A run of the study and how it is.

    Args:
        run: The run.
        root: Folder of the study's runs.
        state: How it is.
        seconds: How long its process took here.
    """

    run: PlannedRun
    root: Path
    state: State = State.WAITING
    seconds: float = 0.0
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    _began: float = field(default=0.0, repr=False)
    _late: bool = field(default=False, repr=False)
    _slot: int = field(default=0, repr=False)

    @property
    def log(self) -> Path:
        """What the run's process says."""
        return self.root / "logs" / f"{self.run.id}.log"

    @property
    def folder(self) -> Path | None:
        """The run's folder, once it has one."""
        return next(iter(sorted(self.root.glob(f"*/*/{self.run.id}"))), None)

    @property
    def summary(self) -> dict[str, Any]:
        """The run's `summary.json`; empty while there is none."""
        folder = self.folder
        if folder is None:
            return {}
        try:
            found = json.loads((folder / "summary.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def score(self) -> float | None:
        """The newest validation score."""
        folder = self.folder
        if folder is None:
            return None
        try:
            with (folder / "metrics.csv").open(newline="") as file:
                scores = [row["val/score"] for row in csv.DictReader(file) if row.get("val/score")]
            return float(scores[-1]) if scores else None
        except (OSError, ValueError):
            return None  # not there yet, or being written

    @property
    def last_lines(self) -> list[str]:
        """The last lines that the run's process said."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-8:]

    def in_use(self) -> bool:
        """Say whether a process works in the run's folder, such as one that an earlier study left behind."""
        folder = self.folder
        if folder is None or not (folder / ".lock").exists():
            return False
        with (folder / ".lock").open("r+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False


class Runner:
    """Run what of a study has not finished, `jobs` at a time.

    A job has its share of the cores, or of the GPUs where there are any. A run that finished is never run again; one
    that was interrupted goes on from its newest checkpoint; one that fails is reported, and the others go on.

    Args:
        study: The study.
        root: Folder of its runs.
        jobs: How many run at a time.
        gpus: How many GPUs are shared out.

    Raises:
        ValueError: If `jobs` is not positive.
    """

    def __init__(self, study: Study, root: Path, *, jobs: int, gpus: int = 0) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        self.study = study
        self.root = root
        self.jobs = jobs
        self.gpus = gpus
        self.runs = [Tracked(run, root) for run in study.runs]
        for tracked in self.runs:
            if tracked.summary.get("status") == "finished":
                tracked.state = State.FINISHED

    def run(self, changed: Callable[[Tracked], None], poll: float = 0.5) -> None:
        """Run until all have ended.

        Args:
            changed: Called for each run whose state has changed.
            poll: Seconds between two looks.

        Raises:
            KeyboardInterrupt: On Ctrl-C, when the running processes have saved and ended.
        """
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        free = list(range(self.jobs))
        try:
            while not all(tracked.state in _ENDED for tracked in self.runs):
                for tracked in self.runs:
                    before = tracked.state
                    self._advance(tracked, free)
                    if tracked.state is not before:
                        changed(tracked)
                time.sleep(poll)
        except BaseException:
            self._stop(tracked for tracked in self.runs if tracked.state is State.RUNNING)
            raise

    def _advance(self, tracked: Tracked, free: list[int]) -> None:
        if tracked.state is State.RUNNING:
            self._look(tracked, free)
        elif free and tracked.state in (State.WAITING, State.ELSEWHERE):
            if tracked.in_use():
                tracked.state = State.ELSEWHERE
            elif tracked.summary.get("status") == "finished":
                tracked.state = State.FINISHED
            else:
                self._start(tracked, free.pop(0))

    def _start(self, tracked: Tracked, slot: int) -> None:
        command = [sys.executable, "-m", "resdomains.cli", "fit"]
        with tracked.log.open("ab") as log:
            tracked._process = subprocess.Popen(
                [*command, *tracked.run.arguments(self.root)],
                env={**os.environ, **self._share(slot)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is passed on by this process, once.
                start_new_session=True,
            )
        cores = self._cores(slot)
        if cores:
            os.sched_setaffinity(tracked._process.pid, cores)
        tracked._began, tracked._slot, tracked._late = time.monotonic(), slot, False
        tracked.state = State.RUNNING

    def _cores(self, slot: int) -> list[int]:
        """The cores of a slot; none where there are fewer cores than jobs, which then share all."""
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // self.jobs
        return cores[slot * share : (slot + 1) * share]

    def _share(self, slot: int) -> dict[str, str]:
        threads = max(len(self._cores(slot)), 1)
        share = {"OMP_NUM_THREADS": str(threads)}
        if self.gpus:
            share["CUDA_VISIBLE_DEVICES"] = str(slot % self.gpus)
        return share

    def _look(self, tracked: Tracked, free: list[int]) -> None:
        process = tracked._process
        assert process is not None
        tracked.seconds = time.monotonic() - tracked._began
        limit = self.study.minutes
        if limit is not None and tracked.seconds > 60 * limit and not tracked._late:
            tracked._late = True
            process.send_signal(signal.SIGTERM)
        status = process.poll()
        if status is None:
            return
        free.append(tracked._slot)
        free.sort()
        if status == 0:
            tracked.state = State.FINISHED
        elif tracked._late:
            tracked.state = State.OVER_TIME
        elif tracked.in_use():
            # It was refused, because a process that an earlier study left behind had the folder first.
            tracked.state = State.ELSEWHERE
        else:
            tracked.state = State.STOPPED if status in _STOPPED_STATUS else State.FAILED

    def _stop(self, running: Iterable[Tracked]) -> None:
        """Let the processes save and end."""
        stopped = list(running)
        for tracked in stopped:
            if tracked._process is not None:
                tracked._process.send_signal(signal.SIGTERM)
        for tracked in stopped:
            if tracked._process is not None:
                tracked._process.wait()
                tracked.state = State.STOPPED

    def seconds_left(self) -> float | None:
        """Estimate how long the rest takes: unfinished runs take as long as finished ones of the same configs."""
        spent: dict[Sequence[str], list[float]] = {}
        for tracked in self.runs:
            if tracked.state is State.FINISHED:
                seconds = tracked.seconds or tracked.summary.get("seconds")
                if seconds:
                    spent.setdefault(tracked.run.configs, []).append(float(seconds))
        if not spent:
            return None
        every = [seconds for of in spent.values() for seconds in of]
        left = 0.0
        for tracked in self.runs:
            if tracked.state not in _ENDED:
                known = spent.get(tracked.run.configs, every)
                left += max(sum(known) / len(known) - tracked.seconds, 0.0)
        return left / self.jobs
