"""The launcher on environments: from an id to a film, and a policy that plays."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import Run
from .test_fitting import run_folder

SHORT = (
    *("--config", "rl_policy/cartpole", "--run.wandb.mode", "disabled"),
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", "2"),
    *("--trainer.enable_progress_bar", "false"),
    *("--data.num_environments", "4", "--data.batch_size", "64", "--data.epoch_steps", "256"),
    *("--data.val_episodes", "3", "--data.test_episodes", "2"),
)


def test_an_environment_becomes_a_film_and_a_policy_that_plays(cli: Run) -> None:
    probes = ("--config", "probes/all", "--trainer.callbacks.1.every_n_steps", "16")
    status, out, errors = cli("fit", *SHORT, *probes)
    assert status == 0, errors
    folder = run_folder()
    with Image.open(folder / "pictures" / "test_episode.gif") as film:
        assert (film.size, getattr(film, "n_frames", 1) > 1) == ((300, 200), True)
    for name in ("returns", "lengths", "best_and_worst"):
        assert (folder / "pictures" / f"test_{name}.png").is_file()
    with (folder / "tables" / "test_episodes.csv").open() as file:
        assert {row["seed"] for row in csv.DictReader(file)} == {"2000000", "2000001"}
    with (folder / "metrics.csv").open() as file:
        logged = list(csv.DictReader(file))
    assert {"train/return", "train/kl", "val/return", "test/return_sampled"} <= set(logged[0])
    # Every iteration makes 8 optimizer steps: a probe of every 16th observes every second one.
    observed = [row for row in logged if row["residual/contribution_mean"]]
    assert len(observed) == 4
    best = str(folder / "checkpoints" / "best.ckpt")

    status, out, errors = cli("predict", "--ckpt_path", best, "--episodes", "2", "--format", "json")
    assert status == 0, errors
    played = [json.loads(line) for line in out.splitlines()]
    assert [record["seed"] for record in played] == [0, 1]
    assert all(record["return"] == record["length"] for record in played)
    rows = np.zeros((3, 4), np.float32)
    np.save("seen.npy", rows)
    status, out, errors = cli("predict", "--ckpt_path", best, "seen.npy", "--format", "json")
    assert status == 0, errors
    assert [json.loads(line)["source"] for line in out.splitlines()] == [
        f"seen.npy[{row}]" for row in range(3)
    ]
    status, _, errors = cli("predict", "--ckpt_path", best, "seen.npy", "--episodes", "0")
    assert (status, "--episodes 0: must be at least 1, got 0" in errors) == (2, True)


def test_a_number_of_updates_ends_a_run_and_its_schedule(cli: Run) -> None:
    # An iteration of 64 steps in minibatches of 32 makes 4 updates in 2 epochs.
    small = (
        *("--model.algorithm.minibatch_size", "32", "--model.algorithm.epochs", "2"),
        *("--model.optimization.lr", "3e-3"),
    )
    status, _, errors = cli("fit", *SHORT, *small, "--trainer.max_steps", "10")
    assert status == 0, errors
    with (run_folder() / "metrics.csv").open() as file:
        rates = [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]
    # As the rate stands after each of three iterations: it falls to 0 in a straight line, begun at 2/3.
    assert rates == pytest.approx([3e-3 / 3, 0, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (
            "fit",
            ("--trainer.gradient_clip_val", "1"),
            "trainer.gradient_clip_val: RLPolicy makes its optimizer steps itself; "
            "it clips by --model.algorithm.max_gradient_norm (now 0.5)",
        ),
        (
            "fit",
            ("--trainer.accumulate_grad_batches", "2"),
            "trainer.accumulate_grad_batches: RLPolicy makes its optimizer steps itself",
        ),
        (
            "fit",
            ("--trainer.callbacks", "LearningRateFinder"),
            "trainer.callbacks: LearningRateFinder changes optimizer steps, and RLPolicy makes them",
        ),
        (
            "fit",
            ("--model.backbone", "resnet20"),
            "model: backbone ResNet2d cannot read a vector of 4",
        ),
        ("lr-find", (), "lr-find: RLPolicy optimises by hand"),
        (
            "fit",
            ("--data.environment", "CartPol-v1"),
            "knows no environment 'CartPol-v1'; near are",
        ),
    ],
)
def test_what_a_policy_cannot_follow_is_refused(
    cli: Run, command: str, options: tuple[str, ...], message: str
) -> None:
    status, _, errors = cli(command, *(SHORT if command == "fit" else SHORT[:2]), *options)
    assert (status, message in errors) == (2, True), errors
    assert not list(Path("runs").rglob("config.yaml"))
