"""The options that a task has beside those of a command."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from resdomains.cli.errors import CliError
from resdomains.plugins import nearest
from resdomains.training import Task

Options = Mapping[str, Callable[[str], Any]]
"""Names of a task's properties, each with what makes a value of a text."""

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true, false or nothing"}


def apply(task: Task, own: Options, given: Mapping[str, str | None], known: Iterable[str]) -> None:
    """Set what a command line says.

    Args:
        task: What has the options.
        own: The options.
        given: The text of each option that is no option of the command; None where it has none.
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
        if text is None and own[name] is not bool:
            raise CliError(f"--{name} needs a value")
        shown = f"--{name}" if text is None else f"--{name} {text}"
        try:
            value = _switched(text) if own[name] is bool else own[name](text or "")
        except ValueError as error:
            expected = f"expected {_KINDS[own[name]]}" if own[name] in _KINDS else str(error)
            raise CliError(f"{shown}: {expected}") from error
        try:
            setattr(task, name, value)
        except ValueError as error:
            raise CliError(f"{shown}: {error}") from error


def _switched(text: str | None) -> bool:
    """What a switch is set to."""
    if text is None:
        return True
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def explain(task: Task, own: Options) -> None:
    """Print what each option is and its value."""
    name = type(task).__name__
    print(f"\n{name} has these options:" if own else f"\n{name} has no options of its own")
    for option in own:
        shown = option if own[option] is bool else f"{option} VALUE"
        value = getattr(task, option)
        value = str(value).lower() if own[option] is bool else value
        print(f"  --{shown:<20}{_meaning(task, option)} ({value})")


def _meaning(task: Task, name: str) -> str:
    """What the property behind an option says of itself."""
    return (getattr(type(task), name).__doc__ or "").strip().partition("\n")[0].rstrip(".")
