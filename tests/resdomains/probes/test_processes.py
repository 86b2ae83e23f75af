"""Two processes find what one finds, and the first one writes. The runs here are the real command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.resdomains.probes.toy import rows

pytestmark = pytest.mark.slow

# Normalised by item, so that a batch in two halves computes what the whole one does.
DIGITS = [
    *("--config", "image_classification/digits", "--config", "trainer/float32"),
    *("--config", "probes/all", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
    *("--model.backbone.layers", "[2, 2]", "--model.backbone.channels", "[8, 16]"),
    *("--model.backbone.norm", "LayerNorm", "--test_after_fit", "false"),
    *("--data.val_fraction", "0.07", "--run.wandb.mode", "disabled"),
]
ALIKE = {"gradients": ["gradient_norm"], "contribution": ["contribution", "response_std"]}


def fit(root: Path, *arguments: str) -> Path:
    """Train with all probes; returns the folder of their files."""
    command = [sys.executable, "-m", "resdomains.cli", "fit", *DIGITS, "--run.root", str(root)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=240, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [folder] = root.glob("*/*/*/probes")
    return folder


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    one = fit(tmp_path / "one")
    two = fit(tmp_path / "two", "--config", "trainer/ddp", "--trainer.devices", "2")
    for name, columns in ALIKE.items():
        first, second = rows(one / f"{name}.csv"), rows(two / f"{name}.csv")
        assert (
            len(first) == len(second) == 4
        )  # an epoch of 20 steps, of which the first is measured
        for a, b in zip(first, second, strict=True):
            for column in columns:
                assert float(a[column]) == pytest.approx(float(b[column]), rel=1e-3), column
    for a, b in zip(rows(one / "lesion.csv"), rows(two / "lesion.csv"), strict=True):
        assert a["lesion"] == b["lesion"]
        assert float(a["score_without"]) == pytest.approx(float(b["score_without"]), abs=0.03)
    # Each process draws directions of its own, and measures on its own batches.
    for a, b in zip(rows(one / "gain.csv"), rows(two / "gain.csv"), strict=True):
        assert float(a["gain"]) == pytest.approx(float(b["gain"]), rel=0.1)
    assert rows(one / "removal.csv")[0].keys() == rows(two / "removal.csv")[0].keys()

    checkpoint = two.parent / "checkpoints" / "best.ckpt"
    command = [sys.executable, "-m", "resdomains.cli", "probe", "--ckpt_path", str(checkpoint)]
    pair = ["--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.accelerator", "cpu"]
    done = subprocess.run(
        [*command, *pair, "--run.wandb.mode", "disabled", "--probes", "lesion,gain"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tables and figures") == 1
    probed = rows(two / "best" / "lesion.csv")
    for a, b in zip(rows(two / "lesion.csv"), probed, strict=True):
        assert float(a["score_without"]) == pytest.approx(float(b["score_without"]), abs=1e-6)
