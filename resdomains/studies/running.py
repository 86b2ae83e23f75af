"""Bring a study's runs to their end through an executor, and know how each of them is."""

import csv
import fcntl
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from resdomains.studies.plan import PlannedRun, Study


class State(Enum):
    """How a run is."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    ELSEWHERE = "running elsewhere"
    FINISHED = "finished"
    FAILED = "failed"
    OVER_TIME = "over time"
    STOPPED = "stopped"


_ACTIVE = (State.QUEUED, State.RUNNING)
_ENDED = (State.FINISHED, State.FAILED, State.OVER_TIME, State.STOPPED)

OVER_TIME_STATUS = 124
"""Exit status of what was stopped because its time was up, as of coreutils' `timeout`."""


def state_of(status: int) -> State:
    """How a run ended whose `resdomains fit` had this exit status."""
    if status == 0:
        return State.FINISHED
    if status == OVER_TIME_STATUS:
        return State.OVER_TIME
    # What a signal stopped can go on.
    return State.STOPPED if status in (130, 143) else State.FAILED


class Job(Protocol):
    """A run that an executor has started."""

    @property
    def seconds(self) -> float:
        """How long it has run."""

    def look(self) -> State:
        """Say whether it is queued, runs, or how it ended."""


class Executor(Protocol):
    """Where runs are run."""

    @property
    def jobs(self) -> int:
        """How many are queued or run at a time."""

    def find(self, name: str) -> Job | None:
        """Return the job of a run that an earlier study started and that has not ended; None if there is none."""

    def start(self, name: str, arguments: Sequence[str], log: Path) -> Job:
        """Start a run.

        Args:
            name: The run's id.
            arguments: Those of `resdomains fit`.
            log: File for what the run says, to be added to.
        """

    def leave(self, jobs: Sequence[Job]) -> str:
        """Do with jobs what is right when the study itself is stopped; returns what a user is told."""


class _Scores:
    """The newest validation score in a growing `metrics.csv`, of which only what is new is read."""

    def __init__(self) -> None:
        self._file: tuple[int, int] | None = None  # device and inode
        self._read = 0
        self._columns: list[str] = []
        self.newest: float | None = None

    def update(self, path: Path) -> None:
        """Read what was added; from the beginning where the file is another."""
        try:
            found = path.stat()
            if self._file != (found.st_dev, found.st_ino) or found.st_size < self._read:
                self._file, self._read, self._columns = (found.st_dev, found.st_ino), 0, []
                self.newest = None
            if found.st_size == self._read:
                return
            with path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except OSError:
            return  # not there yet, or just being replaced
        whole = added[: added.rfind(b"\n") + 1]  # the last line may be half written
        self._read += len(whole)
        for row in csv.reader(io.StringIO(whole.decode(errors="replace"), newline="")):
            if not self._columns:
                self._columns = row
                continue
            score = dict(zip(self._columns, row, strict=False)).get("val/score")
            if score:
                self.newest = _number(score)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass
class Tracked:
    """A run of the study and how it is.

    Args:
        run: The run.
        root: Folder of the study's runs.
        state: How it is.
        seconds: How long its job ran; of one that finished earlier, how long it trained.
    """

    run: PlannedRun
    root: Path
    state: State = State.WAITING
    seconds: float = 0.0
    _job: Job | None = field(default=None, repr=False)
    _found: Path | None = field(default=None, repr=False)
    _scores: _Scores = field(default_factory=_Scores, repr=False)

    @property
    def log(self) -> Path:
        """What the run's process says."""
        return self.root / "logs" / f"{self.run.id}.log"

    @property
    def folder(self) -> Path | None:
        """The run's folder, once it has one."""
        if self._found is None or not self._found.exists():
            self._found = next(iter(sorted(self.root.glob(f"*/*/{self.run.id}"))), None)
        return self._found

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
        if folder is not None:
            self._scores.update(folder / "metrics.csv")
        return self._scores.newest

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
    """Bring what of a study has not finished to its end.

    A run that finished is never run again; one that was interrupted goes on from its newest checkpoint; one that is
    still queued or running since an earlier study is waited for; one that fails is reported, and the others go on.

    Args:
        study: The study.
        root: Folder of its runs.
        executor: What runs them.
    """

    def __init__(self, study: Study, root: Path, executor: Executor) -> None:
        self.study = study
        self.root = root
        self.executor = executor
        self.runs = [Tracked(run, root) for run in study.runs]
        self.left = ""
        """What became of the running runs when the study was stopped."""
        for tracked in self.runs:
            self._skip(tracked)

    def run(self, changed: Callable[[Tracked], None], poll: float = 0.5) -> None:
        """Run until all have ended.

        Args:
            changed: Called for each run whose state has changed.
            poll: Seconds between two looks.

        Raises:
            KeyboardInterrupt: On Ctrl-C; `left` says what became of the running runs.
        """
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self._each(self._take_up, changed)
            while not all(tracked.state in _ENDED for tracked in self.runs):
                self._each(self._advance, changed)
                time.sleep(poll)
        except BaseException:
            self.left = self.executor.leave(self._jobs())
            for tracked in self.runs:
                if tracked._job is not None:
                    self._look(tracked)
            raise

    def _each(self, step: Callable[[Tracked], None], changed: Callable[[Tracked], None]) -> None:
        for tracked in self.runs:
            before = tracked.state
            step(tracked)
            if tracked.state is not before:
                changed(tracked)

    def _jobs(self) -> list[Job]:
        return [tracked._job for tracked in self.runs if tracked._job is not None]

    def _take_up(self, tracked: Tracked) -> None:
        if tracked.state is State.WAITING:
            tracked._job = self.executor.find(tracked.run.id)
            if tracked._job is not None:
                self._look(tracked)

    def _skip(self, tracked: Tracked) -> bool:
        """Say whether a run has finished."""
        summary = tracked.summary
        if summary.get("status") != "finished":
            return False
        tracked.state = State.FINISHED
        seconds = summary.get("seconds")
        tracked.seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        return True

    def _advance(self, tracked: Tracked) -> None:
        if tracked._job is not None:
            self._look(tracked)
        elif tracked.state in (State.WAITING, State.ELSEWHERE):
            if len(self._jobs()) >= self.executor.jobs:
                return
            if tracked.in_use():
                tracked.state = State.ELSEWHERE
            elif not self._skip(tracked):
                run = tracked.run
                tracked._job = self.executor.start(run.id, run.arguments(self.root), tracked.log)
                self._look(tracked)

    def _look(self, tracked: Tracked) -> None:
        assert tracked._job is not None
        tracked.state = tracked._job.look()
        tracked.seconds = tracked._job.seconds
        if tracked.state in _ACTIVE:
            return
        tracked._job = None
        if tracked.state is State.FAILED and tracked.in_use():
            # It was refused, because a process that an earlier study left behind had the folder first.
            tracked.state = State.ELSEWHERE

    def seconds_left(self) -> float | None:
        """Estimate how long the rest takes: unfinished runs take as long as finished ones of the same configs."""
        spent: dict[Sequence[str], list[float]] = {}
        for tracked in self.runs:
            if tracked.state is State.FINISHED and tracked.seconds:
                spent.setdefault(tracked.run.configs, []).append(tracked.seconds)
        if not spent:
            return None
        every = [seconds for of in spent.values() for seconds in of]
        left = 0.0
        for tracked in self.runs:
            if tracked.state not in _ENDED:
                known = spent.get(tracked.run.configs, every)
                left += max(sum(known) / len(known) - tracked.seconds, 0.0)
        return left / self.executor.jobs
