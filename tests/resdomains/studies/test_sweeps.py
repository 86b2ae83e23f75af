"""W&B's own agent runs a study's runs, each as the run that the sweep began; shipped sweeps are their studies'."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from resdomains.cli.main import main
from resdomains.plugins import shipped_studies
from resdomains.studies import read_study
from resdomains.studies.sweeps import sweep_of
from resdomains.training import WandbOptions
from tests.resdomains.launching import ROOT, surroundings
from tests.resdomains.wandb_server import WandbServer

SWEEPS = ROOT / "configs" / "sweeps"
STUDY: dict[str, Any] = {
    "set": {
        "trainer.max_epochs": 1,
        "trainer.accelerator": "cpu",
        "trainer.limit_val_batches": 1,
        "model.backbone.channels": [8, 16],
        "model.backbone.layers": [1, 1],
        "test_after_fit": False,
    },
    "seeds": [0, 1],
    "bases": [{"config": ["image_classification/digits", "trainer/float32"]}],
}


class Sweeper(WandbServer):
    """A server with one sweep, of which it gives an agent one run."""

    def __init__(self, sweep: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        super().__init__()
        self.sweep = sweep
        args = {name: {"value": value} for name, value in values.items()}
        run = {"type": "run", "run_id": "fromsweep", "program": sweep["program"], "args": args}
        self.commands: list[dict[str, Any]] = [run]
        self.of_sweep: dict[str, str | None] = {}

    def _sweep_with_runs(self, _: Mapping[str, Any]) -> dict[str, Any]:
        sweep = {"id": "s", "name": "sweep1", "config": yaml.safe_dump(dict(self.sweep))}
        return {"project": {"sweep": {**sweep, "runs": {"edges": []}}}}

    def _create_agent(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"createAgent": {"agent": {"id": "a"}}}

    def _heartbeat(self, values: Mapping[str, Any]) -> dict[str, Any]:
        given = json.dumps([self.commands.pop()] if self.commands else [])
        return {"agentHeartbeat": {"agent": {"id": values["id"]}, "commands": given}}

    def _upsert_bucket(self, values: Mapping[str, Any]) -> dict[str, Any]:
        self.of_sweep.setdefault(values["name"], values.get("sweep"))
        return super()._upsert_bucket(values)


@pytest.mark.slow
def test_an_agent_runs_a_run_of_the_study_as_the_sweeps_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    monkeypatch.chdir(tmp_path)
    assert main(["study", "small.yaml", "--sweep"]) == 0
    sweep = yaml.safe_load(capsys.readouterr().out)
    [_, second] = sweep["parameters"]["only"]["values"]
    with Sweeper(sweep, {"only": second}) as server:
        server.log_in(monkeypatch)
        path = f"{Path(sys.executable).parent}:{surroundings()['PATH']}"
        agent = subprocess.run(
            [sys.executable, "-m", "wandb", "agent", "--count", "1", "someone/shared/sweep1"],
            env={**surroundings(), "PYTHONPATH": str(ROOT), "PATH": path},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert f"1/1  finished: image_classification/digits, seed 1 ({second})" in agent.stdout
        assert list(server.runs) == ["fromsweep"]
        assert server.of_sweep == {"fromsweep": "sweep1"}
        [run] = server.runs.values()
    [summary] = tmp_path.glob(f"runs/studies/small/*/*/{second}/summary.json")
    ours = json.loads(summary.read_text())
    assert run.project == "shared"  # that of the sweep
    assert run.group == "small"
    assert run.exit_code == 0
    assert run.config["run_id"]["value"] == ours["run_id"] != "fromsweep"
    assert run.config["seed"]["value"] == 1
    assert run.summary["val/score"] == ours["final"]["val/score"]


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_a_shipped_sweep_is_that_of_its_study(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", name, "--sweep"]) == 0
    assert (SWEEPS / f"{name}.yaml").read_text() == capsys.readouterr().out


def test_there_is_no_sweep_without_its_study() -> None:
    assert {path.stem for path in SWEEPS.glob("*.yaml")} <= {*shipped_studies()}


def test_the_project_is_that_of_the_runs() -> None:
    assert sweep_of(read_study(STUDY, "small"), "small")["project"] == WandbOptions().project
    named = {**STUDY, "set": {**STUDY["set"], "run.wandb.project": "mine"}}
    assert sweep_of(read_study(named, "small"), "small")["project"] == "mine"
    several = {**STUDY, "axes": {"run.wandb.project": ["mine", "yours"]}}
    with pytest.raises(ValueError, match="a sweep is in one project, the runs name mine, yours"):
        sweep_of(read_study(several, "small"), "small")
