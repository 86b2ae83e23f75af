"""Checkpoints that are cut or altered are refused, and a run falls back on a sound one."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resdomains.plain_files import Damaged, HoldsCode, read_plain
from resdomains.training import BadCheckpoint, newest_checkpoint, read_checkpoint, start_at
from resdomains.training.saving import CheckpointFiles


def content(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    weights = {f"layer.{i}": torch.randn(2, i + 1, generator=generator) for i in range(4)}
    return {
        "state_dict": weights,
        "global_step": step,
        "resdomains": {"format": 1, "recipe": None, "spec": {"classes": ["a", "b"]}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "lr": [0.1, None]}],
    }


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        same = isinstance(two, dict) and list(one) == list(two)
        return same and all(equal(v, two[k]) for k, v in one.items())
    if isinstance(one, list):
        return isinstance(two, list) and len(one) == len(two) and all(map(equal, one, two))
    return type(one) is type(two) and bool(one == two)


def test_no_flipped_bit_and_no_cut_gives_other_values(tmp_path: Path) -> None:
    path, altered = tmp_path / "last.ckpt", tmp_path / "altered.ckpt"
    CheckpointFiles().save_checkpoint(content(5), path)
    whole = path.read_bytes()
    expected = read_plain(path)
    assert equal(expected, content(5))
    draw = random.Random(0)
    # Headers, padding and values, and more of the central directory, which is the last 1.5 KB.
    flips = [
        i for i in range(len(whole)) if draw.random() < (0.3 if i > len(whole) - 1500 else 0.08)
    ]
    cuts = [draw.randrange(len(whole)) for _ in range(60)] + [0, 1, len(whole) - 1]
    refused = 0
    for kind, places in (("flip", flips), ("cut", cuts)):
        for place in places:
            changed = bytearray(whole)
            if kind == "cut":
                del changed[place:]
            else:
                changed[place] ^= 1 << draw.randrange(8)
            altered.write_bytes(changed)
            try:
                found = read_plain(altered)
            except (Damaged, HoldsCode):
                refused += 1
            else:
                assert kind == "flip"
                assert equal(found, expected), f"byte {place}"
    assert refused > len(cuts) + len(flips) / 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints as a run leaves them: the last of step 12, the one before of step 8."""
    files = CheckpointFiles()
    for step in (4, 8, 12):
        files.save_checkpoint(content(step), tmp_path / "last.ckpt")
    files.save_checkpoint(content(4), tmp_path / "best.ckpt")
    return tmp_path


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def test_the_one_before_the_last_is_kept(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        *("best.ckpt", "last.ckpt", "previous.ckpt")
    ]
    steps = [read_checkpoint(folder / f"{n}.ckpt")["global_step"] for n in ("last", "previous")]
    assert steps == [12, 8]


def test_the_newest_sound_checkpoint_is_found(folder: Path) -> None:
    def found() -> tuple[str, int, list[str]]:
        start = newest_checkpoint(folder)
        assert start is not None
        return start.path.name, start.step, [path.name for path in start.damaged]

    assert found() == ("last.ckpt", 12, [])
    damage(folder / "last.ckpt")
    assert found() == ("previous.ckpt", 8, ["last.ckpt"])
    shutil.copy(folder / "previous.ckpt", folder / "epoch=01.ckpt")
    damage(folder / "previous.ckpt")
    assert found() == ("epoch=01.ckpt", 8, ["last.ckpt"])
    (folder / "last.ckpt").unlink()
    (folder / "epoch=01.ckpt").unlink()
    assert found() == ("best.ckpt", 4, [])
    damage(folder / "best.ckpt")
    with pytest.raises(BadCheckpoint, match=r"last.ckpt: no such checkpoint file"):
        newest_checkpoint(folder)
    assert newest_checkpoint(folder / "nothing") is None


def test_a_damaged_checkpoint_is_refused_with_the_name_of_a_sound_one(folder: Path) -> None:
    damage(folder / "best.ckpt")
    message = r"best.ckpt: damaged .*; last.ckpt beside it is sound \(step 12\)"
    for read in (read_checkpoint, start_at, CheckpointFiles().load_checkpoint):
        with pytest.raises(BadCheckpoint, match=message):
            read(folder / "best.ckpt")
    shutil.move(folder / "best.ckpt", folder / "mine.ckpt")
    with pytest.raises(BadCheckpoint, match=r"damaged [^;]*$"):
        read_checkpoint(folder / "mine.ckpt")


def test_a_last_checkpoint_that_could_run_code_is_refused_and_not_passed_over(folder: Path) -> None:
    torch.save({"state_dict": folder}, folder / "last.ckpt")
    with pytest.raises(BadCheckpoint, match="could run code"):
        start_at(folder / "last.ckpt")


def test_a_full_disk_leaves_the_checkpoints_as_they_were(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "last.ckpt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        CheckpointFiles().save_checkpoint(content(16), folder / "last.ckpt")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
