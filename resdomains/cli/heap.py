"""Memory that a step frees stays with the process: the next step asks for as much again."""

import ctypes
import os
import platform
import resource

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# The second is the most that glibc before 2.35 takes.
_LARGEST = (2**30, 2**25)


def keep_freed_memory() -> bool:
    """Have glibc's malloc keep what is freed for what is asked for next; returns whether it does.

    Every step frees its activations and gradients. Left to itself glibc gives large blocks back to the kernel, which
    hands them out again page by page, each cleared and mapped anew: up to a fifth of a step on a CPU. What is kept
    instead is no more than a step needed at once, but may lie in pieces that the next cannot use.

    Whoever has set one of glibc's two thresholds (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, or
    `GLIBC_TUNABLES`) has decided, and nothing is changed; nor where the C library is another, nor where addresses are
    limited (`ulimit -v`): what is kept can give its pages back, but not its addresses.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    said = [f"MALLOC_{name}_THRESHOLD_" in os.environ for name in ("TRIM", "MMAP")]
    said += [f"glibc.malloc.{name}_threshold" in tunables for name in ("trim", "mmap")]
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    if any(said) or limited or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST)
    return taken and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))


def give_back_freed_memory() -> None:
    """Give the kernel what is freed and kept: once, as where a step has run out of memory."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
