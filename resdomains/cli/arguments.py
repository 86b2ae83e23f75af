"""Split a command line into configs, overrides and the launcher's own switches."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from resdomains.cli.errors import CliError
from resdomains.plugins import suggest


@dataclass
class Arguments:
    """What a command line says.

    Args:
        configs: Names or paths given with `--config`, in order.
        overrides: Dotted keys and their text, in order.
        plugins: Modules given with `--plugin`.
        files: Arguments that are no options.
        print_config: Whether to print the composed config and stop.
        help_for: Key whose options to explain (`--model.backbone.help`), if asked.
        traceback: Whether to show where an error comes from.
        options: Options of the command itself, by name.
        switches: Those of the command's options without a value that were given.
        others: Options that the command does not know, by name, where it leaves them to a task; None without a value.
    """

    configs: list[str] = field(default_factory=list)
    overrides: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    print_config: bool = False
    help_for: tuple[str, ...] | None = None
    traceback: bool = False
    options: dict[str, str] = field(default_factory=dict)
    switches: set[str] = field(default_factory=set)
    others: dict[str, str | None] = field(default_factory=dict)

    def flag(self, name: str, default: bool) -> bool:
        """Read an option that is true or false.

        Raises:
            CliError: If it is neither.
        """
        text = self.options.get(name)
        if text is None:
            return default
        if text.lower() not in ("true", "false"):
            raise CliError(f"--{name} {text}: expected true or false")
        return text.lower() == "true"

    def number(self, name: str, default: int) -> int:
        """Read an option that is a whole number of at least 1.

        Raises:
            CliError: If it is not.
        """
        text = self.options.get(name)
        if text is None:
            return default
        if not text.isdecimal() or int(text) < 1:
            raise CliError(f"--{name} {text}: expected a whole number of at least 1")
        return int(text)

    def choice(self, name: str, default: str, allowed: Iterable[str]) -> str:
        """Read an option that is one of a few words.

        Raises:
            CliError: If it is another.
        """
        text = self.options.get(name, default)
        if text not in allowed:
            raise CliError(f"--{name} {text}: " + suggest(text, allowed, "allowed"))
        return text


def split(
    tokens: list[str],
    *,
    options: Iterable[str] = (),
    switches: Iterable[str] = (),
    roots: Iterable[str] = (),
    composing: bool = False,
    files: bool = False,
    others: bool = False,
) -> Arguments:
    """Read a command line; all `--config` come first, wherever they stand, so none overwrites an override.

    Args:
        tokens: The command line after the subcommand.
        options: Names of the command's own options, which take a value.
        switches: Names of those that take none.
        roots: First parts of the config keys that may be overridden.
        composing: Whether a config is composed: with `--config`, `--plugin` and `--print_config`.
        files: Whether arguments that are no options are accepted.
        others: Whether options of other names are accepted.

    Raises:
        CliError: If an option is unknown or lacks its value.
    """
    found = Arguments()
    known = {*options, *switches, *roots, "traceback", "help"}
    if composing:
        known |= {"config", "plugin", "print_config"}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "--":
            found.files.extend(rest)
            break
        if not token.startswith("--") or len(token) == 2:
            if not files:
                raise CliError(f"unexpected argument {token!r}; options begin with --")
            found.files.append(token)
            continue
        name, equals, text = token[2:].partition("=")
        root = name.partition(".")[0].rstrip("+")
        if root not in known and not (others and name.isidentifier()):
            raise CliError(f"no option --{name}; " + suggest(root, known, "options"))
        if name == "traceback":
            found.traceback = True
            continue
        if name == "print_config" and composing:
            found.print_config = True
            continue
        if name in switches:
            found.switches.add(name)
            continue
        keys = tuple(name.split("."))
        if not all(keys):
            raise CliError(f"--{name}: an empty part in a dotted key")
        if keys[-1] == "help" and len(keys) > 1:
            found.help_for = keys[:-1]
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                if root not in known:
                    found.others[name] = None
                    continue
                raise CliError(f"--{name} needs a value")
            text = rest.pop(0)
        if name == "config" and composing:
            found.configs.append(text)
        elif name == "plugin":
            found.plugins.append(text)
        elif name in options:
            found.options[name] = text
        elif root in roots:
            found.overrides.append((keys, text))
        elif others and name.isidentifier():
            found.others[name] = text
        else:
            raise CliError(f"no option --{name}; " + suggest(name, known, "options"))
    if found.files and not files:
        raise CliError(f"unexpected argument {found.files[0]!r}")
    return found
