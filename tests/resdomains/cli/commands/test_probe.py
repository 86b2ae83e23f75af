"""`resdomains probe` on real runs of a tiny network on digits."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resdomains.cli.main import main
from resdomains.cli.probing import block_table

Run = Callable[..., tuple[int, str, str]]
DIGITS = (
    *("--config", "image_classification/digits", "--config", "trainer/float32"),
    *("--model.backbone.layers", "[2,2]", "--model.backbone.channels", "[8,16]"),
    *("--trainer.max_epochs", "1", "--run.wandb.mode", "disabled"),
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, trained with all probes on."""
    root = tmp_path_factory.mktemp("runs")
    arguments = [*DIGITS, "--config", "probes/all", "--run.root", str(root)]
    assert main(["fit", *arguments, "--trainer.accelerator", "cpu"]) == 0
    [folder] = root.glob("*/*/*")
    return folder


@pytest.fixture
def probe(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command on the run's checkpoint, in this process: its status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        path = str(run_folder / "checkpoints" / "best.ckpt")
        options = ("--trainer.accelerator", "cpu", "--run.wandb.mode", "disabled")
        status = main(["probe", "--ckpt_path", path, *options, *arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_fit_with_probes_keeps_their_tables_and_figures(run_folder: Path) -> None:
    names = {path.name for path in (run_folder / "probes").iterdir() if path.is_file()}
    kinds = ("gradients", "contribution", "gain", "lesion")
    assert names == {
        *(f"{kind}.{suffix}" for kind in kinds for suffix in ("csv", "png")),
        "profile.csv",
        "removal.csv",
    }
    profile = rows(run_folder / "probes" / "profile.csv")
    assert [row["relative_depth"] for row in profile] == ["0.25", "0.5", "0.75", "1.0"]
    assert all(value for row in profile for value in row.values())
    logged = rows(run_folder / "metrics.csv")
    for name in ("residual/grad_ratio", "residual/contribution_mean"):
        assert any(row[name] for row in logged)


def test_a_checkpoint_alone_is_probed_and_scores_what_validate_says(
    probe: Run, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, errors = probe("--format", "json", "--removed", "1,2", "--draws", "2")
    assert status == 0, errors
    found = json.loads(out)
    folder = Path(found["folder"])
    assert folder == run_folder / "probes" / "best"
    assert {path.name for path in folder.glob("*.png")} == {
        "gradients.png",
        "contribution.png",
        "gain.png",
        "lesion.png",
    }
    profile = found["residual/profile"]
    assert [row["lesion"] for row in profile] == [
        *("keeps the shape", "keeps the shape", "changes the shape", "keeps the shape")
    ]
    assert [removal["removed"] for removal in found["residual/removal"]] == [1, 1, 2, 2]
    path = str(run_folder / "checkpoints" / "best.ckpt")
    assert main(["validate", "--ckpt_path", path, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["val/score"] == found["val/score"]


def test_chosen_probes_are_shown_in_a_table(probe: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    arguments = ("--probes", "lesion,gain", "--removed", "1", "--batches", "1")
    status, out, errors = probe(*arguments, "--output", str(folder))
    assert status == 0, errors
    assert "stages.1.stack.blocks.0" in out
    assert "without" in out
    assert "* changes the shape" in out
    assert "shortcut" not in out
    assert {path.stem for path in folder.glob("*.png")} == {"lesion", "gain"}
    status, _, errors = probe(*arguments, "--output", str(folder))
    assert (status, errors) == (2, f"error: --output {folder}: is not empty; name a new folder\n")


def test_deep_networks_are_shown_in_part() -> None:
    table = block_table([{"block": i + 1, "name": f"b{i}", "gain": 1.0} for i in range(200)])
    assert table.row_count == 40
    assert table.caption == "40 of 200 blocks; profile.csv has all"
    assert block_table([{"block": 1, "name": "b0", "gain": None}]).row_count == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--probes", "lesions"), "--probes lesions: did you mean 'lesion'?"),
        (("--removed", "1,x"), "--removed 1,x: expected whole numbers of at least 1"),
        (("--draws", "0"), "--draws 0: expected a whole number of at least 1"),
        (("--batches", "none"), "--batches none: expected a whole number of at least 1"),
        (("--format", "yaml"), "--format yaml: allowed: json, table"),
        (("--output", "no/where"), "--output no/where: its parent folder does not exist"),
        (("--data.val_fraction", "0.0"), "has no val split"),
        (("--probe", "gain"), "no option --probe"),
    ],
)
def test_misuse_is_explained(probe: Run, arguments: tuple[str, ...], message: str) -> None:
    status, _, errors = probe(*arguments)
    assert (status, message in errors) == (2, True), errors


def test_a_checkpoint_is_needed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["probe", "--config", "image_classification/digits"]) == 2
    assert capsys.readouterr().err == "error: `resdomains probe` needs --ckpt_path FILE\n"
    text = tmp_path / "text.ckpt"
    text.write_text("no weights")
    assert main(["probe", "--ckpt_path", str(text)]) == 2
    assert "not a plain checkpoint" in capsys.readouterr().err


def test_a_network_without_residual_blocks_is_refused(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    model = checkpoint["resdomains"]["recipe"]["model"]["init_args"]
    model["backbone"] = {
        "class_path": "tests.resdomains.cli.commands.test_probe.Plain",
        "init_args": {},
    }
    path = tmp_path / "plain.ckpt"
    torch.save(checkpoint, path)
    status = main(
        ["probe", "--ckpt_path", str(path), "--plugin", "tests.resdomains.cli.commands.test_probe"]
    )
    assert status == 2
    assert "resdomains.core.Residual, and Plain has none" in capsys.readouterr().err


class Plain(torch.nn.Module):
    """A backbone without residual blocks."""

    out_channels = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
