"""`resdomains study`: a grid of runs from one file."""

import os
from pathlib import Path

from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError
from resdomains.cli.yaml_files import read_config
from resdomains.plugins import find_config, find_study

HELP = """\
usage: resdomains study STUDY [options]

STUDY is a file, or the name of a shipped study (`resdomains configs`). Its runs are run, a few at a
time, then compared. Started again, it goes on: runs that finished are not repeated, interrupted ones
continue from their newest checkpoint. A run that fails is reported with the last lines of its log,
and the others go on.

The file (YAML):

  seeds: [0, 1, 2]
  set: {trainer.max_epochs: 5}                     # keys of all runs, as on the command line
  axes:
    model.backbone.merge: [Add, BranchOnly]        # a key and its values, or a name and labels:
    size:
      small: {model.backbone.layers: [1, 1, 1]}
      large: {model.backbone.layers: [9, 9, 9]}
  bases:                                           # each may have set and axes of its own
    - config: image_classification/digits
      leave_out:
        - {size: large, because: too slow here}
  minutes: 5                                       # how long a run may take
  compare: {x: progress/flops, y: val/skill}       # the comparison at the end

  --dry-run           list the runs and what each costs: parameters, samples, FLOPs, and memory of a
                      training step beside the weights, measured on a few samples; nothing is trained
  --jobs N            how many run at a time (1, or the number of GPUs); each has its share of the
                      cores, or a GPU
  --root FOLDER       where studies lie (runs/studies): FOLDER/<study>/<task>/<config>/<run>
  --traceback         show where an error comes from

examples:
  resdomains study my_study.yaml --dry-run
  resdomains study my_study.yaml --jobs 2
  resdomains compare runs/studies/my_study"""


def run(name: str, tokens: list[str]) -> int:
    """Run a study; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    dry = "--dry-run" in tokens
    rest = [token for token in tokens if token != "--dry-run"]
    arguments = split(rest, options=("jobs", "root"), files=True)
    if len(arguments.files) != 1:
        raise CliError("`resdomains study` needs one STUDY: a file, or one of `resdomains configs`")
    path = find_study(arguments.files[0])
    from resdomains.studies import read_study

    try:
        study = read_study(read_config(path), path.stem)
    except ValueError as error:
        raise CliError(f"{path}: {error}") from error
    for config in sorted({config for run in study.runs for config in run.configs}):
        find_config(config)
    if dry:
        from resdomains.cli.costs import show_costs

        return show_costs(study)
    from resdomains.cli.studying import carry_out

    gpus = _gpus()
    root = Path(arguments.options.get("root", "runs/studies")).expanduser()
    return carry_out(study, root / study.name, arguments.number("jobs", max(gpus, 1)), gpus)


def _gpus() -> int:
    """How many GPUs may be used, without loading torch into a process that only waits."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return len([part for part in said.split(",") if part.strip()])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
