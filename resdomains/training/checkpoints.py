"""Read a checkpoint without running any code in it, and rebuild its task."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from resdomains.plain_files import Damaged, HoldsCode, check_amount, read_plain
from resdomains.training.building import AtMost
from resdomains.training.task import FORMAT, Task

# Far above any config's.
_MOST_OF_RECIPE, _LONGEST_OF_RECIPE = 100_000, 10_000
_LONGEST_REASON = 600  # characters
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"
# What a run keeps.
_KEPT = (LAST, PREVIOUS, "best.ckpt", "epoch=*.ckpt")


class BadCheckpoint(ValueError):
    """A file that cannot be used as a checkpoint."""


class DamagedCheckpoint(BadCheckpoint):
    """A checkpoint that is cut, altered or gone."""


class Start(NamedTuple):
    """Where a run goes on.

    Attributes: `path`, the checkpoint; `ours`, what it says of itself; `step`, how many optimizer steps it has trained;
    `damaged`, newer checkpoints that cannot be read.
    """

    path: Path
    ours: dict[str, Any]
    step: int
    damaged: tuple[Path, ...] = ()


def newest_checkpoint(folder: Path) -> Start | None:
    """Return the newest sound checkpoint of a run; None if the folder holds none.

    That is `last.ckpt`; only where it is damaged or gone, the others are read, and the one of most steps is taken.

    Raises:
        BadCheckpoint: If none of the folder's checkpoints is sound, or the last one holds more than plain values.
    """
    last = folder / LAST
    others = _siblings(last)
    if not last.is_file() and not others:
        return None
    try:
        return _start(last)
    except DamagedCheckpoint:
        found = _newest(others)
        if found is None:
            raise
        return found._replace(damaged=(last,) if last.is_file() else ())


def start_at(path: Path) -> Start:
    """Return a checkpoint to go on from; a `last.ckpt` that is damaged gives way to the newest sound one beside it.

    Raises:
        BadCheckpoint: If it cannot be read.
    """
    found = newest_checkpoint(path.parent) if path.name == LAST else None
    if found is not None:
        return found
    checkpoint = read_checkpoint(path)
    return Start(path, checkpoint["resdomains"], _steps(checkpoint))


def _newest(paths: Iterable[Path]) -> Start | None:
    """Of some files the sound checkpoint of most steps."""
    found = []
    for path in paths:
        with suppress(BadCheckpoint):
            found.append(_start(path))
    return max(found, key=lambda start: start.step, default=None)


def _start(path: Path) -> Start:
    checkpoint = _read(path)
    return Start(path, checkpoint["resdomains"], _steps(checkpoint))


def _siblings(path: Path) -> list[Path]:
    """The other checkpoints of the run that wrote one."""
    if not any(path.match(pattern) for pattern in _KEPT):
        return []
    found = (other for pattern in _KEPT for other in sorted(path.parent.glob(pattern)))
    return [other for other in found if other.name != path.name]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's plain values and tensors; code in it is refused, not run.

    Raises:
        BadCheckpoint: If the file is missing, damaged, holds more than plain values, or is not of resdomains; of a
            damaged one the message names a sound one of the same run.
    """
    path = Path(path)
    try:
        return _read(path)
    except DamagedCheckpoint as error:
        sound = _newest(_siblings(path))
        if sound is None:
            raise
        raise DamagedCheckpoint(
            f"{error}; {sound.path.name} beside it is sound (step {sound.step:,})"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DamagedCheckpoint(f"{path}: no such checkpoint file")
    try:
        checkpoint = read_plain(path)
    except HoldsCode as error:
        what = f" ({error})" if str(error) else ""
        raise BadCheckpoint(
            f"{path}: refused, because it is not a plain checkpoint and loading it could run code{what}"
        ) from error
    except Damaged as error:
        raise DamagedCheckpoint(f"{path}: damaged or not a checkpoint ({error})") from error
    if (
        not isinstance(checkpoint, dict)
        or "resdomains" not in checkpoint
        or "state_dict" not in checkpoint
    ):
        raise BadCheckpoint(
            f"{path}: not a checkpoint of resdomains (it has no 'resdomains' entry); "
            "weights of other libraries are loaded through a task's weights argument"
        )
    ours = checkpoint["resdomains"]
    missing = {"format", "recipe", "spec"} - (ours.keys() if isinstance(ours, dict) else set())
    if missing or not isinstance(checkpoint["state_dict"], dict):
        what = ", ".join(sorted(missing)) or "state_dict"
        raise BadCheckpoint(f"{path}: damaged or not a checkpoint (it lacks {what})")
    _check_recipe(path, ours)
    if ours["format"] > FORMAT:
        raise BadCheckpoint(
            f"{path}: written by a newer resdomains (checkpoint format {ours['format']}, "
            f"this version reads up to {FORMAT}); upgrade resdomains"
        )
    return checkpoint


def _check_recipe(path: Path, ours: Mapping[str, Any]) -> None:
    """Refuse what a run would not have written: a recipe of other parts, or one that is absurdly large.

    Raises:
        BadCheckpoint: If it is one.
    """
    recipe = ours["recipe"]
    model = recipe.get("model") if isinstance(recipe, dict) else None
    if not isinstance(ours["format"], int) or not (
        recipe is None
        or (
            isinstance(model, dict)
            and isinstance(model.get("class_path"), str)
            and isinstance(model.get("init_args", {}), dict)
        )
    ):
        raise BadCheckpoint(
            f"{path}: damaged or not a checkpoint (its format or recipe is not what a run writes)"
        )
    try:
        check_amount(recipe, most=_MOST_OF_RECIPE, longest=_LONGEST_OF_RECIPE)
    except Damaged as error:
        raise BadCheckpoint(f"{path}: refused, because of its recipe: {error}") from error


def load_task(path: str | Path, plugins: Iterable[str] = ()) -> Task:
    """Rebuild the task of a checkpoint, in evaluation mode, on the CPU; needs neither config nor data.

    Args:
        path: The checkpoint.
        plugins: Packages that its recipe may name classes of, beside those of installed plugins.

    Raises:
        BadCheckpoint: If the checkpoint cannot be read, or holds no recipe because its run was built in Python.
    """
    from resdomains.imports import allow_plugins_only

    checkpoint = read_checkpoint(path)
    ours = checkpoint["resdomains"]
    if ours["recipe"] is None:
        raise BadCheckpoint(
            f"{path}: holds no recipe, because its run was built in Python and not from a config; "
            "build the task as that program did and call load_state_dict"
        )
    model = copy.deepcopy(ours["recipe"]["model"])
    if "weights" in model.setdefault("init_args", {}):
        # The weights that a run began with are replaced by the checkpoint's own.
        model["init_args"]["weights"] = None
    allow_plugins_only(plugins)
    try:
        with AtMost(Path(path).stat().st_size):
            task = _build(model["class_path"], model["init_args"], ours["spec"])
        task.load_state_dict(checkpoint["state_dict"])
    except Exception as error:  # whatever a constructor makes of what a stranger's recipe gives it
        raise BadCheckpoint(
            f"{path}: its task {model['class_path']} cannot be built: {_shortly(error)}"
        ) from error
    task.recipe, task.chosen = ours["recipe"], ours.get("chosen", {})
    return task.eval()


def _shortly(error: Exception) -> str:
    """What was raised, in a few lines at most."""
    text = str(error) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} ..."


