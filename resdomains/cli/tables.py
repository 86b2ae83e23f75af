"""Plain tables for commands that answer at once; rich alone takes longer to import than they to run."""

import shutil
import textwrap
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; the last one wraps at the terminal's edge."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
    left = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size((100, 24)).columns - left, 30)
    lines = []
    for row in [head, *rows]:
        start = "".join(cell.ljust(width + 2) for cell, width in zip(row, widths, strict=False))
        wrapped = textwrap.wrap(row[-1], room) or [""]
        lines.append((start + wrapped[0]).rstrip())
        lines.extend(" " * left + line for line in wrapped[1:])
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as `12.3 s`, `4 min 05 s` or `2 h 03 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )
