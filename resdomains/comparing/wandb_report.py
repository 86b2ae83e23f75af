"""The comparison as a W&B report and workspace: the same panels over the runs that W&B holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as reports
import wandb_workspaces.workspaces as workspaces
from wandb_workspaces import expr

from resdomains import schema
from resdomains.comparing.offline import GLOBAL_STEP
from resdomains.comparing.online import connect, find_runs, naming_failures
from resdomains.comparing.runs import STEP, RecordedRun

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class ReportPlan:
    """What a report shows: plain values, so that it can be written now and sent later.

    Args:
        title: Of the report and the workspace.
        runs: For each task the ids of its runs.
        x: Axis of the training curves.
        y: What they show.
        profiled: Whether probes measured any of the runs.

    Raises:
        TypeError: If one of them is of another kind.
    """

    title: str
    runs: Mapping[str, Sequence[str]]
    x: str
    y: str
    profiled: bool

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.title, self.x, self.y)):
            raise TypeError("title, x and y must be texts")
        ids = self.runs.values() if isinstance(self.runs, Mapping) else [None]
        if not all(isinstance(of, list) and all(isinstance(i, str) for i in of) for of in ids):
            raise TypeError("runs must be a list of ids for each task")

    @classmethod
    def of(cls, runs: Sequence[RecordedRun], title: str, x: str, y: str) -> "ReportPlan":
        """Return the plan of a comparison."""
        ids: dict[str, list[str]] = {}
        for run in runs:
            ids.setdefault(str(run.facts["task"]), []).append(run.run_id)
        measured = any(run.last(schema.GRAD_RATIO) is not None for run in runs)
        return cls(title=title, runs=ids, x=x, y=y, profiled=measured)

    @property
    def ids(self) -> list[str]:
        """The ids of all runs."""
        return [run_id for of in self.runs.values() for run_id in of]

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "ReportPlan":
        """Read what `write` wrote.

        Raises:
            ValueError: If it is something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                raise ValueError("it is of another version of resdomains")
            return cls(**content)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: is no plan of a report ({error})") from error


@dataclass(frozen=True)
class Sent:
    """What W&B took.

    Args:
        report: Address of the report.
        workspace: Address of the workspace.
        asked: How many runs the plan has.
        found: How many of them W&B has.
    """

    report: str
    workspace: str
    asked: int
    found: int


def build_report(plan: ReportPlan, entity: str, project: str) -> reports.Report:
    """Return the report: skill over compute of all tasks, then each task's curves, depths and costs."""
    everything = [
        reports.Runset(
            entity=entity,
            project=project,
            name="all tasks",
            filters=expr.And(_chosen(plan.ids)),
            groupby=["config.task"],
        )
    ]
    blocks: list[Any] = [
        reports.H1("All domains"),
        reports.PanelGrid(runsets=everything, panels=_across()),
    ]
    for task, ids in plan.runs.items():
        runset = reports.Runset(
            entity=entity,
            project=project,
            name=task,
            filters=expr.And(_chosen(ids)),
            groupby=["config.config", "config.merge", "config.depth"],
        )
        blocks += [reports.H2(task), reports.PanelGrid(runsets=[runset], panels=_within(plan))]
    return reports.Report(
        entity=entity, project=project, title=plan.title, blocks=blocks, width="fluid"
    )


def build_workspace(plan: ReportPlan, entity: str, project: str) -> workspaces.Workspace:
    """Return the workspace: the report's panels over the same runs, to explore."""
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=plan.title,
        sections=[
            workspaces.Section(name="All domains", panels=_across(), is_open=True),
            workspaces.Section(name="By task", panels=_within(plan), is_open=True),
        ],
        runset_settings=workspaces.RunsetSettings(
            filters=expr.And(_chosen(plan.ids)),
            groupby=[expr.Config("task"), expr.Config("merge"), expr.Config("depth")],
        ),
    )


def send(plan: ReportPlan, entity: str, project: str) -> Sent:
    """Send report and workspace to W&B.

    Args:
        plan: What they show.
        entity: User or team; empty for the account's default.
        project: Where the runs are.

    Raises:
        ValueError: If W&B cannot be asked, has no such project, has none of the runs, or refuses.
    """
    api = connect()
    with naming_failures():
        entity = entity or str(api.default_entity)
    ids = plan.ids
    there = find_runs(api, f"{entity}/{project}", {"config.run_id": {"$in": ids}})
    if not there:
        raise ValueError(
            f"{entity}/{project} in W&B has none of the {len(ids)} runs; `wandb sync` sends offline ones"
        )
    with naming_failures():
        report = build_report(plan, entity, project).save()
        workspace = build_workspace(plan, entity, project).save()
        return Sent(str(report.url), str(workspace.url), len(ids), len(there))


def _chosen(ids: Sequence[str]) -> Any:
    """A filter that keeps these runs; a group's name would also let in what the comparison left out."""
    return expr.Config("run_id").isin(list(ids))


def _line(x: str, y: str, *, log_x: bool = False, log_y: bool = False) -> reports.LinePlot:
    return reports.LinePlot(
        title=f"{y} over {x}",
        x=x,
        y=[y],
        log_x=log_x,
        log_y=log_y,
        smoothing_type="none",
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=100,
    )


def _scatter(x: Any, y: str, *, log_x: bool = False) -> reports.ScatterPlot:
    return reports.ScatterPlot(x=x, y=reports.SummaryMetric(y), log_x=log_x)


def _across() -> list[Any]:
    """Panels whose axes all tasks share; the run set groups by task."""
    return [
        _line(schema.FLOPS, schema.VAL_SKILL, log_x=True),
        _line(schema.SAMPLES, schema.VAL_SKILL, log_x=True),
        _line(schema.SECONDS, schema.VAL_SKILL),
    ]


def _within(plan: ReportPlan) -> list[Any]:
    """Panels of one task; the run set groups by config, merge and depth."""
    panels = [
        _line(GLOBAL_STEP if plan.x == STEP else plan.x, plan.y),
        _line(schema.FLOPS, schema.VAL_SCORE),
        _scatter(reports.Config("depth"), schema.VAL_SCORE, log_x=True),
        _scatter(reports.Config("depth"), schema.PEAK_MEMORY, log_x=True),
        _scatter(reports.Config("depth"), schema.STEP_SECONDS, log_x=True),
        _scatter(reports.SummaryMetric(schema.PEAK_MEMORY), schema.VAL_SCORE),
        _scatter(reports.SummaryMetric(schema.SAMPLES_PER_SECOND), schema.VAL_SCORE),
    ]
    if plan.profiled:
        panels.append(_line(schema.SAMPLES, schema.GRAD_RATIO, log_y=True))
        panels.append(_line(schema.SAMPLES, schema.CONTRIBUTION_MEAN, log_y=True))
    return panels
