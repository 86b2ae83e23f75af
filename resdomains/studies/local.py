"""Run a study's runs as processes of this machine, each with its share of the cores, or a GPU."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from resdomains.studies.running import Job, State, state_of


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that processes may use, by what CUDA_VISIBLE_DEVICES calls them; torch is not loaded.

    Args:
        environment: The environment's variables.
    """
    said = environment.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return [str(n) for n in range(len(list(Path("/proc/driver/nvidia/gpus").glob("*"))))]
    names = [name.strip() for name in said.split(",")]
    # CUDA itself ends the list at the first that names none.
    ends = [place for place, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
    return names[: ends[0]] if ends else names


class LocalProcess:
    """A run as a process.

    Args:
        process: The process.
        seconds_allowed: How long it may take; None for as long as it takes.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", seconds_allowed: float | None) -> None:
        self.process = process
        self._allowed = seconds_allowed
        self._began = time.monotonic()
        self._seconds = 0.0
        self._late = False

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return self._seconds

    def look(self) -> State:
        """Say whether it runs or how it ended; lets it save and end when its time is up."""
        status = self.process.poll()
        if status is not None:
            late = self._late and status != 0
            return State.OVER_TIME if late else state_of(status)
        self._seconds = time.monotonic() - self._began
        if self._allowed is not None and self._seconds > self._allowed and not self._late:
            self._late = True
            self.stop()
        return State.RUNNING

    def stop(self) -> None:
        """Let it save and end."""
        self.process.send_signal(signal.SIGTERM)


class LocalExecutor:
    """Processes of this machine.

    Args:
        jobs: How many run at a time.
        gpus: The GPUs that are shared out, as CUDA_VISIBLE_DEVICES names them: one a job, in turn.
        minutes: How long a run may take; None for as long as it takes.

    Raises:
        ValueError: If `jobs` is not positive.
    """

    def __init__(self, jobs: int, gpus: Sequence[str] = (), minutes: float | None = None) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        self.jobs = jobs
        self.gpus = gpus
        self.minutes = minutes
        self._slots: list[LocalProcess | None] = [None] * jobs

    def find(self, name: str) -> None:
        """Return none: a process that an earlier study left behind is known by the lock of its folder."""

    def start(self, name: str, arguments: Sequence[str], log: Path) -> LocalProcess:
        """Start a run in the first free slot."""
        slot = next(
            slot
            for slot, job in enumerate(self._slots)
            if job is None or job.process.poll() is not None
        )
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "resdomains.cli", "fit", *arguments],
                env={**os.environ, **self.share(slot)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                # Ctrl-C is passed on by this process, once.
                start_new_session=True,
            )
        cores = self._cores(slot)
        if cores:
            os.sched_setaffinity(process.pid, cores)
        job = LocalProcess(process, None if self.minutes is None else 60 * self.minutes)
        self._slots[slot] = job
        return job

    def _cores(self, slot: int) -> list[int]:
        """The cores of a slot; none where there are fewer cores than jobs, which then share all."""
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // self.jobs
        return cores[slot * share : (slot + 1) * share]

    def share(self, slot: int) -> dict[str, str]:
        """Return the environment's variables by which a slot's process keeps to its share."""
        share = {"OMP_NUM_THREADS": str(max(len(self._cores(slot)), 1))}
        if self.gpus:
            share["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return share

    def leave(self, jobs: Sequence[Job]) -> str:
        """Let the processes save and end."""
        running = [job for job in self._slots if job is not None and job.process.poll() is None]
        for job in running:
            job.stop()
        for job in running:
            job.process.wait()
        return "the running runs were saved"
