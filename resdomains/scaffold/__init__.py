"""Write a package that holds a new task: a copy of the small whole one beside this file, under another name."""

import ast
import importlib.util
import keyword
import re
from pathlib import Path

from resdomains.plugins import discover, shipped_configs

_TEMPLATE = Path(__file__).with_name("tone_tagging")
_SUFFIXES = (".py", ".toml", ".md", ".yaml")


def files(name: str) -> dict[str, str]:
    """The package's files, by their paths in it.

    Args:
        name: The task's name, as `check_name` accepts it.
    """
    written = {}
    for path in sorted(_TEMPLATE.rglob("*")):
        if path.suffix in _SUFFIXES:
            inside = path.relative_to(_TEMPLATE).as_posix()
            written[_renamed(inside, name)] = _renamed(path.read_text(encoding="utf-8"), name)
    return written


def check_name(name: str) -> None:
    """Refuse a name that no task can have here.

    Raises:
        ValueError: With the reason.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"a task's name must be small letters, digits and _, a letter first, got {name!r}"
        )
    if keyword.iskeyword(name):
        raise ValueError(f"{name!r} is a word of Python's own; no package can have that name")
    for entry in discover():
        if entry.name == name:
            raise ValueError(
                f"task {name!r} is installed already, from {entry.distribution} {entry.version}; take another name"
            )
    if any(config.partition("/")[0] == name for config in shipped_configs()):
        raise ValueError(
            f"configs named {name}/... are shipped, and a task's configs would be mixed with them; take another name"
        )
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:
        raise ValueError(
            f"there is a module {name!r} already, which the package would hide; take another name"
        )
    if _capitalised(name) in _imported(_TEMPLATE / "src" / "tone_tagging" / "task.py"):
        raise ValueError(
            f"the task's class would be called {_capitalised(name)}, as something that its file imports; "
            "take another name"
        )


def _imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _renamed(text: str, name: str) -> str:
    text = text.replace("tone_tagging", name).replace("tone-tagging", name.replace("_", "-"))
    return text.replace("ToneTagging", _capitalised(name))


def _capitalised(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
