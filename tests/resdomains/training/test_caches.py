import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resdomains.training import caches
from resdomains.training.caches import cache_folder, cached_tensors

MADE = {
    "samples": torch.arange(100, dtype=torch.int16),
    "none": torch.zeros(0, dtype=torch.uint8),
    "cut": torch.tensor(3),
}


def kept(path: Path, limit: int = 10**6) -> tuple[dict[str, Tensor], bool]:
    """The tensors, and whether they were made."""
    made = []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return dict(MADE)

    return cached_tensors(path, make, what="sums", limit=limit), bool(made)


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == MADE.keys() and all(
        found[name].dtype == values.dtype and torch.equal(found[name], values)
        for name, values in MADE.items()
    )


def test_the_cache_lies_in_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("text") == tmp_path / "resdomains" / "text"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder("text") == tmp_path / ".cache" / "resdomains" / "text"


def test_tensors_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.safetensors"
    found, made = kept(path)
    assert made
    assert same(found)
    found, made = kept(path)
    assert not made
    assert same(found)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_named_and_made_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    kept(path)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-3] ^= 1
    other = bytearray(b"x" * 500)
    content = {"cut": data[:-9], "flipped": data, "empty": bytearray(), "other": other}
    path.write_bytes(bytes(content[damage]))
    with pytest.warns(UserWarning, match=r"a\.safetensors cannot be read and is made anew"):
        found, made = kept(path)
    assert made
    assert same(found)
    assert not kept(path)[1]


def test_a_folder_that_cannot_be_written_only_warns(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.warns(UserWarning, match="sums are not kept for the next run"):
        assert same(kept(blocked / "a.safetensors")[0])


def test_a_full_disk_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caches, "save_file", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert same(kept(tmp_path / "a.safetensors")[0])
    assert not list(tmp_path.iterdir())


def test_anothers_cache_that_is_only_readable_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path / "a.safetensors")

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, made = kept(tmp_path / "a.safetensors")
    assert same(found)
    assert not made


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    for age, name in enumerate("abc"):
        path = tmp_path / f"{name}.safetensors"
        kept(path)
        os.utime(path, (age, age))
    kept(tmp_path / "a.safetensors")  # used: the newest now
    kept(tmp_path / "d.safetensors", limit=int(3.5 * path.stat().st_size))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c", "d"]
