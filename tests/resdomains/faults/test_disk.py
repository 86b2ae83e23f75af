"""Disks that are full or read-only: small file systems in a namespace of their own, in which tests may be root."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from resdomains.training import read_checkpoint
from tests.resdomains.launching import ALONE, DIGITS, Finished, launch

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
FIT = shlex.join(
    [*ALONE, "fit", *DIGITS, "--test_after_fit", "false", "--trainer.max_epochs", "999"]
)

# $0 is a folder of the test, whose `disk` no process outside this one's children sees as the small one.
SCRIPT = f"""
cd "$0"/disk
{FIT} --run.wandb.mode disabled --run.root runs >../first.out 2>../first.err
echo $? >../first.status
cp -r runs/*/*/* ../first

mount -o remount,size=8m "$0"/disk
(until [ -e rest/*/*/*/checkpoints/previous.ckpt ]; do sleep 0.05; done; cat /dev/zero >filler) 2>../filler.err &
{FIT} --run.root rest --ckpt_path runs/*/*/*/checkpoints/last.ckpt >../second.out 2>../second.err
echo $? >../second.status
wait
cp -r rest/*/*/* ../second

mount -o remount,ro "$0"/disk
{FIT} --run.root third >../third.out 2>../third.err
echo $? >../third.status
"""


def mounted(command: str) -> list[str]:
    """A command in a namespace where `disk` in the folder `$0` is a file system of 400 KiB."""
    return [
        *NAMESPACE,
        "sh",
        "-c",
        f'mount -t tmpfs -o size=400k disk "$0"/disk && {{ {command}\n}}',
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three runs left that had too little room, then none, then nothing to write on."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "disk").mkdir()
    tried = subprocess.run([*mounted("true"), str(folder)], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no mounts in a user namespace: {tried.stderr.strip()}")
    launch([*mounted(SCRIPT), str(folder)], folder)
    return folder


def said(folder: Path, run: str) -> tuple[int, str]:
    """A run's exit status, and its last words."""
    return int((folder / f"{run}.status").read_text()), (folder / f"{run}.err").read_text()


@pytest.mark.slow
def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_ones_before(
    folder: Path,
) -> None:
    status, text = said(folder, "first")
    assert status == 1
    assert "error: no space left for " in text
    assert "; free some and go on:\n  go on with: resdomains fit --config " in text
    assert "Traceback" not in text
    run = folder / "first"
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert checkpoints == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    for name in checkpoints:
        read_checkpoint(run / "checkpoints" / name)
    # The run that went on did so from the last of them.
    steps = read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"]
    rest = Finished(1, "", "", folder / "second").curve("train/loss")
    assert rest[0][0] == steps + 1


@pytest.mark.slow
def test_a_disk_that_fills_between_checkpoints_ends_the_run_at_its_next_row(folder: Path) -> None:
    status, text = said(folder, "second")
    assert status == 1
    assert "error: no space left for " in text
    assert "free some and go on:\n  go on with: resdomains fit" in text
    assert "Traceback" not in text
    checkpoints = folder / "second" / "checkpoints"
    assert not list(checkpoints.glob("*.part"))
    for path in checkpoints.iterdir():
        read_checkpoint(path)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_refused_by_name(folder: Path) -> None:
    status, text = said(folder, "third")
    assert status == 2
    assert "error: run.root: third cannot hold the run: third" in text
    assert "Read-only file system; name a folder that can be written" in text
