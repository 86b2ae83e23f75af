"""`resdomains average`: one checkpoint of the mean weights of several."""

from pathlib import Path

from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError

HELP = """\
usage: resdomains average CHECKPOINTS... --output FILE

Write a checkpoint whose weights and buffers are the mean of those given, computed in float64; whole
numbers, and all else that a checkpoint holds, are those of the one that trained longest. Averaging
the last epochs of a run often scores better than any one of them: `resdomains fit --run.keep_last 5`
keeps these. The statistics of batch norms are averaged too.

  --output FILE       a new file
  --traceback         show where an error comes from

example:
  resdomains average runs/.../checkpoints/epoch=*.ckpt --output mean.ckpt
  resdomains test --ckpt_path mean.ckpt"""


def run(name: str, tokens: list[str]) -> int:
    """Average; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    arguments = split(tokens, options=("output",), files=True)
    if "output" not in arguments.options:
        raise CliError("`resdomains average` needs --output FILE")
    output = Path(arguments.options["output"]).expanduser()
    if output.exists():
        raise CliError(f"--output {output}: is there already; give a new file")
    if not output.absolute().parent.is_dir():
        raise CliError(f"--output {output}: its folder does not exist")
    from resdomains.cli.averaging import write_mean

    return write_mean(arguments.files, output)
