"""Shared parameters: the losses, weights and checkpoints of ddp, or a refusal with the reason."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy

from resdomains.cli.arguments import Arguments
from resdomains.cli.session import Session
from resdomains.training import EMA, Sharded, Task, check_sharding, load_task
from tests.resdomains.launching import ROOT
from tests.resdomains.sharded_runs import CASES, SAVED, STEPS

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [sys.executable, "-m", *launcher, "tests.resdomains.sharded_runs", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_shared_parameters_learn_what_ddp_learns(runs: Path, name: str) -> None:
    found: Results = json.loads((runs / f"{name}.json").read_text())
    whole, shared = found["ddp"], found["fsdp"]
    assert len(whole["losses"]) >= STEPS
    assert len(set(whole["losses"])) == len(whole["losses"])
    assert shared["losses"] == pytest.approx(whole["losses"], abs=1e-4, rel=0)
    assert shared["val"] == pytest.approx(whole["val"], abs=1e-5, rel=0)
    for probe in ("gradients", "contributions"):
        assert shared[probe] == pytest.approx(whole[probe], abs=1e-4, rel=1e-3, nan_ok=True)
    assert found["names"]["equal"]
    assert found["state"]["apart"] < 1e-4
    assert whole["share"] == 1.0
    assert shared["share"] < 0.7  # of two processes; buffers are whole in both


@pytest.mark.slow
def test_gradients_lie_in_buckets_of_the_size_asked_for(runs: Path) -> None:
    found: Results = json.loads((runs / "vit.json").read_text())
    usual, small = found["ddp"], found["small_buckets"]
    assert 1 <= usual["gradients lie in"] <= 2
    assert small["gradients lie in"] > 5
    assert small["losses"] == pytest.approx(usual["losses"], abs=1e-6, rel=0)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_either_goes_on_from_the_other(runs: Path, strategy: str) -> None:
    found: Results = json.loads((runs / "vit.json").read_text())
    expected = found["ddp"]["losses"][SAVED:]
    assert found[f"{strategy}_resumed"]["losses"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_checkpoint_of_shared_parameters_rebuilds_its_task(runs: Path) -> None:
    task = load_task(runs / "vit_fsdp.ckpt")
    whole = load_task(runs / "vit_ddp.ckpt")
    for one, two in zip(task.parameters(), whole.parameters(), strict=True):
        assert one.flatten().tolist() == pytest.approx(two.flatten().tolist(), abs=1e-5)


def task_of(config: str, *overrides: tuple[str, str]) -> Task:
    changes = [(tuple(key.split(".")), value) for key, value in overrides]
    session = Session(Arguments(configs=[config], overrides=changes))
    return session.task(session.data().spec)


def trainer_of(strategy: Strategy, *callbacks: Callback) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        logger=False,
        enable_checkpointing=False,
        callbacks=list(callbacks),
    )


def test_what_cannot_be_shared_out_is_refused() -> None:
    policy = task_of("rl_policy/cartpole")
    with pytest.raises(ValueError, match="RLPolicy makes its optimizer steps itself"):
        check_sharding(trainer_of(Sharded()), policy)
    digits = task_of("image_classification/digits")
    with pytest.raises(ValueError, match="EMAWeightAveraging copies the whole network"):
        check_sharding(trainer_of(Sharded(), EMAWeightAveraging()), digits)
    with pytest.raises(ValueError, match="ModelParallelStrategy does not know which modules"):
        check_sharding(trainer_of(ModelParallelStrategy()), digits)
    check_sharding(trainer_of(Sharded(), EMA()), digits)
    gated = task_of("image_classification/digits", ("model.backbone.merge", "ReZero"))
    with pytest.raises(ValueError, match=r"merge\.scale is a single number.*LayerScale"):
        check_sharding(trainer_of(Sharded()), gated)
