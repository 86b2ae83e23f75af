"""Send a study's runs to Slurm through submitit.

Jobs are known by their names and asked for with `squeue`, which every cluster has: `sacct`, which submitit asks, needs
accounting.
"""

import hashlib
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from resdomains.plugins import nearest
from resdomains.studies.running import OVER_TIME_STATUS, Job, State, state_of

SETTINGS: Mapping[str, type | UnionType] = {
    "account": str,
    "additional_parameters": dict,
    "comment": str,
    "constraint": str,
    "cpus_per_task": int,
    "dependency": str,
    "exclude": str,
    "exclusive": bool | str,
    "gpus_per_node": int,
    "gres": str,
    "mail_type": str,
    "mail_user": str,
    "mem_gb": int | float,
    "mem_per_cpu": str,
    "mem_per_gpu": str,
    "nodelist": str,
    "partition": str,
    "qos": str,
    "setup": list,
    "signal_delay_s": int,
    "timeout_min": int,
    "wckey": str,
}
"""The settings of a job, by submitit's names, and their types. A run is one task on one node."""

_SHARED = ("cpus_per_task", "gpus_per_node", "mem_gb", "timeout_min")  # submitit's for any cluster
_A_DAY = 24 * 60
# So long before its time is up, a job is told to save; Slurm itself may do so a minute earlier.
_SIGNAL_DELAY = 120
# A network's file system may show what a job wrote some seconds after the job has gone.
_FILES_SECONDS = 8
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")


class SlurmError(RuntimeError):
    """Slurm refused something, or is not there; the message says what it said."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings that submitit would not take, or that are the study's own.

    Raises:
        ValueError: With the name and what is allowed.
    """
    for name, value in settings.items():
        if name not in SETTINGS:
            near = nearest(name, SETTINGS)
            meant = f"did you mean {near!r}? " if near else ""
            raise ValueError(
                f"slurm.{name}: no such setting; {meant}a job is one task on one node, and has these settings: "
                + ", ".join(SETTINGS)
            )
        allowed = SETTINGS[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and name != "exclusive"):
            words = getattr(allowed, "__name__", str(allowed))
            raise ValueError(f"slurm.{name}: expected {words}, got {value!r}")
        least = -1 if name == "gpus_per_node" else 0
        if isinstance(value, int | float) and value <= least:
            raise ValueError(f"slurm.{name}: expected a number above {least}, got {value!r}")


