from pathlib import Path

import pytest

from resdomains.schema import Split
from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.listing import Listing, decoded, lines

from .sounds import save_noise


def test_names_are_below_root_where_they_can_be(tmp_path: Path) -> None:
    listing = Listing(tmp_path / "a")
    assert listing.name(tmp_path / "a" / "ö b" / "1.wav") == "ö b/1.wav"
    assert listing.name(f"{tmp_path}/a/list.json:3") == "list.json:3"
    assert listing.name(tmp_path / "ab" / "1.wav") == f"{tmp_path}/ab/1.wav"


def test_what_cannot_be_read_is_kept_apart(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    path = save_noise(tmp_path / "1.wav")
    audio = listing.add("train", path, "a", speaker="s", offset=0.1, seconds=0.2)
    assert audio is not None
    assert audio.seconds == 0.2
    assert listing.add("train", tmp_path / "2.wav", "b") is None
    assert listing.add("val", tmp_path / "3.wav", "c", where=f"{tmp_path}/list:7") is None
    assert [bad.source for bad in listing.bad] == [str(tmp_path / "2.wav"), f"{tmp_path}/list:7"]
    assert listing.bad[1].reason == f"{tmp_path}/3.wav: the file does not exist"
    with pytest.raises(BadSample, match=r"2\.wav: the file does not exist, and 1 more cannot be"):
        listing.corpus("refuse", [])
    left_out = [BadSample("before", "x")]
    splits = listing.corpus("skip", left_out).splits
    assert list(splits) == ["train"]
    assert (splits["train"][0].source, splits["train"][0].speaker) == ("1.wav", "s")
    assert len(left_out) == 3


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    listing.add("test", save_noise(tmp_path / "1.wav"), "a")
    with pytest.raises(ValueError, match=r"has no utterances to train on$"):
        listing.corpus("refuse", [])


def test_files_that_train_and_test_are_counted(tmp_path: Path) -> None:
    listing = Listing(tmp_path)
    for i in range(3):
        save_noise(tmp_path / f"{i}.wav")
    places: dict[Split, list[int]] = {"train": [0, 1], "test": [1, 1, 2], "val": [2]}
    for split, numbers in places.items():
        for i in numbers:
            listing.add(split, tmp_path / f"{i}.wav", "a")
    notes = listing.corpus("refuse", []).notes
    assert notes == ["2 of 3 utterances in test are of files that also train"]


def test_lines_are_told_by_number(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"one\r\n\n \ntwo \xff\nthree")
    found = list(lines(path))
    assert found == [(f"{path}:1", b"one"), (f"{path}:4", b"two \xff"), (f"{path}:5", b"three")]
    assert decoded("ä".encode(), "x") == decoded("ä".encode("utf-8-sig"), "x") == "ä"
    with pytest.raises(BadSample, match=r"list\.txt:4: not UTF-8 \(byte 0xff\); save the file"):
        decoded(found[1][1], found[1][0])
