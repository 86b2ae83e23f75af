"""The options that a task has beside those of a command."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from resdomains.cli.errors import CliError
from resdomains.plugins import nearest
from resdomains.training import Task

Options = Mapping[str, Callable[[str], Any]]
"""Names of a task's properties, each with what makes a value of a text."""

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}


def apply(task: Task, own: Options, given: Mapping[str, str], known: Iterable[str]) -> None:
    """Set what a command line says.

    Args:
        task: What has the options.
        own: The options.
        given: The text of each option that is no option of the command.
        known: The command's own options.

    Raises:
        CliError: If the task has no such option, or refuses the value.
    """
    for name, text in given.items():
        if name not in own:
            has = f"has {', '.join(own)}" if own else "has none of its own"
            near = nearest(name, [*known, *own])
            meant = f"; did you mean {near!r}?" if near else ""
            raise CliError(f"no option --{name}{meant} ({type(task).__name__} {has})")
        try:
            value = own[name](text)
        except ValueError as error:
            expected = f"expected {_KINDS[own[name]]}" if own[name] in _KINDS else str(error)
            raise CliError(f"--{name} {text}: {expected}") from error
        try:
            setattr(task, name, value)
        except ValueError as error:
            raise CliError(f"--{name} {text}: {error}") from error


def explain(task: Task, own: Options) -> None:
    """Print what each option is and its value."""
    name = type(task).__name__
    print(f"\n{name} has these options:" if own else f"\n{name} has no options of its own")
    for option in own:
        print(f"  --{f'{option} VALUE':<20}{_meaning(task, option)} ({getattr(task, option)})")


def _meaning(task: Task, name: str) -> str:
    """What the property behind an option says of itself."""
    return (getattr(type(task), name).__doc__ or "").strip().partition("\n")[0].rstrip(".")
