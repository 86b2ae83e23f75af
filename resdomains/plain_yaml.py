"""Refuse YAML that is small as a file and becomes large, before anything is built of it."""

from typing import TYPE_CHECKING

import yaml

# PyYAML's loader in C where there is one: ten times as fast, and listing reads every config.
if TYPE_CHECKING:
    from yaml import SafeLoader as SafeLoader
else:
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Far above any config or description of data. Below them the parser in C overflows its stack, and aliases of aliases
# (or keys merged by `<<`) fill the memory.
_DEEPEST, _MOST, _LONGEST = 64, 100_000, 10_000


class TooLarge(ValueError):
    """YAML that is nested too deeply, or holds too many values or a too long one.

    Args:
        line: Where, from 1.
        reason: What is too large, and what is allowed.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line, self.reason = line, reason


def check_size(text: str | bytes) -> None:
    """Refuse YAML that is too large; aliases count as what they stand for.

    Raises:
        TooLarge: If it is.
        yaml.YAMLError: If it is no YAML.
    """
    sizes: dict[str | None, int] = {}
    within: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=SafeLoader):
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        anchor: str | None = getattr(event, "anchor", None)
        size = 1
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((anchor, 1))
            if len(within) > _DEEPEST:
                raise TooLarge(line, f"nested too deeply, more than {_DEEPEST} levels")
            continue
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == outer for outer, _ in within):
                raise TooLarge(line, f"the alias *{anchor} stands within what it stands for")
            size = sizes.get(anchor, 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = within.pop()
        elif isinstance(event, yaml.ScalarEvent):
            if len(event.value) > _LONGEST:
                raise TooLarge(
                    line, f"a value of {len(event.value):,} characters, more than {_LONGEST:,}"
                )
        else:
            continue
        sizes[anchor] = size
        outer, total = within.pop()
        if total + size > _MOST:
            raise TooLarge(
                line, f"more than {_MOST:,} values, aliases counted as what they stand for"
            )
        within.append((outer, total + size))
