"""The last epochs' checkpoints, and their mean."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import TINY, Run
from .test_fitting import run_folder, summary

PLUGIN = TINY[:2]


@pytest.fixture
def kept(cli: Run) -> list[str]:
    """The checkpoints of the last three of five epochs."""
    return trained(cli, "runs")


def trained(cli: Run, root: str, *options: str) -> list[str]:
    exact = ("--trainer.precision", "32-true", "--trainer.max_epochs", "5", "--run.root", root)
    status, _, errors = cli("fit", *TINY, *exact, "--run.keep_last", "3", *options)
    assert status == 0, errors
    return sorted(map(str, (run_folder(Path(root)) / "checkpoints").glob("epoch=*.ckpt")))


def read(path: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def test_a_run_keeps_the_last_epochs_beside_best_and_last(cli: Run, kept: list[str]) -> None:
    assert [Path(path).name for path in kept] == ["epoch=02.ckpt", "epoch=03.ckpt", "epoch=04.ckpt"]
    assert [read(path)["global_step"] for path in kept] == [12, 16, 20]
    names = {path.name for path in Path(kept[0]).parent.iterdir()}
    assert names - {Path(path).name for path in kept} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    # A run that goes on keeps its own and leaves these.
    status, _, errors = cli(
        *("fit", *PLUGIN, "--ckpt_path", kept[-1], "--trainer.max_epochs", "7"),
        *("--run.root", "on", "--run.keep_last", "3"),
    )
    assert status == 0, errors
    on = run_folder(Path("on")) / "checkpoints"
    assert {path.name for path in on.glob("epoch=*")} == {"epoch=05.ckpt", "epoch=06.ckpt"}
    assert all(Path(path).is_file() for path in kept)


def test_the_number_of_an_epoch_is_no_score(cli: Run) -> None:
    trained(cli, "runs", "--trainer.check_val_every_n_epoch", "9")
    assert summary()["best"] == {}


def test_the_mean_of_weights_with_all_else_of_the_last(cli: Run, kept: list[str]) -> None:
    for number, path in enumerate(kept):
        checkpoint = read(path)
        state = checkpoint["state_dict"]
        state["head.count"] = torch.tensor(number)
        state["head.half"] = torch.tensor([1.0, 2.0, 4.0], dtype=torch.bfloat16) * (number + 1)
        torch.save(checkpoint, path)
    status, out, errors = cli("average", *reversed(kept), "--output", "mean.ckpt")
    assert status == 0, errors
    assert out == "mean of 3 checkpoints, the last of step 20, written to mean.ckpt\n"
    parts, mean = [read(path) for path in kept], read("mean.ckpt")
    for name, value in mean["state_dict"].items():
        stacked = torch.stack([part["state_dict"][name] for part in parts])
        if name == "head.count":
            assert value == 2
            continue
        assert torch.equal(value, stacked.double().mean(0).to(value.dtype)), name
        assert value.dtype == stacked.dtype
    for key in set(mean) - {"state_dict"}:
        assert str(mean[key]) == str(parts[-1][key]), key
    assert not list(Path().glob(".mean*"))


def test_every_command_reads_the_mean(cli: Run, kept: list[str]) -> None:
    assert cli("average", *kept, "--output", "mean.ckpt")[0] == 0
    Path("a.txt").write_text("-1 1")
    for command in (("test",), ("validate",), ("predict", "a.txt")):
        status, out, errors = cli(*command, *PLUGIN, "--ckpt_path", "mean.ckpt", "--format", "json")
        assert status == 0, errors
        assert json.loads(out)
    content = bytearray(Path("mean.ckpt").read_bytes())
    weight = read("mean.ckpt")["state_dict"]["backbone.layer.weight"].numpy().tobytes()
    content[content.find(weight)] ^= 1
    Path("mean.ckpt").write_bytes(content)
    status, _, errors = cli("test", *PLUGIN, "--ckpt_path", "mean.ckpt")
    assert status == 2
    assert "the checksum of its part" in errors


def test_checkpoints_of_different_runs_are_refused_by_name(cli: Run, kept: list[str]) -> None:
    def refused(other: str) -> str:
        status, _, errors = cli("average", kept[0], other, "--output", "mean.ckpt")
        assert status == 2
        assert not Path("mean.ckpt").exists()
        return errors

    for root, option, key in (
        ("wide", ("--model.backbone.width", "9"), "model.init_args.backbone.init_args.width"),
        ("seed", ("--seed", "1"), "seed"),
    ):
        other = trained(cli, root, *option)[0]
        assert refused(other) == (
            f"error: {other} and {kept[0]} cannot be averaged: they are of different runs, {key} differs\n"
        )
    checkpoint = read(kept[1])
    checkpoint["state_dict"]["head.bias"] = torch.zeros(2)
    torch.save(checkpoint, "shape.ckpt")
    assert "head.bias is (2,) in the first and (1,) in the second" in refused("shape.ckpt")
    del checkpoint["state_dict"]["head.bias"]
    torch.save(checkpoint, "missing.ckpt")
    assert "head.bias is missing in the first and (1,) in the second" in refused("missing.ckpt")
    Path("half.ckpt").write_bytes(Path(kept[1]).read_bytes()[:4000])
    assert "half.ckpt: damaged" in refused("half.ckpt")


def test_a_run_of_more_epochs_may_be_averaged_with_its_beginning(cli: Run, kept: list[str]) -> None:
    checkpoint = read(kept[1])
    checkpoint["resdomains"]["recipe"]["trainer"]["max_epochs"] = 9
    torch.save(checkpoint, "longer.ckpt")
    assert cli("average", kept[0], "longer.ckpt", "--output", "mean.ckpt")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.ckpt", "b.ckpt"), "`resdomains average` needs --output FILE"),
        (("--output", "m.ckpt"), "needs two or more different checkpoints, got none"),
        (("a.ckpt", "--output", "m.ckpt"), "two or more different checkpoints, got a.ckpt"),
        (("a.ckpt", "./a.ckpt", "--output", "m.ckpt"), "different checkpoints, got a.ckpt, ./a"),
        (("a.ckpt", "b.ckpt", "a.ckpt", "--output", "m.ckpt"), "different checkpoints, got a."),
        (("a.ckpt", "b.ckpt", "--output", "m.ckpt"), "a.ckpt: no such checkpoint file"),
        (("a.ckpt", "b.ckpt", "--output", "no/m.ckpt"), "no/m.ckpt: its folder does not exist"),
        (("a.ckpt", "b.ckpt", "--output", "tiny.yaml"), "tiny.yaml: is there already"),
    ],
)
def test_bad_input_is_one_message(cli: Run, arguments: tuple[str, ...], message: str) -> None:
    status, _, errors = cli("average", *arguments)
    assert (status, message in errors) == (2, True), errors


def test_a_negative_number_of_epochs_is_refused(cli: Run) -> None:
    status, _, errors = cli("fit", *TINY, "--run.keep_last", "-1")
    assert status == 2
    assert "keep_last must be a number of epochs, got -1" in errors
    assert not Path("runs").exists()
