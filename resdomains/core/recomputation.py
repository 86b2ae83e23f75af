"""Forward passes that are made a second time, for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class _State:
    """Process-wide rather than per thread: the backward pass may run in a thread of the device,
    while the thread that asked for it waits."""

    def __init__(self) -> None:
        self.recomputing = False


# An instance, since torch.compile guards its attributes: compiled blocks have a version for each
# value. Those of a class it takes for constants.
_STATE = _State()


def recomputing() -> bool:
    """Whether the forward pass in progress is a second one, made for the backward pass.

    Whatever counts forward passes (statistics, probes) asks and leaves these out.
    """
    return _STATE.recomputing


@contextmanager
def recomputation() -> Iterator[None]:
    """Marks the forward passes within as second ones."""
    before = _STATE.recomputing
    _STATE.recomputing = True
    try:
        yield
    finally:
        _STATE.recomputing = before
