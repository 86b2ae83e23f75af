"""`resdomains export`: a whole folder or nothing, and nothing of others is lost."""

import sys
from pathlib import Path

import pytest
import torch

from .conftest import TINY, Run
from .test_fitting import run_folder


@pytest.fixture
def best(cli: Run) -> str:
    """The checkpoint of a short run."""
    return trained(cli, "run")


def trained(cli: Run, root: str, *options: str) -> str:
    short = ("--trainer.max_epochs", "1", "--test_after_fit", "false")
    assert cli("fit", *TINY, *short, "--run.root", root, *options)[0] == 0
    return str(run_folder(Path(root)) / "checkpoints" / "last.ckpt")


def test_a_folder_is_written_whole(cli: Run, best: str, folder: Path) -> None:
    status, out, errors = cli(
        "export", "--plugin", "tiny_domain", "--ckpt_path", best, "--output", "model"
    )
    assert status == 0, errors
    assert out == f"a tiny network\nwritten to {folder / 'model'}\n"
    weights = torch.load(best, weights_only=True)["state_dict"]["head.weight"]
    assert (folder / "model" / "weights.txt").read_text() == str(weights.tolist())
    assert (folder / "model" / "config.json").read_text() == "huggingface 0.5"
    assert not list(folder.glob(".model*"))


def test_what_lies_in_the_folder_is_kept_unless_it_is_an_export(
    cli: Run, best: str, folder: Path
) -> None:
    command = ("export", "--plugin", "tiny_domain", "--ckpt_path", best, "--output", "model")
    (folder / "model").mkdir()
    assert cli(*command)[0] == 0  # an empty folder
    old = folder / "model" / "weights.txt"
    old.write_text("old")
    status, _, errors = cli(*command)
    assert status == 2
    assert "model: is not empty; give another folder, or --overwrite true replaces" in errors
    assert old.read_text() == "old"
    (folder / "model" / "thesis.txt").write_text("mine")
    status, _, errors = cli(*command, "--overwrite", "true")
    assert status == 2
    assert "holds what no export writes (thesis.txt), so it is not replaced" in errors
    assert old.read_text() == "old"
    (folder / "model" / "thesis.txt").unlink()
    assert cli(*command, "--overwrite", "true")[0] == 0
    assert old.read_text() != "old"
    assert not list(folder.glob(".model*"))


def test_a_network_without_counterpart_leaves_nothing(cli: Run, folder: Path) -> None:
    seven = trained(cli, "seven", "--model.backbone.width", "7")
    status, _, errors = cli(
        "export", "--plugin", "tiny_domain", "--ckpt_path", seven, "--output", "model"
    )
    assert status == 2
    assert errors == "error: cannot export to huggingface: seven is no width of theirs\n"
    assert not (folder / "model").exists()
    assert not list(folder.glob(".model*"))


def test_a_task_that_exports_nothing_says_so(cli: Run, folder: Path) -> None:
    (folder / "plain_domain.py").write_text(
        "import tiny_domain\n\n\nclass Plain(tiny_domain.Tiny):\n    exports = ()\n"
    )
    sys.path.insert(0, str(folder))
    try:
        plain = trained(cli, "plain", "--plugin", "plain_domain", "--model", "plain_domain.Plain")
        status, _, errors = cli(
            *("export", "--plugin", "tiny_domain", "--plugin", "plain_domain"),
            *("--ckpt_path", plain, "--output", "model"),
        )
    finally:
        sys.path.remove(str(folder))
    assert status == 2
    assert "--ckpt_path: Plain exports nothing (it names no formats in `exports`)" in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "`resdomains export` needs --ckpt_path FILE"),
        (("--ckpt_path", "x.ckpt"), "`resdomains export` needs --output FOLDER"),
        (("--ckpt_path", "x.ckpt", "--output", "model"), "x.ckpt: no such checkpoint file"),
        (("--ckpt_path", "x", "--output", "no/model"), "no/model: its folder does not exist"),
        (("--ckpt_path", "x", "--output", "tiny.yaml"), "tiny.yaml: is a file"),
        (("--ckpt_path", "x", "--output", "m", "--overwrite", "yes"), "expected true or false"),
        (("--ckpt_path", "x", "--output.a", "m"), "no option --output.a"),
    ],
)
def test_bad_input_is_one_message(
    cli: Run, arguments: tuple[str, ...], message: str, folder: Path
) -> None:
    status, _, errors = cli("export", *arguments)
    assert (status, message in errors) == (2, True), errors


def test_formats_and_options_are_the_tasks(cli: Run, best: str, folder: Path) -> None:
    command = ("export", *TINY[:2], "--ckpt_path", best)
    for more, message in (
        (("--format", "plai"), "--format plai: did you mean 'plain'? allowed: huggingface, plain"),
        (("--outputs", "m"), "no option --outputs; did you mean 'output'? (Tiny has cut)"),
        (("--cut", "2"), "--cut 2: cut must lie in [0, 1]"),
    ):
        status, _, errors = cli(*command, "--output", "model", *more)
        assert (status, message in errors) == (2, True), errors
    assert not (folder / "model").exists()
    assert cli(*command, "--output", "model", "--format", "plain", "--cut", "0.25")[0] == 0
    assert (folder / "model" / "config.json").read_text() == "plain 0.25"
    status, out, _ = cli(*command, "--help")
    assert out.splitlines()[-3:] == [
        "Tiny has these options:",
        "  --cut VALUE           The probability from which it is one (0.5)",
        "Tiny exports huggingface, plain",
    ]
