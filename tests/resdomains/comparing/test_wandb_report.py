"""The plan of a W&B report becomes a report and a workspace of W&B's own library."""

import json
from pathlib import Path
from typing import Any

import pytest

from resdomains.comparing.wandb_report import ReportPlan, build_report, build_workspace
from tests.resdomains.comparing.recorded import record, walk


def plan() -> ReportPlan:
    runs = [record("one"), record("two", task="texts"), record("three", task="texts")]
    return ReportPlan.of(runs, "Merges", "progress/samples", "train/loss")


def spec(built: Any) -> list[dict[str, Any]]:
    # W&B's library has no public way to the JSON that it sends; this test alone looks.
    return walk(built._to_model().model_dump(by_alias=True, exclude_none=True))


@pytest.mark.parametrize("build", [build_report, build_workspace])
def test_panels_are_over_the_shared_axes_and_runs_are_those_compared(build: Any) -> None:
    found = spec(build(plan(), "", "resdomains"))
    lines = {
        (part["config"]["xAxis"], *part["config"]["metrics"])
        for part in found
        if part.get("viewType") == "Run History Line Plot"
    }
    assert ("progress/flops", "val/skill") in lines
    assert ("progress/samples", "train/loss") in lines
    assert ("progress/samples", "residual/grad_ratio") in lines
    filters = [part for part in found if part.get("op") == "IN"]
    assert filters[0]["value"] == ["one", "two", "three"]
    assert all(part["key"]["name"] == "run_id" for part in filters)


def test_a_report_has_a_run_set_for_each_task() -> None:
    parts = [part for part in spec(build_report(plan(), "", "p")) if "runFeed" in part]
    assert [part["name"] for part in parts] == ["all tasks", "image_classification", "texts"]
    chosen = [part["filters"]["filters"][0]["value"] for part in parts]
    assert chosen == [["one", "two", "three"], ["one"], ["two", "three"]]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    plan().write(path)
    assert ReportPlan.read(path) == plan()


WHOLE = {"format": 1, "title": "t", "x": "x", "y": "y", "profiled": False, "runs": {"a": ["b"]}}


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", '{"format": 2}', '{"format": 1, "x": 3}'),
        *(json.dumps(WHOLE | {"runs": runs}) for runs in (3, ["a"], {"a": "b"}, {"a": [1]})),
        json.dumps(WHOLE | {"title": 3}),
    ],
)
def test_other_files_are_refused_as_plans(content: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is no plan of a report"):
        ReportPlan.read(path)
