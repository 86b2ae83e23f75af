from pathlib import Path
from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.yesno import YesNo

from .sounds import save_noise

NAMES = [f"{a}_{b}_{c}" for a in "01" for b in "01" for c in "01"]


def module(root: Path, **options: Any) -> YesNo:
    return YesNo(**{"root": str(root), "batch_size": 2, **options})


def recordings(folder: Path) -> Path:
    for seed, name in enumerate(NAMES):
        save_noise(folder / f"{name}.wav", seed=seed)
    return folder


@pytest.mark.parametrize("below", ["", "waves_yesno"])
def test_names_are_transcripts_and_places_are_splits(tmp_path: Path, below: str) -> None:
    recordings(tmp_path / below)
    (tmp_path / below / "README").write_text("about")
    corpus = module(tmp_path, val_fraction=0.0).read()
    found = {s: [Path(u.source).stem for u in part] for s, part in corpus.splits.items()}
    assert found == {"train": NAMES[::2], "test": NAMES[1::2]}
    assert corpus.splits["train"][3].text == "YES YES NO"
    assert corpus.splits["train"][0].source == f"{below}/0_0_0.wav".lstrip("/")
    assert corpus.notes == []


def test_a_share_of_the_training_recordings_validates(tmp_path: Path) -> None:
    recordings(tmp_path)
    splits = module(tmp_path, val_fraction=0.25).read().splits
    assert [len(splits[s]) for s in ("train", "val", "test")] == [3, 1, 4]
    names = {Path(u.source).stem for s in ("train", "val") for u in splits[s]}
    assert names == set(NAMES[::2])


def test_other_names_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"root: .* holds no recordings such as 0_1_1_0"):
        module(tmp_path).read()
    recordings(tmp_path)
    save_noise(tmp_path / "0_2_1.wav")
    with pytest.raises(BadSample, match=r"0_2_1\.wav: is not named by its words.*skip leaves"):
        module(tmp_path).read()
    data = module(tmp_path, bad_samples="skip", val_fraction=0.0)
    assert [len(part) for part in data.read().splits.values()] == [4, 4]
    assert [Path(bad.source).name for bad in data.left_out] == ["0_2_1.wav"]
    with pytest.raises(ValueError, match="val_fraction is a share"):
        module(tmp_path, val_fraction=1.0)


def test_the_real_ones_are_split_as_icefall_splits_them(shared_data: Path) -> None:
    if not (shared_data / "yesno").is_dir():
        pytest.skip("yesno is not there")
    data = module(shared_data / "yesno")
    splits = data.read().splits
    assert [len(splits[s]) for s in ("train", "val", "test")] == [27, 3, 30]
    assert splits["test"][0].source == "waves_yesno/0_0_0_1_0_0_0_1.wav"
    assert sum(len(u.text.split()) for u in splits["test"]) == 240
    assert data.spec["sample_rate"] == 8000
