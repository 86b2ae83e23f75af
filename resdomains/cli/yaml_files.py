"""Read YAML strictly: plain values only, no key twice, and errors that name file and line."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from resdomains.cli.errors import CliError
from resdomains.plain_yaml import SafeLoader, TooLarge, check_size

_TAG = "tag:yaml.org,2002:"
# YAML 1.2's floats: PyYAML follows 1.1, in which `1e-3` is a string.
_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)
    |[-+]?\.[0-9_]+(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)


class _PlainLoader(SafeLoader):
    """Safe loading with YAML 1.2's floats, without dates, and with repeated keys refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # yaml reads this class attribute
        first: [
            (tag, regexp)
            for tag, regexp in resolvers
            if tag not in (_TAG + "float", _TAG + "timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != _TAG + "merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None,
                        None,
                        f"the key {key_node.value!r} stands here twice",
                        key_node.start_mark,
                    )
                seen.add(key_node.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


_PlainLoader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+0123456789."))


def read_text(text: str, source: str) -> Any:
    """Parse YAML text.

    Raises:
        CliError: With file and line, if the text is no YAML, asks for more than plain values, or for absurdly many.
    """
    try:
        check_size(text)
        # The loader is SafeLoader with stricter keys.
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark is not None else source
        problem = error.problem or "not valid YAML"
        tag = re.search(r"constructor for the tag '([^']+)'", problem)
        if tag:
            name = tag[1].replace(_TAG, "!!")
            problem = f"the tag {name} is not allowed: a config holds plain values only"
        raise CliError(f"{where}: {problem}") from error
    except TooLarge as error:
        raise CliError(f"{source}:{error.line}: {error.reason}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise CliError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error


def read_config(path: Path) -> dict[str, Any]:
    """Read a config file.

    Raises:
        CliError: If it cannot be read or does not hold keys and values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise CliError(f"{path}: {reason}") from error
    values = read_text(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise CliError(
            f"{path}: a config holds `key: value` lines, this file holds a {type(values).__name__}"
        )
    return values


def summary_of(path: Path) -> str:
    """The first comment line of a YAML file: what it is for."""
    with path.open(encoding="utf-8") as file:
        first = file.readline().strip()
    return first.lstrip("# ").strip() if first.startswith("#") else ""
