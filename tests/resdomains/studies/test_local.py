"""Each process of a study has a GPU of those that the study itself may use."""

import subprocess
import sys
from pathlib import Path

import pytest

from resdomains.studies import State
from resdomains.studies.local import LocalExecutor, visible_gpus

STAND_IN = """\
#!/bin/sh
echo "$CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS"
sleep 0.2
"""


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
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5a1c")
    executor = LocalExecutor(2, ["2", "GPU-5a1c"])
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    jobs = [executor.start("a", [], first), executor.start("b", [], second)]
    jobs[1].process.wait()
    assert jobs[1].look() is State.FINISHED
    executor.start("c", [], third).process.wait()
    executor.leave(jobs)
    given = [path.read_text().split()[0] for path in (first, second, third)]
    # The first may have ended too.
    assert given in (["2", "GPU-5a1c", "GPU-5a1c"], ["2", "GPU-5a1c", "2"])


def test_more_jobs_than_gpus_share_them() -> None:
    executor = LocalExecutor(3, ["4", "7"])
    assert [executor.share(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "7", "4"]
    assert "CUDA_VISIBLE_DEVICES" not in LocalExecutor(1).share(0)


def test_a_job_is_refused_without_a_number() -> None:
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        LocalExecutor(0)
