"""Each process of a study has a GPU of those that the study itself may use."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resdomains.studies import State
from resdomains.studies.local import LocalExecutor, visible_gpus

LONG = "for n in $(seq 600); do sleep 0.05; done"  # between two of which a shell sees to its traps


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let a script take the place of `resdomains fit`."""
    script = folder / "python"
    script.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("said", "gpus"),
    [
        ("2,3", ["2", "3"]),
        ("GPU-5a1c, MIG-77", ["GPU-5a1c", "MIG-77"]),
        ("1,-1,0", ["1"]),  # as CUDA reads it
        ("", []),
        ("-1", []),
    ],
)
def test_the_gpus_are_those_that_may_be_used(said: str, gpus: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": said}) == gpus


def test_a_job_has_one_of_the_gpus_and_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, 'echo "$CUDA_VISIBLE_DEVICES"', "test $4 = b || exec sleep 60")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5a1c")
    executor = LocalExecutor(2, ["2", "GPU-5a1c"])
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    jobs = [executor.start("a", ["a"], first), executor.start("b", ["b"], second)]
    jobs[1].process.wait()
    assert jobs[1].look() is State.FINISHED
    assert jobs[0].look() is State.RUNNING
    jobs.append(executor.start("c", ["c"], third))
    wait_for(third.read_text)
    executor.leave(jobs)
    given = [path.read_text().strip() for path in (first, second, third)]
    assert given == ["2", "GPU-5a1c", "GPU-5a1c"]


def wait_for(found: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not found():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_processes_that_are_left_save_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "trap 'echo saved; exit 143' TERM", "echo on", LONG)
    executor = LocalExecutor(1)
    job = executor.start("a", [], tmp_path / "log")
    wait_for((tmp_path / "log").read_text)
    assert executor.leave([job]) == "the running runs were saved"
    assert job.look() is State.STOPPED
    assert "saved" in (tmp_path / "log").read_text()


def test_a_process_whose_time_is_up_saves_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "trap 'echo saved; exit 143' TERM", "echo on", LONG)
    job = LocalExecutor(1, minutes=0.01).start("a", [], tmp_path / "log")
    wait_for(lambda: job.look() is not State.RUNNING)
    assert job.look() is State.OVER_TIME
    assert job.seconds > 0.6
    assert (tmp_path / "log").read_text() == "on\nsaved\n"


def test_more_jobs_than_gpus_share_them() -> None:
    executor = LocalExecutor(3, ["4", "7"])
    assert [executor.share(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "7", "4"]
    assert "CUDA_VISIBLE_DEVICES" not in LocalExecutor(1).share(0)


def test_a_job_is_refused_without_a_number() -> None:
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        LocalExecutor(0)
