"""A study as a sweep of Weights & Biases, whose agents share out its runs."""

from collections.abc import Sequence
from typing import Any

from resdomains import schema
from resdomains.studies.plan import Study


def sweep_of(study: Study, name: str, options: Sequence[str] = ()) -> dict[str, Any]:
    """Return what `wandb sweep` takes: a grid over the study's runs, each started by `resdomains study`.

    Args:
        study: The study.
        name: What the command calls it: a file, or the name of a shipped study.
        options: Further options of the command.
    """
    return {
        "name": study.name,
        "project": project_of(study),
        "program": "resdomains",
        # The agent puts the run in place of the last: --only=ID
        "command": ["${env}", "${program}", "study", name, *options, "${args}"],
        "method": "grid",
        "metric": {"name": schema.VAL_SCORE, "goal": "maximize"},
        "parameters": {"only": {"values": [run.id for run in study.runs]}},
    }


def project_of(study: Study) -> str:
    """The project that the runs name, which a sweep sets for all of them.

    Raises:
        ValueError: If they name several.
    """
    projects = {str(run.settings.get("run.wandb.project", "resdomains")) for run in study.runs}
    if len(projects) > 1:
        raise ValueError(
            f"run.wandb.project: a sweep is in one project, the runs name {', '.join(sorted(projects))}"
        )
    return projects.pop()
