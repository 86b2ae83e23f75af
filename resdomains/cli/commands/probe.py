"""`resdomains probe`: what each residual block of a finished run does."""

from resdomains.cli.arguments import Arguments, split
from resdomains.cli.errors import CliError
from resdomains.cli.options import CONFIG_HELP, CONFIG_KEYS, check_configs
from resdomains.plugins import suggest

PROBES = ("gradients", "contribution", "gain", "lesion")

HELP = f"""\
usage: resdomains probe --ckpt_path FILE [options]

Measure each residual block of a trained network, on the data that it was trained with or those
that --config or overrides such as --data.root name:

  gradients           norm of the loss's gradient, on training batches
  contribution        branch over shortcut, and standard deviation of the branch, on validation data
  gain                how strongly a change after the block arrives at the network's output,
                      on the first validation batch
  lesion              the validation score without the block, and without k random ones

Tables (CSV) and figures (PNG) go to probes/<checkpoint> in the run's folder, and to W&B.
`--config probes/all` switches the same probes on while `resdomains fit` trains.

  --ckpt_path FILE    the checkpoint
  --probes NAMES      which of them, separated by commas (all)
  --batches N         validation batches to use (all); training batches for gradients (8)
  --removed NUMBERS   how many random blocks to remove, such as 1,2,5,10 (up to eight numbers)
  --draws N           random choices of the blocks for each of these numbers (3)
  --output FOLDER     a new or empty folder for tables and figures
  --format FORMAT     table, or json for one line of it
  --run.wandb.mode M  auto, online, offline or disabled
{CONFIG_HELP}
examples:
  resdomains probe --ckpt_path runs/.../checkpoints/best.ckpt
  resdomains probe --ckpt_path best.ckpt --probes lesion --removed 1,2,4 --draws 10 --seed 1"""

OPTIONS = ("probes", "batches", "removed", "draws", "output", "format")


def run(name: str, tokens: list[str]) -> int:
    """Probe; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    arguments = split(tokens, options=OPTIONS, roots=CONFIG_KEYS, composing=True)
    chosen = probes(arguments)
    removed = numbers(arguments)
    arguments.number("batches", 1)
    arguments.number("draws", 3)
    arguments.choice("format", "table", ("table", "json"))
    check_configs(arguments)
    if not any(keys == ("ckpt_path",) for keys, _ in arguments.overrides):
        raise CliError("`resdomains probe` needs --ckpt_path FILE")
    from resdomains.cli.probing import probe

    return probe(arguments, chosen, removed)


def probes(arguments: Arguments) -> list[str]:
    """Read which probes to run.

    Raises:
        CliError: If one does not exist.
    """
    text = arguments.options.get("probes")
    if text is None:
        return list(PROBES)
    asked = [name.strip() for name in text.split(",")]
    for name in asked:
        if name not in PROBES:
            raise CliError(f"--probes {name}: " + suggest(name, PROBES, "probes"))
    return [name for name in PROBES if name in asked]


def numbers(arguments: Arguments) -> list[int] | None:
    """Read how many random blocks to remove.

    Raises:
        CliError: If that is no list of whole numbers.
    """
    text = arguments.options.get("removed")
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise CliError(
            f"--removed {text}: expected whole numbers of at least 1, separated by commas"
        )
    return [int(part) for part in parts]
