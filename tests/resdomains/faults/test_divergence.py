"""A step without bounds neither spoils a clipped run nor what was saved."""

from pathlib import Path

import pytest
import yaml

from resdomains import schema
from tests.resdomains.launching import ALONE, Finished, launch

MODULE = "tests.resdomains.faults.bad_steps"


def fit(folder: Path, task: str, data: str, epochs: int) -> Finished:
    network = {
        "class_path": "resdomains.core.ResNet1d",
        "init_args": {"in_channels": 1, "layers": [1], "channels": [8]},
    }
    trainer = {"max_epochs": epochs, "accelerator": "cpu", "precision": "32-true"}
    values = {
        "trainer": {**trainer, "log_every_n_steps": 1, "gradient_clip_val": 1.0},
        "model": {"class_path": f"{MODULE}.{task}", "init_args": {"backbone": network}},
        "data": {"class_path": f"{MODULE}.{data}", "init_args": {}},
        "run": {"wandb": {"mode": "disabled"}},
        "test_after_fit": False,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return launch([*ALONE, "fit", "--config", "run.yaml", "--plugin", MODULE], folder)


@pytest.mark.slow
def test_a_batch_a_million_times_too_large_is_forgotten(tmp_path: Path) -> None:
    losses = {}
    for data in ("Even", "Loud"):
        (tmp_path / data).mkdir()
        run = fit(tmp_path / data, "Tagging", data, 6)
        assert run.returncode == 0, run.stderr
        losses[data] = [loss for _, loss in run.curve(schema.TRAIN_LOSS)]
    assert losses["Loud"][:30] == losses["Even"][:30]
    assert losses["Loud"][30] != losses["Even"][30]
    ends = {data: sum(curve[-12:]) / 12 for data, curve in losses.items()}
    assert ends["Loud"] == pytest.approx(ends["Even"], rel=0.25)


@pytest.mark.slow
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    run = fit(tmp_path, "Steep", "Even", 1)
    assert run.returncode == 1
    assert "became infinite or NaN by step 12 (epoch 0) and is not saved. Lower" in run.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
