"""Recorded observations as input of predict: `.npy` files that nobody has checked."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from resdomains.training import BadSample

SUFFIX = ".npy"
_LONGEST = 100  # characters of what a library says


class Recording(NamedTuple):
    """An observation.

    Args:
        source: The file and the row in it, from 0: `walk.npy[3]`.
        observation: In the part's own shape and dtype.
    """

    source: str
    observation: npt.NDArray[Any]


def read_recordings(
    inputs: Sequence[str], observations: Mapping[str, Mapping[str, Any]]
) -> Iterator[Recording | BadSample]:
    """Yield each observation of files (N, ...), and a `BadSample` for a file or a row that cannot be used.

    A file's rows are as the policy reads them; pictures may also be (N, H, W, C). Numbers of any type are taken where
    the policy reads float32; where it reads uint8, whole numbers of 0 to 255.

    Args:
        inputs: `.npy` files, and folders whose `.npy` files are read in the order of their names.
        observations: The parts of an observation, as `PolicySpec` has them.
    """
    for path in map(Path, inputs):
        files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not files:
            yield BadSample(str(path), f"a folder without {SUFFIX} files")
        for file in files:
            try:
                rows = _rows(file, observations)
            except BadSample as error:
                yield error
                continue
            for number, row in enumerate(rows):
                yield _checked(f"{file}[{number}]", row, observations)


def _rows(path: Path, observations: Mapping[str, Mapping[str, Any]]) -> npt.NDArray[Any]:
    """The rows of a file, (N, ...) of the part's shape, not read into memory yet.

    Raises:
        BadSample: If it cannot be read as such.
    """
    if len(observations) != 1:
        names = ", ".join(observations)
        raise BadSample(
            str(path), f"an observation has the parts {names}; recordings are read of one part only"
        )
    (part,) = observations.values()
    try:
        # Mapped, a file that claims more than it holds is refused before memory is taken for it; pickles are not read.
        found = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise BadSample(str(path), "no such file or folder") from error
    except IsADirectoryError as error:
        raise BadSample(str(path), "a folder, not a file") from error
    except Exception as error:  # numpy's reader raises what Python's tokenizer does, and more
        text = str(error).partition("\n")[0][:_LONGEST]
        raise BadSample(
            str(path), f"no {SUFFIX} file of numbers ({type(error).__name__}: {text})"
        ) from error
    if found.dtype.kind not in "biuf":
        raise BadSample(str(path), f"holds {found.dtype}, not numbers")
    shape = tuple(part["shape"])
    last = part["layout"] == "picture" and found.ndim == 4
    if last and found.shape[1:] != shape and found.shape[1:] == (*shape[1:], shape[0]):
        found = found.transpose(0, 3, 1, 2)
    if found.shape[1:] != shape or found.ndim != len(shape) + 1:
        expected = ", ".join(["N", *map(str, shape)])
        raise BadSample(str(path), f"its shape is {found.shape}, but observations are ({expected})")
    if not len(found):
        raise BadSample(str(path), "holds no observation")
    return found


def _checked(
    source: str, row: npt.NDArray[Any], observations: Mapping[str, Mapping[str, Any]]
) -> Recording | BadSample:
    (part,) = observations.values()
    if part["dtype"] == "uint8":
        if (row < 0).any() or (row > 255).any() or (row != np.trunc(row)).any():
            return BadSample(source, "holds what is no whole number of 0 to 255")
        return Recording(source, np.array(row, np.uint8))
    with np.errstate(over="ignore"):
        numbers = np.array(row, np.float32)
    if not np.isfinite(numbers).all():
        return BadSample(source, "holds what is no finite number")
    return Recording(source, numbers)


def collate(
    recordings: Sequence[Recording], observations: Mapping[str, Mapping[str, Any]]
) -> dict[str, Tensor]:
    """Make a batch: the one part's name and its tensor, (N, ...)."""
    (name,) = observations
    return {name: torch.from_numpy(np.stack([one.observation for one in recordings]))}


def records(
    sources: Sequence[str],
    actions: npt.NDArray[Any],
    values: Tensor,
    parameters: Tensor,
    action: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return a plain record for each observation.

    Args:
        sources: Where each stands.
        actions: (N, ...) what the policy does, as environments take it.
        values: (N,) what the critic expects.
        parameters: (N, P) of the distribution of actions, as `distributions` orders them.
        action: The kind of actions, as `PolicySpec` has it.

    Returns:
        `source`, `action`, `value`, and of discrete actions their `probabilities` (for several choices, a list of
        each), of continuous ones `mean` and `std`, before they are clipped to the bounds.
    """
    found = [
        {"source": source, "action": act, "value": value}
        for source, act, value in zip(
            sources, actions.tolist(), values.double().tolist(), strict=True
        )
    ]
    parameters = parameters.double()
    about: dict[str, list[Any]]
    if action["kind"] == "continuous":
        mean, log_std = parameters.chunk(2, 1)
        about = {"mean": mean.tolist(), "std": log_std.exp().tolist()}
    else:
        choices = [part.softmax(1).tolist() for part in torch.split(parameters, action["sizes"], 1)]
        several = action["kind"] == "multi_discrete"
        rows = [list(row) for row in zip(*choices, strict=True)] if several else choices[0]
        about = {"probabilities": rows}
    for place, record in enumerate(found):
        record.update({name: column[place] for name, column in about.items()})
    return found
