"""Forward passes that are made a second time, for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


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


class Precision:
    """The autocast setting of the moment, to be met again in the backward pass."""

    def __init__(self, device: torch.device) -> None:
        self._settings = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
            for kind in dict.fromkeys(("cpu", device.type))
        ]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Computes with this setting."""
        with ExitStack() as stack:
            for kind, dtype, enabled in self._settings:
                stack.enter_context(torch.autocast(kind, dtype, enabled))
            yield


class Randomness:
    """The state of the random-number generators of the CPU and of ``device``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._own = None if device.type == "cpu" else _generators(device).get_rng_state(device)

    def moved(self, later: Randomness) -> bool:
        """Whether numbers have been drawn between this state and the ``later`` one."""
        pairs = [(self._cpu, later._cpu), (self._own, later._own)]
        return any(a is not None and b is not None and not torch.equal(a, b) for a, b in pairs)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draws the same numbers again, and leaves the generators as they were before."""
        before = Randomness(self._device)
        self._restore()
        try:
            yield
        finally:
            before._restore()

    def _restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._own is not None:
            _generators(self._device).set_rng_state(self._own, self._device)


def _generators(device: torch.device) -> Any:
    return torch.get_device_module(device)
