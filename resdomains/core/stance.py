"""Running what is compiled as it is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


class _State:
    """Process-wide, as torch's own setting is."""

    def __init__(self) -> None:
        self.eager = False


_STATE = _State()


@contextmanager
def eager() -> Iterator[None]:
    """Runs compiled modules as written within, so that what watches their parts or operations sees them.

    A hook on a part would never fire. And a module whose first call is watched by a dispatch mode, as a counter of
    operations is, would stay uncompiled for good. What was compiled stays, and is used again afterwards.
    """
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and loading it takes a second
        yield
        return
    before = _STATE.eager
    _STATE.eager = True
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        _STATE.eager = before


class Stance:
    """Whether modules run as written at the moment, to be met again in the backward pass.

    Compiled code keeps other tensors and draws other random numbers.
    """

    def __init__(self) -> None:
        self._eager = _STATE.eager

    def again(self) -> AbstractContextManager[None]:
        """Runs as at that moment."""
        return eager() if self._eager else nullcontext()
