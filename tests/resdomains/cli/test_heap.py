"""Freed memory: what a process asks for again costs it no new pages, unless its user decided otherwise."""

import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

# What a step does: tensors of several sizes, asked for and freed together. The first rounds grow the heap.
PAGES = """
import resource
import torch
from resdomains.cli.heap import keep_freed_memory

{begin}

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(megabytes << 18) for megabytes in (1, 8, 24, 80, 3)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
counts = [pages() for _ in range(12)]
print(kept, max(counts[8:]), flush=True)
"""
BY_CALL = "kept = keep_freed_memory()"
BY_RUN = """
from resdomains.cli.arguments import Arguments
from resdomains.cli.fitting import build_trainer
from resdomains.cli.session import Session
session = Session(Arguments(configs=["image_classification/digits"], overrides={overrides}))
kept = build_trainer(session, [])[0] is not None
"""


def run(begin: str, **environment: str) -> tuple[str, int]:
    command = [sys.executable, "-c", PAGES.format(begin=begin)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        command, env={**clean, **environment}, check=True, capture_output=True, text=True
    )
    kept, pages = done.stdout.split()[-2:]
    return kept, int(pages)


@glibc
def test_blocks_that_are_asked_for_again_cost_no_pages() -> None:
    kept, pages = run(BY_CALL)
    assert kept == "True"
    assert pages < 256  # of 29,696
    _, before = run("kept = False")
    assert before > 16_384


@glibc
def test_a_run_on_the_cpu_keeps_what_it_frees_unless_told_not_to() -> None:
    _, pages = run(BY_RUN.format(overrides=[]))
    assert pages < 256
    _, pages = run(BY_RUN.format(overrides=[(("run", "keep_freed_memory"), "false")]))
    assert pages > 16_384


@glibc
@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072"},
    ],
)
def test_a_user_who_set_a_threshold_has_decided(environment: dict[str, str]) -> None:
    kept, pages = run(BY_CALL, **environment)
    assert kept == "False"
    assert pages > 16_384


@glibc
def test_where_addresses_are_limited_nothing_is_kept() -> None:
    limit = "resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))\n"
    kept, pages = run(limit + BY_CALL)
    assert kept == "False"
    assert pages > 16_384


@glibc
def test_other_settings_of_malloc_are_no_decision() -> None:
    kept, pages = run(BY_CALL, MALLOC_ARENA_MAX="2")
    assert kept == "True"
    assert pages < 256


HELD = """
from pathlib import Path
import torch
from resdomains.cli.heap import give_back_freed_memory, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

keep_freed_memory()
before = resident()
for _ in range(2):
    torch.ones(200 << 18)
kept = resident() - before
give_back_freed_memory()
print(kept, resident() - before)
"""


@glibc
def test_what_is_kept_can_be_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HELD], check=True, capture_output=True, text=True)
    kept, left = map(int, done.stdout.split()[-2:])
    assert kept > 45_000  # pages, of 51,200
    assert left < 5_000


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from resdomains.cli import heap

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert heap.keep_freed_memory() is False
