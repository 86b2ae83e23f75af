"""Find the subcommand and run it. Nothing here imports torch: `--help` and lists answer at once."""

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from resdomains.cli.errors import FAILED, INTERRUPTED, CliError
from resdomains.plugins import PluginError, suggest


class Command(NamedTuple):
    """A subcommand: its module, which has `run(arguments) -> exit status` and `HELP`, and a line for the list."""

    module: str
    summary: str


COMMANDS = {
    "fit": Command("fit", "train, then test the best checkpoint"),
    "validate": Command("evaluate", "evaluate a checkpoint on the validation split"),
    "test": Command("evaluate", "evaluate a checkpoint on the test split"),
    "predict": Command("predict", "apply a checkpoint to files, folders or texts"),
    "probe": Command("probe", "measure what each residual block of a checkpoint does"),
    "average": Command("average", "write the mean of several checkpoints of a run"),
    "export": Command("export", "write a checkpoint's network for another library"),
    "lr-find": Command("lr_find", "try rising learning rates and suggest one"),
    "slurm-script": Command("slurm_script", "print a script that trains on Slurm"),
    "compare": Command("compare", "one table, figures and a page of several runs"),
    "study": Command("study", "run a grid of runs from one file, and compare them"),
    "configs": Command("listing", "list the shipped configs"),
    "tasks": Command("listing", "list the installed tasks"),
    "new-task": Command("new_task", "write a package that holds a new task"),
    "doctor": Command("doctor", "show versions, devices, precision, W&B and what is missing"),
}

EXAMPLES = """\
  resdomains fit --config image_classification/digits
  resdomains fit --config image_classification/digits --model.backbone.merge Highway
  resdomains fit --config my.yaml --config trainer/ddp --trainer.devices 2
  resdomains predict --ckpt_path runs/.../checkpoints/best.ckpt photo.jpg
"""


def usage() -> str:
    """The text of `resdomains --help`."""
    lines = [f"  {name:<14}{command.summary}" for name, command in COMMANDS.items()]
    return (
        "usage: resdomains COMMAND [options]\n\nTrain residual networks from one config.\n\ncommands:\n"
        + "\n".join(lines)
        + "\n\nexamples:\n"
        + EXAMPLES
        + "\n`resdomains COMMAND --help` explains a command; `resdomains --version` prints the version."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 for a failure, 2 for bad input, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in arguments
    try:
        return _dispatch(arguments)
    except (CliError, PluginError) as error:
        if show_traceback:
            traceback.print_exc()
        complain(str(error))
        return error.status if isinstance(error, CliError) else 2
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # the last resort: whatever it is, one message and a place to look
        if show_traceback:
            traceback.print_exc()
        complain(unexpected(error, Path(tempfile.gettempdir())))
        return FAILED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        from resdomains import __version__

        print(f"resdomains {__version__}")
        return 0
    if name not in COMMANDS:
        raise CliError(f"no command {name!r}; " + suggest(name, COMMANDS, "commands"))
    module = importlib.import_module(f"resdomains.cli.commands.{COMMANDS[name].module}")
    status: int = module.run(name, rest)
    return status


def complain(message: str) -> None:
    """Print an error, naming the process where there are several."""
    rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0"))
    prefix = "error" if rank == "0" else f"error in process {rank}"
    print(f"{prefix}: {message}", file=sys.stderr, flush=True)


def unexpected(error: BaseException, folder: Path) -> str:
    """Write the traceback to `error.log` in a folder and return the message that names it.

    A folder that is missing or full is no reason to lose the traceback: the system's temporary
    folder takes its place.
    """
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    temporary = Path(tempfile.gettempdir()) / f"resdomains-error-{os.getpid()}.log"
    for path in (folder / "error.log", temporary):
        if path.parent == temporary.parent and path != temporary:
            continue
        try:
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError:
            continue
        return f"{text}\n  where it happened: {path} (--traceback shows it)"
    return f"{text}\n  --traceback shows where"
