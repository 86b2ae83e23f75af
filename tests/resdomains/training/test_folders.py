from pathlib import Path

import pytest

from resdomains.training.folders import existing_folder


def test_a_folder_is_given_back_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ä b").mkdir()
    (tmp_path / "file").touch()
    assert existing_folder(str(tmp_path / "ä b")) == tmp_path / "ä b"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert existing_folder("~/ä b") == tmp_path / "ä b"
    with pytest.raises(ValueError, match=r"root: .*file is a file; set --data\.root"):
        existing_folder(str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"root: .*no does not exist; set --data\.root"):
        existing_folder(str(tmp_path / "no"))
