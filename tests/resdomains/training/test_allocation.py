"""What the C library does with the memory that a step frees: page faults, counted by the kernel."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has these settings"
)

# Steps that allocate 64 MiB and free them again, as activations are.
_STEPS = """
import resource
import torch
from resdomains.training.allocation import keep_freed_memory

if {keep}:
    print(keep_freed_memory())
for _ in range(2):
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _steps(*, keep: bool, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _STEPS.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout.split()


def test_a_step_reuses_what_the_one_before_freed() -> None:
    (faults,) = _steps(keep=False)
    taken, kept = _steps(keep=True)
    assert taken == "True"
    assert int(kept) < 100 < int(faults)


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_what_the_user_chose_stays(name: str) -> None:
    taken, faults = _steps(keep=True, **{name: str(1 << 20)})
    assert taken == "False"
    assert int(faults) > 100
