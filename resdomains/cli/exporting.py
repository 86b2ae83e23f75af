"""Write a checkpoint's network for another library: a whole folder, or nothing."""

import shutil
from pathlib import Path

from resdomains.cli import own_options
from resdomains.cli.arguments import Arguments
from resdomains.cli.commands.export import OPTIONS
from resdomains.cli.errors import CliError
from resdomains.cli.folders import check_new, draft
from resdomains.cli.quiet import quiet
from resdomains.cli.session import import_plugins
from resdomains.training import BadCheckpoint, Task, load_task


def export(arguments: Arguments) -> int:
    """Export what a command line names.

    Raises:
        CliError: If the checkpoint cannot be used, its network has no counterpart in the format, or the folder holds
            something.
    """
    quiet()
    folder = Path(arguments.options["output"]).expanduser().resolve()
    overwrite = arguments.flag("overwrite", False)
    _check(folder, overwrite)
    task = _load(arguments)
    own_options.apply(task, task.export_options, arguments.others, OPTIONS)
    if not task.exports:
        raise CliError(
            f"--ckpt_path: {type(task).__name__} exports nothing (it names no formats in `exports`)"
        )
    shape = arguments.choice("format", task.exports[0], task.exports)
    try:
        with draft(folder) as beside:
            said = task.export(beside, shape)
            _replace(folder, beside, overwrite)
    except (ValueError, ImportError) as error:
        raise CliError(f"cannot export to {shape}: {error}") from error
    except OSError as error:
        raise CliError(f"--output {folder}: {error.strerror or error}") from error
    print(f"{said}\nwritten to {folder}")
    return 0


def _load(arguments: Arguments) -> Task:
    import_plugins(arguments.plugins)
    try:
        return load_task(arguments.options["ckpt_path"], arguments.plugins)
    except BadCheckpoint as error:
        raise CliError(f"--ckpt_path {error}") from error


def explain(arguments: Arguments) -> None:
    """Print the formats and options that a checkpoint's task has.

    Raises:
        CliError: If the checkpoint cannot be used.
    """
    quiet()
    task = _load(arguments)
    own_options.explain(task, task.export_options)
    print(f"{type(task).__name__} exports {', '.join(task.exports) or 'nothing'}")


def _check(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be replaced, before anything is loaded."""
    if not overwrite or not folder.is_dir():
        hint = "give another folder, or --overwrite true replaces an earlier export"
        check_new(folder, "output", hint)


def _replace(folder: Path, new: Path, overwrite: bool) -> None:
    """Put the new folder in the place of the old one, if that holds nothing but an earlier export."""
    if not folder.exists():
        new.rename(folder)
        return
    _check(folder, overwrite)
    others = sorted({p.name for p in folder.iterdir()} - {p.name for p in new.iterdir()})
    if others:
        raise CliError(
            f"--output {folder}: holds what no export writes ({', '.join(others[:3])}), so it is not replaced; "
            "give another folder"
        )
    old = new.with_name(f"{new.name}.old")
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)
