"""Read a checkpoint without running any code in it, and rebuild its task."""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from resdomains.plain_files import Damaged, HoldsCode, read_plain
from resdomains.training.task import FORMAT, Task


class BadCheckpoint(ValueError):
    """A file that cannot be used as a checkpoint."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint's plain values and tensors; code in it is refused, not run.

    Raises:
        BadCheckpoint: If the file is missing, damaged, holds more than plain values, or is not of resdomains.
    """
    path = Path(path)
    if not path.is_file():
        raise BadCheckpoint(f"{path}: no such checkpoint file")
    try:
        checkpoint = read_plain(path)
    except HoldsCode as error:
        what = f" ({error})" if str(error) else ""
        raise BadCheckpoint(
            f"{path}: refused, because it is not a plain checkpoint and loading it could run code{what}"
        ) from error
    except Damaged as error:
        raise BadCheckpoint(f"{path}: damaged or not a checkpoint ({error})") from error
    if (
        not isinstance(checkpoint, dict)
        or "resdomains" not in checkpoint
        or "state_dict" not in checkpoint
    ):
        raise BadCheckpoint(
            f"{path}: not a checkpoint of resdomains (it has no 'resdomains' entry); "
            "weights of other libraries are loaded through a task's weights argument"
        )
    if checkpoint["resdomains"]["format"] > FORMAT:
        raise BadCheckpoint(
            f"{path}: written by a newer resdomains (checkpoint format {checkpoint['resdomains']['format']}, "
            f"this version reads up to {FORMAT}); upgrade resdomains"
        )
    return checkpoint


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
        task = _build(model["class_path"], model["init_args"], ours["spec"])
    except (ArgumentError, ImportError) as error:
        raise BadCheckpoint(
            f"{path}: its task {model['class_path']} cannot be built: {error}"
        ) from error
    task.recipe = ours["recipe"]
    task.load_state_dict(checkpoint["state_dict"])
    return task.eval()


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
