"""A loader's process that dies, hangs or meets a bad sample ends the run with its name, and is not left behind."""

import os
from pathlib import Path

import pytest
import yaml
from pytorch_lightning import Trainer

from resdomains.cli.failures import explain_failure
from resdomains.training import Run, RunOptions, WandbOptions
from tests.resdomains.faults.bad_workers import Unusable
from tests.resdomains.launching import ALONE, end, start

MODULE = "tests.resdomains.faults.bad_workers"


def config(data: str, workers: int) -> str:
    """A tiny run over data of `bad_workers`."""
    network = {
        "class_path": "resdomains.core.ResNet1d",
        "init_args": {"in_channels": 1, "layers": [1], "channels": [8]},
    }
    values = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "model": {"class_path": f"{MODULE}.Tagging", "init_args": {"backbone": network}},
        "data": {"class_path": f"{MODULE}.{data}", "init_args": {"num_workers": workers}},
        "run": {"wandb": {"mode": "disabled"}},
    }
    return yaml.safe_dump(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("Killed", " killed, as the system does where memory runs out: lower --data.num_workers "),
        ("Hanging", "no loader worker gave a batch within 3 s: reading hangs, or takes "),
    ],
)
def test_a_worker_that_dies_or_hangs_ends_the_run_and_is_not_left_behind(
    data: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text(config(data, 2))
    fit = ["fit", "--config", "bad.yaml", "--plugin", MODULE, "--run.data_timeout", "3"]
    process = start([*ALONE, *fit], tmp_path)
    run = end(process, tmp_path)
    assert run.returncode == 1
    assert run.stderr.startswith("error: data: ")
    assert message in run.stderr
    assert "--data.num_workers 0 reads in the training process and shows w" in run.stderr
    assert "Traceback" not in run.stderr
    assert run.summary["status"] == "failed"
    # The run led a session of its own, and nobody of it is left.
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_bad_sample_keeps_its_name_on_the_way_out_of_a_worker(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as raised:
        list(Unusable(num_workers=1).train_dataloader())
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    run = Run.create(RunOptions(tmp_path, wandb=WandbOptions(mode="disabled")), "tones", "tiny")
    said = explain_failure(raised.value, run, trainer, "  go on with: it")
    assert said == "data: tone 7: cannot be heard\n  go on with: it"


def test_waiting_takes_no_negative_time() -> None:
    with pytest.raises(ValueError, match=r"data_timeout must be seconds, or 0 .*, got -1"):
        RunOptions(data_timeout=-1)
