"""`resdomains validate` and `resdomains test`: evaluate a checkpoint on a split."""

from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError
from resdomains.cli.options import CONFIG_HELP, CONFIG_KEYS, check_configs


def _help(name: str, split_name: str) -> str:
    return f"""\
usage: resdomains {name} --ckpt_path FILE [options]

Evaluate a checkpoint on the {split_name} split of the data that it was trained with, or of those
that --config or overrides such as --data.root name.

  --ckpt_path FILE    the checkpoint
  --format FORMAT     table, or json for one line of it
{CONFIG_HELP}
example:
  resdomains {name} --ckpt_path runs/.../checkpoints/best.ckpt --data.root FOLDER"""


def run(name: str, tokens: list[str]) -> int:
    """Evaluate; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(_help(name, "validation" if name == "validate" else "test"))
        return 0
    arguments = split(tokens, options=("format",), roots=CONFIG_KEYS, composing=True)
    shape = arguments.choice("format", "table", ("table", "json"))
    check_configs(arguments)
    if not any(keys == ("ckpt_path",) for keys, _ in arguments.overrides):
        raise CliError(f"`resdomains {name}` needs --ckpt_path FILE")
    from resdomains.cli.evaluation import evaluate

    return evaluate(arguments, "val" if name == "validate" else "test", shape)
