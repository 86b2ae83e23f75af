from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.audio import Joined
from resdomains_tasks.speech_recognition.fsdd import SpokenDigits, SpokenDigitStrings
from resdomains_tasks.speech_recognition.utterances import Corpus

from .sounds import save_noise, save_values

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two digits, three speakers, twelve takes."""
    folder = tmp_path_factory.mktemp("fsdd")
    for digit in (3, 7):
        for k, speaker in enumerate(("ann", "bo_b", "cé")):
            for take in range(12):
                seed = 100 * digit + 20 * k + take
                name = f"{digit}_{speaker}_{take}.wav"
                save_noise(folder / "recordings" / name, 0.2 + 0.01 * take, seed=seed)
    return folder


def digits(root: Path, **options: Any) -> SpokenDigits:
    return SpokenDigits(**{"root": str(root), "batch_size": 4, **options})


def strings(root: Path, **options: Any) -> SpokenDigitStrings:
    counts = {"train_strings": 40, "val_strings": 10, "test_strings": 20}
    return SpokenDigitStrings(**{"root": str(root), "batch_size": 4, **counts, **options})


def takes(corpus: Corpus) -> dict[str, set[tuple[str | None, int]]]:
    return {
        split: {(u.speaker, int(Path(u.source).stem.rpartition("_")[2])) for u in part}
        for split, part in corpus.splits.items()
    }


def test_the_official_takes_test_and_the_next_validate(root: Path) -> None:
    corpus = digits(root).read()
    speakers = ("ann", "bo_b", "cé")
    assert takes(corpus) == {
        "train": {(s, i) for s in speakers for i in (10, 11)},
        "val": {(s, i) for s in speakers for i in range(5, 10)},
        "test": {(s, i) for s in speakers for i in range(5)},
    }
    for part in corpus.splits.values():
        for u in part:
            assert WORDS.index(u.text) == int(Path(u.source).name[0])
    assert corpus.splits["test"][0].source == "recordings/3_ann_0.wav"
    everything = {p for part in takes(digits(root, val_takes=0).read()).values() for p in part}
    assert len(everything) == 36
    assert "val" not in digits(root, val_takes=0).read().splits


def test_a_held_out_speaker_is_heard_in_the_test_alone(root: Path) -> None:
    found = takes(digits(root, held_out_speaker="bo_b").read())
    assert found["test"] == {("bo_b", i) for i in range(12)}
    assert found["val"] == {(s, i) for s in ("ann", "cé") for i in range(5)}
    assert found["train"] == {(s, i) for s in ("ann", "cé") for i in range(5, 12)}
    with pytest.raises(ValueError, match=r"got 'bob', there are ann, bo_b, cé"):
        digits(root, held_out_speaker="bob").read()


def test_wrong_names_arguments_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"root: .* holds no recordings such as 7_jackson_32"):
        digits(tmp_path).read()
    save_noise(tmp_path / "3_ann_9.wav")
    with pytest.raises(ValueError, match="others must train; got 'ann', there are ann"):
        digits(tmp_path, held_out_speaker="ann").read()
    save_noise(tmp_path / "11_ann_0.wav")
    (tmp_path / "7_ann_1.wav").touch()
    with pytest.raises(BadSample, match=r"11_ann_0\.wav: is not named DIGIT_.*, and 1 more cannot"):
        digits(tmp_path).read()
    data = digits(tmp_path, bad_samples="skip")
    with pytest.raises(ValueError, match=r"no utterances to train on; 2 cannot be used, such as"):
        data.read()
    save_noise(tmp_path / "3_ann_11.wav")
    data = digits(tmp_path, bad_samples="skip")
    assert [len(part) for part in data.read().splits.values()] == [1, 1]
    assert [Path(b.source).name for b in data.left_out] == ["11_ann_0.wav", "7_ann_1.wav"]
    with pytest.raises(ValueError, match="val_takes must be at least 0, got -1"):
        digits(tmp_path, val_takes=-1)


def test_strings_are_joined_of_one_speakers_takes_of_the_split(root: Path) -> None:
    corpus = strings(root).read()
    single = takes(digits(root).read())
    for split, part in corpus.splits.items():
        for u in part:
            names = u.source.partition(": ")[2].split()
            assert u.text.split() == [WORDS[int(name[0])] for name in names]
            assert 2 <= len(names) <= 6
            assert {name[2:].rpartition("_")[0] for name in names} == {u.speaker}
            for name in names:
                assert (u.speaker, int(name.rpartition("_")[2])) in single[split]
            assert isinstance(u.audio, Joined)
            assert all(0 <= gap <= 0.2 * 8000 for gap in u.audio.gaps)
            assert u.audio.read().shape == (u.audio.samples,)
    lengths = Counter(len(u.text.split()) for u in corpus.splits["train"])
    assert set(lengths) == {2, 3, 4, 5, 6}
    assert {u.speaker for u in corpus.splits["train"]} == {"ann", "bo_b", "cé"}


def test_strings_follow_from_their_own_seed(root: Path) -> None:
    def drawn(**options: Any) -> list[tuple[str, int]]:
        splits = strings(root, **options).read().splits
        return [(u.source, u.audio.samples) for part in splits.values() for u in part]

    first = drawn()
    assert drawn(seed=7) == first
    assert drawn(strings_seed=1) != first
    # More training strings change no other.
    assert drawn(train_strings=60)[60:] == first[40:]
    assert len(set(first)) == len(first)


def test_strings_of_an_unheard_speaker(root: Path) -> None:
    splits = strings(root, held_out_speaker="ann").read().splits
    assert {u.speaker for u in splits["test"]} == {"ann"}
    assert {u.speaker for u in [*splits["train"], *splits["val"]]} == {"bo_b", "cé"}


def test_counts_digits_and_gaps_are_chosen(root: Path) -> None:
    data = strings(root, digits=(3, 3), gap=(0.1, 0.1), val_strings=0, val_takes=0)
    splits = data.read().splits
    assert {s: len(part) for s, part in splits.items()} == {"train": 40, "test": 20}
    for u in splits["train"]:
        assert len(u.text.split()) == 3
        assert isinstance(u.audio, Joined)
        assert u.audio.gaps == (800, 800)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_strings": 0}, "train_strings must be at least 1"),
        ({"test_strings": -1}, "test_strings at least 0, got 40, 10 and -1"),
        ({"digits": (3, 2)}, r"digits must be two rising numbers from 1, got \[3, 2\]"),
        ({"digits": (0, 2)}, "digits must be two rising"),
        ({"gap": (-0.1, 0.2)}, r"gap must be two rising numbers of seconds from 0, got \[-0"),
        ({"val_takes": 0}, "nothing to join 10 val_strings of"),
    ],
)
def test_wrong_numbers_are_refused(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strings(root, **options)


def test_a_bad_take_stands_in_no_string_when_skipped(tmp_path: Path) -> None:
    for take in range(12):
        save_noise(tmp_path / f"3_ann_{take}.wav", seed=take)
    values = np.zeros(4000, np.float32)
    values[7] = np.nan
    save_values(tmp_path / "3_ann_10.wav", values)
    data = strings(tmp_path, bad_samples="skip").ready()
    assert [Path(b.source).name for b in data.left_out] == ["3_ann_10.wav"]
    batch = data.ready_dataset("train").__getitems__(list(range(40)))  # type: ignore[attr-defined]
    assert batch["waveform"].isfinite().all()


def test_strings_need_takes(tmp_path: Path) -> None:
    for take in (0, 10, 11):
        save_noise(tmp_path / f"3_ann_{take}.wav", seed=take)
    with pytest.raises(ValueError, match="has no takes to join val strings of"):
        strings(tmp_path).read()
    assert list(strings(tmp_path, val_strings=0).read().splits) == ["train", "test"]


def test_the_real_ones(shared_data: Path) -> None:
    if not (shared_data / "fsdd").is_dir():
        pytest.skip("FSDD is not there")
    root = shared_data / "fsdd"
    splits = digits(root).read().splits
    assert {s: len(part) for s, part in splits.items()} == {"train": 2400, "val": 300, "test": 300}
    splits = digits(root, held_out_speaker="theo", bad_samples="skip").read().splits
    assert {s: len(part) for s, part in splits.items()} == {"train": 2250, "val": 250, "test": 500}
    data = strings(root)
    part = data.ready_dataset("test")
    batch = part.__getitems__([0, 1, 2])  # type: ignore[attr-defined]
    assert batch["lengths"].tolist() == [u.audio.samples for u in part.utterances[:3]]  # type: ignore[attr-defined]
    assert torch.equal(batch["waveform"][0, : batch["lengths"][0]], part.utterances[0].audio.read())  # type: ignore[attr-defined]
