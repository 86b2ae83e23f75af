"""W&B's offline files are read as W&B wrote them."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from resdomains.comparing import UnreadableRun, read_offline, read_runs, run_table
from tests.resdomains.comparing.recorded import rows, same, write_folder, write_offline


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The offline file of a run of 300 steps, which is more than a block of the format holds."""
    return write_offline(tmp_path_factory.mktemp("offline"), rows=rows(301))


def test_a_file_gives_the_rows_of_the_csv(kept: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", rows=rows(301))
    [one], [two] = (read_runs([str(path)]).runs for path in (folder, kept))
    pd.testing.assert_frame_equal(
        one.history.sort_index(axis=1), two.history.sort_index(axis=1), check_dtype=False
    )
    pd.testing.assert_frame_equal(one.profile, two.profile)
    pd.testing.assert_frame_equal(one.removal, two.removal)
    first, second = (run_table([run]).drop(columns="source").iloc[0] for run in (one, two))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_wandbs_own_program_reads_the_same(kept: Path) -> None:
    done = subprocess.run(
        ["wandb", "leet", "inspect", "--json", str(kept)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    items = [record["history"]["item"] for record in records if record["type"] == "history"]
    losses = [item["train/loss"] for item in items if "train/loss" in item]
    assert losses == list(read_offline(kept).history["train/loss"].dropna())
    assert len(losses) == 301


def test_a_file_of_a_killed_run_is_read_up_to_its_end(kept: Path, tmp_path: Path) -> None:
    whole = read_offline(kept)
    data = kept.read_bytes()
    found = []
    for share in (0.5, 0.9):
        path = tmp_path / f"run-{share}.wandb"
        path.write_bytes(data[: int(len(data) * share)])
        found.append(len(read_offline(path).history))
    assert 50 < found[0] < found[1] < len(whole.history)


def test_every_altered_byte_of_a_record_is_noticed(kept: Path, tmp_path: Path) -> None:
    data = bytearray(kept.read_bytes())
    path = tmp_path / "run-altered.wandb"
    for place in np.random.default_rng(0).integers(7, len(data) // 2, 20):
        data[place] ^= 0x55
        path.write_bytes(data)
        with pytest.raises(UnreadableRun, match=r"damaged at byte|a record is damaged"):
            read_offline(path)
        data[place] ^= 0x55


@pytest.mark.parametrize("content", [b"", b"no such thing", b":W&B\xe1\xbe\x00"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(content)
    with pytest.raises(UnreadableRun, match=r"no record of a W&B run|no run of resdomains"):
        read_offline(path)


def test_a_damaged_table_is_named(kept: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(kept.parent, tmp_path / "copied")
    [table] = folder.rglob("profile*.table.json")
    table.write_text('{"columns": ["a"]}')
    with pytest.raises(UnreadableRun, match="is no table of W&B's"):
        read_offline(folder / kept.name)


def test_a_table_outside_of_the_runs_files_is_not_read(kept: Path, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere" / kept.name
    copied.parent.mkdir()
    shutil.copy(kept, copied)
    assert read_offline(copied).profile.empty
