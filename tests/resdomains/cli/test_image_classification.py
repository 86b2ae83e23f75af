"""The launcher on a shipped config, from its name to a prediction."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from resdomains.training import load_task
from resdomains.training.precision import choose_precision

from .conftest import Run
from .test_fitting import run_folder

DIGITS = ("--config", "image_classification/digits")


@pytest.mark.slow
def test_digits_from_config_to_prediction(cli: Run) -> None:
    pillow = pytest.importorskip("PIL.Image")
    status, _, errors = cli(
        "fit", *DIGITS, "--trainer.max_epochs", "1", "--model.backbone.merge", "Highway"
    )
    assert status == 0, errors
    pillow.fromarray(np.zeros((8, 8), np.uint8)).save("zero.png")
    best = str(run_folder() / "checkpoints" / "best.ckpt")
    records = {}
    for precision in ("32", "bf16", "auto"):
        status, out, errors = cli(
            "predict", "--ckpt_path", best, "zero.png", "--format", "json", "--precision", precision
        )
        assert status == 0, errors
        records[precision] = json.loads(out)
    assert records["32"]["source"] == "zero.png"
    assert records["32"]["probability"] == pytest.approx(unfolded(best, "zero.png"), abs=1e-5)
    assert records["bf16"]["probability"] == pytest.approx(records["32"]["probability"], abs=0.05)
    assert records["bf16"]["probability"] != records["32"]["probability"]
    chosen = "bf16" if choose_precision("cpu").name == "bf16-mixed" else "32"
    assert records["auto"] == records[chosen]
    assert Path("runs/image_classification/digits").is_dir()


def unfolded(checkpoint: str, picture: str) -> float:
    """The probability by the network as it was trained, in float32."""
    task = load_task(checkpoint)
    with torch.inference_mode():
        (record,) = task.predict(task.collate(list(task.read([str(picture)]))))
    value: float = record["probability"]
    return value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model.backbone.merg", "Highway"),
            "model.backbone.merg: unknown key; did you mean 'merge'?",
        ),
        (("--model.backbone.merge", "Higway"), "no Merge named 'Higway'; did you mean 'Highway'?"),
        (
            ("--model.backbone.merge", "DropPath", "--model.backbone.merge.merge.bias", "1"),
            "model.backbone.merge.merge.bias: unknown key; keys of Add:",
        ),
        (
            ("--model.backbone.merge", "DropPath", "--model.backbone.merge.p", "often"),
            "model.backbone.merge.p: expected a number, got 'often'",
        ),
        (("--model.backbone.in_channels", "3"), "model: backbone takes pictures of 3 channels"),
        (("--model.backbone.merge", "DeepNorm"), "model.backbone: "),
    ],
)
def test_bad_keys_at_every_depth(cli: Run, options: tuple[str, ...], message: str) -> None:
    status, _, errors = cli("fit", *DIGITS, *options)
    assert (status, message in errors) == (2, True), errors
    assert not Path("runs").exists()
