from pathlib import Path
from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.librispeech import LibriSpeech

from .sounds import save_noise


def module(root: Path, **options: Any) -> LibriSpeech:
    return LibriSpeech(**{"root": str(root), "batch_size": 2, **options})


def save_part(root: Path, name: str, speakers: int = 2, count: int = 3) -> Path:
    for speaker in range(10, 10 + speakers):
        folder = root / name / str(speaker) / "5"
        for i in range(count):
            save_noise(folder / f"{speaker}-5-{i:04}.flac", 0.3, 16000, seed=i)
        text = [f"{speaker}-5-{i:04} SAID {'I' * (i + 1)}\n" for i in range(count)]
        (folder / f"{speaker}-5.trans.txt").write_text("".join(text))
    return root / name


@pytest.mark.parametrize("below", ["", "LibriSpeech"])
def test_the_folders_that_exist_are_taken(tmp_path: Path, below: str) -> None:
    for name in ("train-clean-100", "train-other-500", "dev-clean", "test-clean", "test-other"):
        save_part(tmp_path / below, name)
    corpus = module(tmp_path).read()
    assert {s: len(part) for s, part in corpus.splits.items()} == {"train": 12, "val": 6, "test": 6}
    first = corpus.splits["val"][0]
    assert (first.source, first.text, first.speaker) == (
        "dev-clean/10/5/10-5-0000.flac",
        "SAID I",
        "10",
    )
    assert corpus.notes == [
        "folders: train train-clean-100, train-other-500; val dev-clean; test test-clean"
    ]


def test_folders_are_chosen(tmp_path: Path) -> None:
    for name in ("train-clean-100", "mine", "test-other"):
        save_part(tmp_path, name)
    splits = module(tmp_path, train=["mine"], val=[], test=["test-other"], val_fraction=0.0)
    sources = {s: {u.source.split("/")[0] for u in p} for s, p in splits.read().splits.items()}
    assert sources == {"train": {"mine"}, "test": {"test-other"}}


def test_without_a_folder_training_recordings_validate(tmp_path: Path) -> None:
    save_part(tmp_path, "train-clean-5", speakers=4, count=5)
    splits = module(tmp_path, val_fraction=0.2).read().splits
    assert {s: len(part) for s, part in splits.items()} == {"train": 16, "val": 4}


def test_a_missing_folder_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "dev-clean").mkdir()
    with pytest.raises(
        ValueError, match=r"train: .* has no folder train-clean-100 or .*; it has dev-clean; set"
    ):
        module(tmp_path).read()
    save_part(tmp_path, "train-clean-100")
    with pytest.raises(ValueError, match=r"test: .* has no folder other; it has dev-clean, train"):
        module(tmp_path, test=["other"]).read()
    with pytest.raises(ValueError, match=r"val: .*dev-clean holds no transcripts \(SPEAKER/"):
        module(tmp_path).read()


def test_lines_and_recordings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = save_part(tmp_path, "train-clean-100", speakers=1, count=4) / "10" / "5"
    transcript = folder / "10-5.trans.txt"
    (folder / "10-5-0001.flac").write_bytes(b"")
    (folder / "10-5-0009.flac").write_bytes((folder / "10-5-0000.flac").read_bytes())
    with transcript.open("ab") as file:
        file.write(b"\n10-5-0007 NOBODY\n10-5-0000 AGAIN\n10-5-0003 CAF\xc9\n")
    with pytest.raises(BadSample, match=r"10-5-0001\.flac: the file is empty.* and 4 more"):
        module(tmp_path, val_fraction=0.0).read()
    data = module(tmp_path, val_fraction=0.0, bad_samples="skip")
    assert len(data.read().splits["train"]) == 3
    assert [str(bad) for bad in data.left_out] == [
        f"{folder}/10-5-0001.flac: the file is empty (0 bytes)",
        f"{transcript}:6: there is no recording 10-5-0007.flac beside it",
        f"{transcript}:7: 10-5-0000 was transcribed before",
        f"{transcript}:8: not UTF-8 (byte 0xc9); save the file as UTF-8",
        f"{folder}/10-5-0009.flac: has no transcript in a *.trans.txt beside it",
    ]
