"""`resdomains slurm-script`: print the script that trains on Slurm."""

from importlib import resources

from resdomains.cli.arguments import split

HELP = """\
usage: resdomains slurm-script > train.sbatch

Print a script for Slurm's sbatch, which trains and goes on when its job was pre-empted or its time
was up. Adapt its #SBATCH lines (partition, GPUs, time) to the cluster, then:

  sbatch train.sbatch --config image_classification/digits --trainer.max_epochs 100"""


def run(name: str, tokens: list[str]) -> int:
    """Print the script; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    split(tokens)
    print((resources.files("resdomains.cli") / "slurm.sbatch").read_text(encoding="utf-8"), end="")
    return 0
