"""`resdomains study`: a grid of runs from one file."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from resdomains.cli.arguments import Arguments, split
from resdomains.cli.errors import CliError
from resdomains.cli.yaml_files import read_config, read_text
from resdomains.plugins import find_config, find_study

if TYPE_CHECKING:
    from resdomains.studies import Executor, Study

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
  --only NAME,...     run these alone: ids as in --dry-run, or patterns, such as '*seed0*' or
                      'image_classification/digits/*'; they are not compared at the end
  --jobs N            how many run at a time (1, or the number of GPUs); each has its share of the
                      cores, or a GPU
  --root FOLDER       where studies lie (runs/studies): FOLDER/<study>/<task>/<config>/<run>
  --executor slurm    send the runs to Slurm; --jobs is then how many are queued or run at a time (all)
  --slurm.KEY VALUE   what a job asks of Slurm, by submitit's names: partition, gpus_per_node,
                      cpus_per_task, mem_gb, timeout_min (the study's minutes, or a day), ...
  --sweep             print a sweep for `wandb sweep`, whose agents share out the runs
  --traceback         show where an error comes from

Ctrl-C stops local runs with their state saved; jobs of Slurm go on, and the same command finds them.

examples:
  resdomains study my_study.yaml --dry-run
  resdomains study my_study.yaml --jobs 2
  resdomains study my_study.yaml --executor slurm --slurm.partition gpu --slurm.gpus_per_node 1
  resdomains study my_study.yaml --sweep > sweep.yaml
  resdomains compare runs/studies/my_study"""

_SWITCHES = ("dry-run", "sweep")
_OPTIONS = ("jobs", "root", "only", "executor")


def run(name: str, tokens: list[str]) -> int:
    """Run a study; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    arguments = split(tokens, options=_OPTIONS, switches=_SWITCHES, roots=("slurm",), files=True)
    if len(arguments.files) != 1:
        raise CliError("`resdomains study` needs one STUDY: a file, or one of `resdomains configs`")
    path = find_study(arguments.files[0])
    from resdomains.studies import ROOT, chosen, read_study

    try:
        study = read_study(read_config(path), path.stem)
    except ValueError as error:
        raise CliError(f"{path}: {error}") from error
    only = arguments.options.get("only")
    if only is not None:
        try:
            study = chosen(study, [part.strip() for part in only.split(",")])
        except ValueError as error:
            raise CliError(f"--only {error}") from error
    if "sweep" in arguments.switches:
        return _print_sweep(study, arguments)
    for config in sorted({config for run in study.runs for config in run.configs}):
        find_config(config)
    if "dry-run" in arguments.switches:
        from resdomains.cli.costs import show_costs

        status = show_costs(study)
        print("\nwhat --only takes:")
        for planned in study.runs:
            print(f"  {planned.id}: {planned.title}")
        return status
    from resdomains.cli.studying import carry_out

    root = Path(arguments.options.get("root", ROOT)).expanduser() / study.name
    return carry_out(study, root, _executor(study, root, arguments), comparing=only is None)


def _executor(study: "Study", root: Path, arguments: Arguments) -> "Executor":
    kind = arguments.choice("executor", "local", ("local", "slurm"))
    settings = {".".join(keys[1:]): text for keys, text in arguments.overrides}
    if kind == "local":
        if settings:
            raise CliError(f"--slurm.{next(iter(settings))} needs --executor slurm")
        from resdomains.studies.local import LocalExecutor, visible_gpus

        gpus = visible_gpus(os.environ)
        return LocalExecutor(arguments.number("jobs", max(len(gpus), 1)), gpus, study.minutes)
    from resdomains.studies.slurm import SETTINGS, SlurmError, SlurmExecutor

    jobs = arguments.number("jobs", len(study.runs))
    values = {
        key: text if SETTINGS.get(key, str) is str else read_text(text, f"--slurm.{key}")
        for key, text in settings.items()
    }
    try:
        return SlurmExecutor(root, values, jobs=jobs, minutes=study.minutes)
    except (ValueError, SlurmError) as error:
        raise CliError(f"--executor slurm: {error}") from error
    except ImportError as error:
        raise CliError(
            f"--executor slurm: {error}; pip install 'resdomains[slurm]' brings what it needs"
        ) from error


def _print_sweep(study: "Study", arguments: Arguments) -> int:
    from resdomains.studies.sweeps import sweep_of

    root = arguments.options.get("root")
    beside = [] if root is None else ["--root", root]
    try:
        sweep = sweep_of(study, arguments.files[0], beside)
    except ValueError as error:
        raise CliError(str(error)) from error
    said = shlex.join(["resdomains", "study", arguments.files[0], "--sweep"])
    print(f"# The runs of a study, shared out by W&B's agents; what `{said}` prints.")
    print(
        "#   wandb sweep THIS_FILE; wandb agent ENTITY/PROJECT/ID     (on any number of machines)"
    )
    print(yaml.safe_dump(sweep, sort_keys=False), end="")
    return 0