class Fit:
    """What a job does: a run, as a process of its own, so that it is the same run as anywhere.

    Slurm sends its signals to all processes of a job. The run saves and ends; this one, by submitit, has the job queued
    again when its time was up or it was pre-empted.

    Args:
        command: The run's command line.
        log: File for what the run says, to be added to.
        status: File for the run's exit status.
    """

    def __init__(self, command: Sequence[str], log: Path, status: Path) -> None:
        self.command = list(command)
        self.log = log
        self.status = status
        self._process: int | None = None

    def __call__(self) -> int:
        """Run; returns 0, or ends this process with the run's exit status.

        Raises:
            UncompletedJobError: If the time was up more often than is allowed.
        """
        from submitit.core.utils import UncompletedJobError

        self.status.unlink(missing_ok=True)
        # Lightning would take the job's task, which is this process, for one of its own.
        environment = {n: v for n, v in os.environ.items() if not n.startswith("SLURM_")}
        if "SLURM_CPUS_PER_TASK" in os.environ:
            environment["OMP_NUM_THREADS"] = os.environ["SLURM_CPUS_PER_TASK"]
        with (
            # Its own: submitit gives its jobs a terminal, for which a run would colour what it says.
            self.log.open("ab") as log,
            subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            self._process = process.pid
            try:
                status = process.wait()
            except UncompletedJobError:  # of submitit's signal handler
                self.status.write_text(str(OVER_TIME_STATUS))
                raise
        status = status if status >= 0 else 128 - status
        self.status.write_text(str(status))
        if status:
            sys.exit(status)
        return status

    def checkpoint(self) -> Any:
        """Wait until the run has saved, and return what goes on with it: called by submitit when a signal arrives."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            # Not `Popen.wait`, which the signal may have interrupted with its lock held.
            with suppress(ChildProcessError):  # it has ended
                os.waitid(os.P_PID, self._process, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Fit(self.command, self.log, self.status))


@dataclass(frozen=True)
class _Queued:
    """A line of `squeue`."""

    number: str
    state: str
    seconds: float


class SlurmJob:
    """A run as a job.

    Args:
        executor: What asks for its state.
        name: The job's name.
        number: Slurm's number of it.
        status: File for the run's exit status.
        since: From when on `squeue` knows it, on the monotonic clock.
    """

    def __init__(
        self, executor: "SlurmExecutor", name: str, number: str, status: Path, since: float
    ) -> None:
        self.number = number
        self._executor = executor
        self._name = name
        self._status = status
        self._since = since
        self._seconds = 0.0
        self._ran = False
        self._gone = 0.0

    @property
    def seconds(self) -> float:
        """How long it has run, since it was last queued."""
        return self._seconds

    def look(self) -> State:
        """Say whether it is queued, runs, or how it ended."""
        asked, queue = self._executor.queue()
        found = queue.get(self._name)
        if found is not None and found.state in _WAITING:
            return State.QUEUED
        if found is not None:
            self._ran, self._seconds = True, found.seconds
            return State.RUNNING
        if asked < self._since:
            return State.QUEUED
        try:
            return state_of(int(self._status.read_text()))
        except (OSError, ValueError):
            self._gone = self._gone or asked
        if asked - self._gone < _FILES_SECONDS:
            return State.RUNNING if self._ran else State.QUEUED
        # Killed as it ran, or cancelled before.
        return State.FAILED if self._ran else State.STOPPED


class SlurmExecutor:
    """Jobs of a Slurm cluster, one a run, whose name is the run's id and a mark of the study's folder.

    A job whose time is up saves and is queued again, as long as the run has not taken `minutes`.

    Args:
        root: Folder of the study's runs, which the cluster's machines must see too.
        settings: What jobs ask of the cluster, by submitit's names: those of `SETTINGS`.
        jobs: How many are queued or run at a time.
        minutes: How long a run may take; None for as long as it takes. Also the time limit of a job, rounded up, unless
            `timeout_min` is set; without either it is a day.
        refresh: Seconds between two calls of `squeue`.

    Raises:
        ValueError: If a setting is not accepted, or `jobs` is not positive.
        SlurmError: If Slurm's commands are not there.
        ImportError: If submitit is not installed.
    """

    def __init__(
        self,
        root: Path,
        settings: Mapping[str, Any],
        *,
        jobs: int,
        minutes: float | None = None,
        refresh: float = 5.0,
    ) -> None:
        check_settings(settings)
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
        if missing:
            raise SlurmError(
                f"{', '.join(missing)} not found: start the study where Slurm's commands are, such as a login node"
            )
        import submitit

        self.jobs = jobs
        self._root = root.absolute()
        self._mark = hashlib.sha256(str(self._root).encode()).hexdigest()[:6]
        self._refresh = refresh
        self._asked = self._ask_at = -math.inf
        self._queue: dict[str, _Queued] = {}
        given = dict(settings)
        delay = given.setdefault("signal_delay_s", _SIGNAL_DELAY)
        if "timeout_min" not in given:
            whole = None if minutes is None else math.ceil(minutes + delay / 60)
            given["timeout_min"] = whole or _A_DAY
        # How often a job may be queued again because its time was up.
        again = 10**6 if minutes is None else math.ceil(minutes / given["timeout_min"]) - 1
        self._settings = given
        self._submitit = submitit.AutoExecutor(
            self._logs / "slurm", cluster="slurm", slurm_max_num_timeout=max(again, 0)
        )

    @property
    def _logs(self) -> Path:
        return self._root / "logs"

    def _name(self, run: str) -> str:
        return f"{run}.{self._mark}"

    def _status(self, run: str) -> Path:
        return self._logs / f"{run}.status"

    def find(self, name: str) -> SlurmJob | None:
        """Return the job of a run that is queued or runs."""
        asked, queue = self.queue()
        found = queue.get(self._name(name))
        if found is None:
            return None
        return SlurmJob(self, self._name(name), found.number, self._status(name), asked)

    def start(self, name: str, arguments: Sequence[str], log: Path) -> SlurmJob:
        """Submit a run.

        Raises:
            SlurmError: If Slurm does not take it.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        command = [sys.executable, "-m", "resdomains.cli", "fit", *arguments]
        status = self._status(name)
        status.unlink(missing_ok=True)
        try:
            self._submitit.update_parameters(**self._parameters(name, log))
            job = self._submitit.submit(Fit(command, log.absolute(), status))
        except (FailedJobError, FailedSubmissionError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise SlurmError(f"Slurm did not take {name}: {said[-1]}") from error
        return SlurmJob(self, self._name(name), job.job_id, status, time.monotonic())

    def _parameters(self, name: str, log: Path) -> dict[str, Any]:
        """What submitit is asked for."""
        settings = dict(self._settings)
        beside = dict(settings.pop("additional_parameters", {}))
        # What Slurm and submitit say goes to the run's log too. A % is a pattern there, unless doubled.
        written = {
            "output": str(log.absolute()).replace("%", "%%"),
            "error": str(log.absolute()).replace("%", "%%"),
            "open-mode": "append",
        }
        srun = [f"--{option}={value}" for option, value in written.items()]
        if "cpus_per_task" in settings:
            # Since Slurm 22.05 `srun` does not take it from the job.
            srun.append(f"--cpus-per-task={settings['cpus_per_task']}")
        delay = settings["signal_delay_s"]
        own = {
            # The signal on which a run saves, for submitit too, whose own would kill it.
            "additional_parameters": {
                **beside,
                **written,
                "signal": f"USR1@{delay}",
                "requeue": True,
            },
            "setup": [*settings.pop("setup", []), "export SUBMITIT_PREEMPT_SIGNAL=USR1"],
            "srun_args": srun,
        }
        shared = {key: settings.pop(key) for key in _SHARED if key in settings}
        return {
            "name": self._name(name),
            **shared,
            **{f"slurm_{key}": value for key, value in {**settings, **own}.items()},
        }

    def leave(self, jobs: Sequence[Job]) -> str:
        """Let the jobs go on; returns what follows and what cancels them."""
        numbers = [job.number for job in jobs if isinstance(job, SlurmJob)]
        if not numbers:
            return "no job was queued or running"
        return (
            "its jobs go on; the same command finds them again\n"
            f"  follow them: squeue --jobs {','.join(numbers)}\n  cancel them: scancel {' '.join(numbers)}"
        )

    def queue(self) -> tuple[float, Mapping[str, _Queued]]:
        """Return when `squeue` last answered, and this user's jobs by name then; it is asked now and then.

        Raises:
            SlurmError: If it has never answered.
        """
        now = time.monotonic()
        if now < self._ask_at:
            return self._asked, self._queue
        self._ask_at = now + self._refresh
        done = subprocess.run(
            ["squeue", "--noheader", "--me", "--format=%i|%T|%M|%j"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            lines = [line.split("|", 3) for line in done.stdout.splitlines() if line.strip()]
            self._queue = {
                name: _Queued(number, state, _seconds(spent))
                for number, state, spent, name in lines
            }
            self._asked = now
        elif self._asked == -math.inf:
            raise SlurmError(f"squeue: {done.stderr.strip() or f'status {done.returncode}'}")
        # Else the controller is busy or begins anew, and answers later.
        return self._asked, self._queue


def _seconds(spent: str) -> float:
    """Read Slurm's `days-hours:minutes:seconds`, of which the first may be missing."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", spent.strip())
    if match is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
