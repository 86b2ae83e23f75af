"""Build a network on the word of a file that nobody has checked: refuse one far larger than the file."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# A network also makes what no checkpoint holds: metrics' states, tables of positions, windows of a spectrum.
_SPARE_VALUES, _SPARE_TENSORS = 2**27, 5_000
_REASON = "its recipe asks for far more than the file holds"
_MAKE = {
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint),
    *(torch.arange, torch.linspace, torch.logspace, torch.eye, torch.tril_indices),
    *(torch.triu_indices, torch.empty_strided, torch.hann_window, torch.hamming_window),
}


class TooLarge(ValueError):
    """What is being built is far larger than the file that asks for it."""


class AtMost(TorchFunctionMode):
    """Within this context, tensors may be made that hold at most about so much as a file.

    A recipe can ask for a billion blocks in a line. The sizes of tensors are looked at before memory is taken for them.

    Args:
        size: The file's size in bytes: it holds as many values at most.

    Raises:
        TooLarge: In the context, as soon as more values, or more tensors, are made than the file can hold.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._values = _SPARE_VALUES + 4 * size
        self._tensors = _SPARE_TENSORS + size // 16

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(number > self._values for number in _numbers((args, tuple(kwargs.values())))):
            raise TooLarge(_REASON)
        if func in _MAKE:
            # Not all of them know `out`: hann_window refuses even None.
            given = {name: value for name, value in kwargs.items() if name != "out"}
            self._values -= func(*args, **{**given, "device": "meta"}).numel()
            self._tensors -= 1
            if self._values < 0 or self._tensors < 0:
                raise TooLarge(_REASON)
        return func(*args, **kwargs)


def _numbers(value: Any) -> Iterator[int]:
    """The whole numbers among a function's arguments: mostly sizes."""
    if isinstance(value, int):
        yield value
    elif type(value) in (tuple, list, torch.Size):
        for part in value:
            yield from _numbers(part)
