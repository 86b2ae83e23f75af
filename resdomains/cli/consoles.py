"""Where tables are printed."""

from rich.console import Console

_WIDE = 240


def table_console() -> Console:
    """Return a console as wide as the terminal, or with lines of 240 characters where a file or a pipe takes them."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console
