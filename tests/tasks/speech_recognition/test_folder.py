import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.folder import TranscribedFolder

from .sounds import cut, save_noise, save_values


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def module(root: Path, **options: Any) -> TranscribedFolder:
    return TranscribedFolder(**{"root": str(root), "batch_size": 2, **options})


def save_pair(path: Path, text: str = "go on", seed: int = 0, **options: Any) -> Path:
    save_noise(path, seed=seed, **options)
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def pairs(folder: Path, count: int = 20) -> Path:
    for i in range(count):
        save_pair(folder / f"s{i % 3}" / f"{i}.wav", f"take {i}", i)
    return folder


def sources(data: TranscribedFolder) -> dict[str, list[str]]:
    return {split: [u.source for u in part] for split, part in data.read().splits.items()}


def test_pairs_are_found_at_any_depth_and_in_any_format(tmp_path: Path) -> None:
    save_pair(tmp_path / "a.wav", "\N{BYTE ORDER MARK}one\n")
    save_pair(tmp_path / "b c" / "ä.flac", "zwei  Zeilen\nÖl")
    save_pair(tmp_path / "b c" / "d.e" / "f.ogg", "three")
    save_pair(tmp_path / ".hidden" / "g.wav", "four")
    (tmp_path / "README.txt").write_text("about")
    data = module(tmp_path, val_fraction=0.0, test_fraction=0.0)
    found = {u.source: u.text for u in data.read().splits["train"]}
    assert found == {
        "a.wav": "one",
        "b c/ä.flac": "zwei  Zeilen\nÖl",
        "b c/d.e/f.ogg": "three",
    }
    part = data.ready_dataset("train")
    assert part.references[1] == "zwei zeilen öl"  # type: ignore[attr-defined]


def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        pairs(tmp_path / split, count)
    found = sources(module(tmp_path))
    assert {split: len(part) for split, part in found.items()} == {"train": 4, "val": 2, "test": 3}
    assert all(source.startswith(f"{split}/") for split, part in found.items() for source in part)


def test_without_a_val_folder_training_recordings_validate(tmp_path: Path) -> None:
    pairs(tmp_path / "train")
    pairs(tmp_path / "test", 3)
    found = sources(module(tmp_path, val_fraction=0.2))
    assert {split: len(part) for split, part in found.items()} == {"train": 16, "val": 4, "test": 3}
    assert all(source.startswith("train/") for source in found["val"])


def test_recordings_are_held_out_by_name_whatever_the_place(tmp_path: Path) -> None:
    pairs(tmp_path / "one")
    data = module(tmp_path / "one", val_fraction=0.2, test_fraction=0.1)
    found = sources(data)
    assert {split: len(part) for split, part in found.items()} == {"train": 14, "val": 4, "test": 2}
    assert len(set().union(*found.values())) == 20
    (note,) = data.read().notes
    assert note.startswith("of 20 utterances 4 validate and 2 test, chosen by a hash")
    shutil.copytree(tmp_path / "one", tmp_path / "zwei ö")
    again = module(tmp_path / "zwei ö", val_fraction=0.2, test_fraction=0.1, seed=5)
    assert sources(again) == found


def test_one_recording_in_two_formats_is_on_one_side(tmp_path: Path) -> None:
    pairs(tmp_path)
    for path in sorted(tmp_path.rglob("*.wav")):
        save_noise(path.with_suffix(".flac"))
    for part in sources(module(tmp_path, val_fraction=0.3, test_fraction=0.3)).values():
        stems = [source.rpartition(".")[0] for source in part]
        assert all(stems.count(stem) == 2 for stem in stems)


def test_another_suffix_of_transcripts(tmp_path: Path) -> None:
    for i in range(4):
        save_noise(tmp_path / f"{i}.wav", seed=i)
        (tmp_path / f"{i}.lab").write_text("hello")
    assert len(module(tmp_path, transcripts=".lab", test_fraction=0.0).read().splits["train"]) == 3


def spoiled(root: Path) -> list[str]:
    """Write files that cannot be used; return what is expected to be named, in order."""
    save_noise(root / "b0.wav")
    save_noise(root / "b1.wav")
    (root / "b1.txt").write_bytes(b"caf\xe9")
    (root / "b2.txt").write_text("no sound")
    for name in ("b3.wav", "b4.wav", "b5.flac"):
        save_pair(root / name)
    (root / "b3.wav").write_bytes(b"")
    (root / "b4.wav").write_text("text")
    cut(save_noise(root / "b5.flac", 3.0, 16000))
    values = np.full(4000, np.nan, np.float32)
    save_values(save_pair(root / "b6.wav"), values)
    save_pair(root / "b7.wav", " \n")
    return ["b0.wav", "b1.txt", "b3.wav", "b4.wav", "b2.txt", "b5.flac", "b6.wav", "b7.wav"]


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    spoiled(pairs(tmp_path))
    with pytest.raises(BadSample) as caught:
        module(tmp_path).ready()
    assert caught.value.source == str(tmp_path / "b0.wav")
    assert caught.value.reason == (
        "has no transcript: there is no b0.txt beside it, and 4 more cannot be used "
        "(--data.bad_samples skip leaves such samples out)"
    )


def test_what_cannot_be_used_is_left_out_by_name(tmp_path: Path) -> None:
    expected = spoiled(pairs(tmp_path))
    data = module(tmp_path, bad_samples="skip", val_fraction=0.0, test_fraction=0.0)
    data.ready()
    assert [Path(bad.source).name for bad in data.left_out] == expected
    reasons = {Path(bad.source).name: bad.reason for bad in data.left_out}
    assert reasons["b1.txt"] == "not UTF-8 (byte 0xe9); save the file as UTF-8"
    assert reasons["b2.txt"] == "is a transcript without a recording beside it"
    assert reasons["b3.wav"] == "the file is empty (0 bytes)"
    assert "not a recording" in reasons["b4.wav"]
    assert "damaged" in reasons["b5.flac"]
    assert reasons["b6.wav"] == "4,000 of its 4,000 samples are NaN or infinite"
    assert "has no words" in reasons["b7.wav"]
    assert len(data.ready_dataset("train")) == 20  # type: ignore[arg-type]
    (note,) = [note for note in data.notes if "left out" in note]
    assert note.startswith("8 recordings are left out")


def test_empty_folders_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"root: .*no does not exist; set --data\.root"):
        module(tmp_path / "no").read()
    with pytest.raises(
        ValueError, match=r"holds no recordings \(\.wav.* such as 1\.wav and 1\.txt"
    ):
        module(tmp_path).read()
    pairs(tmp_path / "train", 3)
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match=r"root: .*val holds no recordings"):
        module(tmp_path).read()
    with pytest.raises(ValueError, match=r"suffix of text files, such as \.txt, got 'txt'"):
        module(tmp_path, transcripts="txt")
    with pytest.raises(ValueError, match="leave nothing to train on"):
        module(tmp_path, val_fraction=0.5, test_fraction=0.5)
