from pathlib import Path

import pytest

from resdomains.training.caches import cache_folder


def test_the_cache_lies_in_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("text") == tmp_path / "resdomains" / "text"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder("text") == tmp_path / ".cache" / "resdomains" / "text"
