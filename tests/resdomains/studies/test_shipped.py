"""Shipped studies: what they set is taken by their configs, and their setups make a training step."""

import pytest

from resdomains.cli.main import main
from resdomains.cli.yaml_files import read_config
from resdomains.plugins import find_study, shipped_studies
from resdomains.studies import read_study
from resdomains.studies.plan import PlannedRun


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_the_last_setup_of_each_base_makes_a_step(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = read_study(read_config(find_study(name)), name)
    first_seed = [run for run in study.runs if run.seed == study.runs[0].seed]
    last: dict[tuple[str, ...], PlannedRun] = {run.configs: run for run in first_seed}
    chosen = ",".join(run.id for run in last.values())
    assert main(["study", name, "--dry-run", "--only", chosen]) == 0
    out = capsys.readouterr().out
    assert f"{len(last)} runs, {len(last)} setups" in out
