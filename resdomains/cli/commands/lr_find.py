"""`resdomains lr-find`: a learning-rate range test (Smith 2017) through Lightning's Tuner."""

from resdomains.cli.arguments import split
from resdomains.cli.options import CONFIG_HELP, CONFIG_KEYS, check_configs

HELP = f"""\
usage: resdomains lr-find --config NAME [options]

Train a few steps with a learning rate that rises after each, draw the loss over the rate, and
suggest the rate at which the loss falls fastest. The weights are thrown away.

{CONFIG_HELP}
  --steps N           how many steps (100)
  --min_lr X          first rate (1e-6)
  --max_lr X          last rate (1)
  --output FILE       the picture (lr_find.png)

example:
  resdomains lr-find --config image_classification/digits"""


def run(name: str, tokens: list[str]) -> int:
    """Look for a learning rate; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    arguments = split(
        tokens, options=("steps", "min_lr", "max_lr", "output"), roots=CONFIG_KEYS, composing=True
    )
    arguments.number("steps", 100)
    check_configs(arguments)
    from resdomains.cli.rates import find_rate

    return find_rate(arguments)
