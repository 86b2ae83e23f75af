"""Going on from a checkpoint: nothing changes silently."""

import csv
import pickle
from pathlib import Path

import pytest
import torch

from resdomains.cli.errors import CliError
from resdomains.cli.resume import check_spec

from .conftest import TINY, Run
from .test_fitting import run_folder, with_callbacks


@pytest.fixture
def last(cli: Run) -> str:
    """The last checkpoint of a run of two epochs."""
    assert cli("fit", *TINY, "--run.root", "first")[0] == 0
    return str(run_folder(Path("first")) / "checkpoints" / "last.ckpt")


def rates(root: str) -> list[float]:
    with (run_folder(Path(root)) / "metrics.csv").open() as file:
        return [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]


def test_changed_keys_are_reported(cli: Run, last: str) -> None:
    status, out, errors = cli(
        "fit", *TINY, "--ckpt_path", last, "--trainer.max_epochs", "4", "--seed", "1"
    )
    assert status == 0, errors
    assert "changed  seed: 0 -> 1" in out
    assert "changed  trainer.max_epochs: 2 -> 4" in out


def test_a_changed_learning_rate_is_applied(cli: Run, last: str) -> None:
    constant = ("--model.optimization.schedule", "resdomains.training.Constant")
    for root, options in {"same": (), "other": ("--model.optimization.lr", "0.02")}.items():
        status, _, errors = cli(
            "fit", *TINY, *constant, *options, "--ckpt_path", last,
            "--trainer.max_epochs", "3", "--run.root", root,
        )  # fmt: skip
        assert status == 0, errors
    assert set(rates("same")) == {0.1}
    assert set(rates("other")) == {0.02}


def test_momentum_and_weight_decay_are_applied_and_the_state_stays(cli: Run, last: str) -> None:
    status, _, errors = cli(
        "fit", *TINY, "--ckpt_path", last, "--trainer.max_epochs", "3", "--run.root", "second",
        "--model.optimization.optimizer.weight_decay", "0.03",
        "--model.optimization.optimizer.momentum", "0.5",
    )  # fmt: skip
    assert status == 0, errors
    path = run_folder(Path("second")) / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)["optimizer_states"][0]
    assert {group["momentum"] for group in state["param_groups"]} == {0.5}
    # Biases get no weight decay, before and after.
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.03, 0.0}
    assert all("momentum_buffer" in values for values in state["state"].values())


# Lightning says that the schedule by steps, which it replaces, is none by epochs.
@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_a_schedule_that_a_callback_brought_goes_on(cli: Run) -> None:
    """From epoch 2 on, the averager's own holds the rate at 0.03, and so it does in epoch 3."""
    added = with_callbacks(
        (
            "StochasticWeightAveraging",
            {"swa_lrs": 0.03, "swa_epoch_start": 1, "annealing_epochs": 1},
        )
    )
    status, _, errors = cli("fit", *TINY, *added, "--trainer.max_epochs", "3")
    assert status == 0, errors
    whole = run_folder(Path("runs"))
    last = str(whole / "checkpoints" / "last.ckpt")
    status, _, errors = cli(
        "fit", *TINY, *added, "--ckpt_path", last, "--trainer.max_epochs", "4", "--run.root", "on",
        "--model.optimization.optimizer.momentum", "0.5",
    )  # fmt: skip
    assert status == 0, errors
    path = run_folder(Path("on")) / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)["optimizer_states"][0]
    assert {group["momentum"] for group in state["param_groups"]} == {0.5}
    assert rates("on")[-1] == pytest.approx(0.03)


def test_a_checkpoint_alone_is_enough(cli: Run, last: str) -> None:
    status, out, errors = cli(
        "fit", "--plugin", "tiny_domain", "--ckpt_path", last, "--trainer.max_epochs", "3"
    )
    assert status == 0, errors
    assert "run      first" not in out
    assert list(Path("runs/tiny/tiny").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--model.backbone.width", "9"),
            "model.backbone.width: is 9, the checkpoint was trained with 8",
        ),
        (
            ("--model.optimization.optimizer", "torch.optim.AdamW"),
            "model.optimization.optimizer.class_path: is torch.optim.AdamW, the checkpoint was trained"
            " with torch.optim.SGD",
        ),
        (
            ("--model.optimization.frozen", "0"),
            "model.optimization.frozen: is 0, the checkpoint was trained with None",
        ),
        (
            ("--config", "image_classification/digits"),
            "model.class_path: is resdomains_tasks.image_classification.ImageClassification",
        ),
    ],
)
def test_a_change_that_the_state_cannot_follow_is_refused(
    cli: Run, last: str, options: tuple[str, ...], message: str
) -> None:
    tiny = TINY if options[0] != "--config" else TINY[:2]
    status, _, errors = cli("fit", *tiny, *options, "--ckpt_path", last)
    assert (status, message in errors) == (2, True), errors


class _Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["fit", "test", "validate", "predict"])
def test_code_in_a_checkpoint_is_never_run(cli: Run, folder: Path, name: str) -> None:
    path = folder / "planted.ckpt"
    with path.open("wb") as file:
        pickle.dump({"state_dict": _Planted()}, file, protocol=2)
    more = (str(folder),) if name == "predict" else TINY[2:]
    status, _, errors = cli(name, "--plugin", "tiny_domain", "--ckpt_path", str(path), *more)
    assert status == 2
    assert "could run code" in errors
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["classes", "observations", "action"])
def test_data_of_another_language_are_refused(name: str) -> None:
    check_spec({name: ["a"], "mean": 0.1}, {name: ["a"], "mean": 0.2})
    with pytest.raises(CliError, match=rf"data: {name} differ .*: \['b'\], trained with \['a'\]"):
        check_spec({name: ["a"]}, {name: ["b"]})
