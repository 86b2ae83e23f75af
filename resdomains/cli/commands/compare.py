"""`resdomains compare`: one table, figures and a page of several runs."""

from pathlib import Path

from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError

HELP = """\
usage: resdomains compare RUNS... [options]

Put runs of any domains on the same axes. RUNS are run folders, folders that hold some (`runs`),
globs of these, a study's name (its runs lie in runs/studies), W&B's offline files (run-<id>.wandb),
and runs in W&B: wandb:PROJECT, wandb:ENTITY/PROJECT or wandb:ENTITY/PROJECT/GROUP, where a study's
name is the group of its runs. The parts of a run that went on from a checkpoint are joined, and a
run that is found twice counts once; runs that cannot be read are named and left out. Repetitions
with other seeds are averaged, and nothing else is.

Written to the output folder: report.html (tables that sort, and all figures; it opens from disk),
runs.csv (a row each run), seeds.csv (means over seeds), figures/ as PNG and SVG, and
wandb_report.json, from which --push makes a W&B report and workspace with the same panels, now or
later: `resdomains compare comparison --push PROJECT`. Offline runs are sent with `wandb sync` first.

  --output FOLDER     where to (comparison); what an earlier comparison left there is replaced
  --x NAME            axis of the training curves: progress/samples, progress/flops,
                      progress/seconds, or step (progress/samples)
  --y NAME            what they show, by the name it is logged under (the first of train/loss,
                      val/loss and val/score that was logged)
  --title TEXT        the page's title
  --push PROJECT      send the report to W&B, as PROJECT or ENTITY/PROJECT; the runs must be there
  --format FORMAT     what is printed: table, json or csv of the means over seeds
  --traceback         show where an error comes from

examples:
  resdomains compare runs
  resdomains compare 'runs/*/degradation*' --x progress/flops --y val/skill
  resdomains compare wandb:my-team/my-project/merges --push my-team/my-project"""

OPTIONS = ("output", "x", "y", "title", "push", "format")
AXES = ("progress/samples", "progress/flops", "progress/seconds", "step")


def run(name: str, tokens: list[str]) -> int:
    """Compare; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        return 0
    arguments = split(tokens, options=OPTIONS, files=True)
    if not arguments.files:
        raise CliError("`resdomains compare` needs RUNS: run folders, such as `runs`")
    x = arguments.choice("x", AXES[0], AXES)
    kind = arguments.choice("format", "table", ("table", "json", "csv"))
    output = Path(arguments.options.get("output", "comparison")).expanduser()
    from resdomains.cli.comparing import PLAN, compare, push

    project = arguments.options.get("push")
    earlier = Path(arguments.files[0]).expanduser() / PLAN
    if project is not None and len(arguments.files) == 1 and earlier.is_file():
        return push(earlier, project)
    status = compare(
        arguments.files,
        output,
        x=x,
        y=arguments.options.get("y"),
        title=arguments.options.get("title"),
        kind=kind,
    )
    return status if project is None else push(output / PLAN, project)
