import os
from pathlib import Path

import pytest

from resdomains.training import BadSample
from resdomains.training.file_checks import unreadable


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


class Reader:
    """Takes files that are long enough; counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, path: str, least: int) -> None:
        self.calls += 1
        if Path(path).stat().st_size < least:
            raise BadSample(path, f"fewer than {least} bytes")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, size in (("a", 3), ("b", 5), ("ö \N{SNOWMAN}", 1)):
        (tmp_path / name).write_bytes(bytes(size))
    return sorted(str(path) for path in tmp_path.iterdir())


@pytest.mark.parametrize("workers", [0, 1])
def test_reasons_are_given_by_place(files: list[str], workers: int) -> None:
    requests = [(file, least) for file in files for least in (2, 4)]
    found = unreadable(requests, Reader(), part="x", num_workers=workers)
    assert found == {1: "fewer than 4 bytes", 4: "fewer than 2 bytes", 5: "fewer than 4 bytes"}


def test_a_result_is_kept_until_a_file_or_a_request_changes(files: list[str], cache: Path) -> None:
    read = Reader()

    def found(least: int = 2) -> dict[int, str]:
        return unreadable([(file, least) for file in files], read, part="x")

    first = found()
    assert (found(), read.calls) == (first, 3)
    assert len(list((cache / "resdomains" / "x").iterdir())) == 1
    assert (list(found(4)), read.calls) == ([0, 2], 6)
    os.utime(files[1], ns=(1, 1))
    assert (found(), read.calls) == (first, 9)
    Path(files[0]).write_bytes(b"")
    assert (list(found()), read.calls) == ([0, 2], 12)


def test_a_cache_that_cannot_be_written_is_said(
    files: list[str], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cache / "resdomains").touch()
    assert list(unreadable([(file, 2) for file in files], Reader(), part="x")) == [2]
    assert "the next run reads every file again" in caplog.messages[0]