def _build(class_path: str, init_args: dict[str, Any], spec: dict[str, Any]) -> Task:
    """Build a task of its recipe's arguments and of a spec, whose text is no config, to be read as numbers or JSON."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--task", type=type[Task])
    component = parser.parse_object({"task": class_path}).task
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(component, "arguments", skip={"spec"}, instantiate=False)
    arguments = parser.instantiate(parser.parse_object({"arguments": init_args})).arguments
    task: Task = component(**vars(arguments), spec=spec)
    return task


def average_checkpoints(paths: Sequence[str | Path]) -> dict[str, Any]:
    """Return a checkpoint whose weights are the mean of several checkpoints of one run.

    Weights and buffers of floating-point numbers are averaged in float64 and returned in their own type; all else,
    whole numbers and the optimizer's state among it, is that of the checkpoint that trained the most steps.

    Args:
        paths: Two or more checkpoints, in any order.

    Raises:
        BadCheckpoint: If one cannot be read, or they differ in task, network, data or weights, so that a mean of them
            is of nothing.
    """
    distinct = {Path(path).resolve(): path for path in paths}
    if len(distinct) < 2 or len(distinct) < len(paths):
        raise BadCheckpoint(
            f"a mean needs two or more different checkpoints, got {', '.join(map(str, paths)) or 'none'}"
        )
    sums: dict[str, Tensor] = {}
    first: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    for path in paths:
        checkpoint = read_checkpoint(path)
        if first is None or last is None:
            first = last = checkpoint
        _check_alike(first, checkpoint, f"{path} and {paths[0]}")
        if _steps(checkpoint) >= _steps(last):
            last = checkpoint
        for name, value in checkpoint["state_dict"].items():
            if isinstance(value, Tensor) and value.is_floating_point():
                sums[name] = sums.get(name, 0.0) + value.double()
    assert last is not None
    mean = {
        name: (sums[name] / len(paths)).to(value.dtype) if name in sums else value
        for name, value in last["state_dict"].items()
    }
    return {**last, "state_dict": mean}


def _steps(checkpoint: Mapping[str, Any]) -> int:
    return int(checkpoint.get("global_step", 0))


def _check_alike(one: Mapping[str, Any], other: Mapping[str, Any], names: str) -> None:
    """Refuse checkpoints of different runs; the trainer's keys may differ, as in a run that went on for longer."""
    ours, theirs = (_identity(checkpoint["resdomains"]) for checkpoint in (one, other))
    key = _difference(ours, theirs)
    if key is not None:
        raise BadCheckpoint(
            f"{names} cannot be averaged: they are of different runs, {key} differs"
        )
    shapes, others = (
        {k: getattr(v, "shape", None) for k, v in c["state_dict"].items()} for c in (one, other)
    )
    for name in [*shapes, *others]:
        if shapes.get(name) != others.get(name):
            raise BadCheckpoint(
                f"{names} cannot be averaged: {name} is {_size(others.get(name))} in the first and "
                f"{_size(shapes.get(name))} in the second"
            )


def _identity(ours: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {k: v for k, v in (ours["recipe"] or {}).items() if k != "trainer"}
    return {**recipe, "spec": ours["spec"]}


def _size(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))


def _difference(one: Any, other: Any) -> str | None:
    """The dotted key at which two plain values first differ; empty where they are no mappings; None if equal."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return None if one == other else ""
    for key in sorted({*one, *other}):
        below = _difference(one.get(key), other.get(key))
        if below is not None:
            return f"{key}.{below}".rstrip(".")
    return None
