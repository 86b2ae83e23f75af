import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.manifest import Manifest
from resdomains_tasks.speech_recognition.tokens import Characters

from .sounds import save_noise


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def module(root: Path, **options: Any) -> Manifest:
    return Manifest(**{"root": str(root), "train": "train.json", "batch_size": 2, **options})


def write(path: Path, *rows: dict[str, Any] | str | bytes) -> Path:
    """Write objects as JSON, and other lines as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(row) if isinstance(row, dict) else row for row in rows]
    data = [text if isinstance(text, bytes) else text.encode() for text in texts]
    path.write_bytes(b"\n".join(data) + b"\n")
    return path


def row(file: str | Path, text: str = "go on", **more: Any) -> dict[str, Any]:
    return {"audio_filepath": str(file), "text": text, **more}


def test_a_line_is_an_utterance(tmp_path: Path) -> None:
    save_noise(tmp_path / "wav" / "ä 1.wav", 0.5)
    save_noise(tmp_path / "wav" / "2.flac", 1.0)
    write(
        tmp_path / "train.json",
        b"\xef\xbb\xbf" + json.dumps(row("wav/ä 1.wav", duration=0.52)).encode(),
        "",
        row("wav/2.flac", "Öl", speaker=7, lang="de", duration=None),
    )
    corpus = module(tmp_path, val_fraction=0.0).read()
    assert [(u.source, u.text, u.speaker, u.audio.seconds) for u in corpus.splits["train"]] == [
        ("train.json:1", "go on", None, 0.5),
        ("train.json:3", "Öl", "7", 1.0),
    ]
    assert corpus.notes == []


def test_several_manifests_make_a_split(tmp_path: Path) -> None:
    for i in range(4):
        save_noise(tmp_path / f"{i}.wav", seed=i)
        write(tmp_path / f"{i}.json", row(f"{i}.wav"))
    data = module(tmp_path, train=["0.json", "1.json"], val="2.json", test=["3.json"])
    found = {s: [u.source for u in part] for s, part in data.read().splits.items()}
    assert found == {"train": ["0.json:1", "1.json:1"], "val": ["2.json:1"], "test": ["3.json:1"]}


def test_an_offset_means_a_part(tmp_path: Path) -> None:
    save_noise(tmp_path / "a.wav", 2.0)
    parts = [(0, 0.5), (0.5, 1.0), (1.5, 0.54), (1.75, None)]
    write(tmp_path / "train.json", *(row("a.wav", offset=o, duration=d) for o, d in parts))
    found = module(tmp_path).read().splits["train"]
    assert [u.audio.seconds for u in found] == [0.5, 1.0, 0.5, 0.25]
    assert (found[1].audio.read() == found[1].audio.read()).all()


def test_parts_of_a_file_are_held_out_together(tmp_path: Path) -> None:
    rows = []
    for i in range(10):
        save_noise(tmp_path / f"{i}.wav", 1.0, seed=i)
        rows += [row(f"{i}.wav", offset=k / 4, duration=0.25, speaker=str(i)) for k in range(4)]
    write(tmp_path / "train.json", *rows[::2], *rows[1::2])
    corpus = module(tmp_path, val_fraction=0.2).read()
    speakers = {s: {u.speaker for u in part} for s, part in corpus.splits.items()}
    assert not speakers["train"] & speakers["val"]
    assert {s: len(part) for s, part in corpus.splits.items()} == {"train": 32, "val": 8}
    assert corpus.notes == ["of 40 utterances 8 validate, chosen by a hash of the file's name"]
    write(tmp_path / "train.json", *rows[::-1])
    again = module(tmp_path, val_fraction=0.2, seed=3).read().splits
    assert {u.speaker for u in again["val"]} == speakers["val"]


def test_wrong_durations_are_said_and_the_files_taken(tmp_path: Path) -> None:
    for i, seconds in enumerate((0.5, 1.0, 1.5)):
        save_noise(tmp_path / f"{i}.wav", seconds)
    rows = [row("0.wav", duration=0.55), row("1.wav", duration=2), row("2.wav", duration=0.5)]
    write(tmp_path / "train.json", *rows)
    corpus = module(tmp_path, val_fraction=0.0).read()
    assert [u.audio.seconds for u in corpus.splits["train"]] == [0.5, 1.0, 1.5]
    assert corpus.notes == [
        "train.json: 2 of 3 durations are wrong and taken from the files "
        "(train.json:2 states 2 s, there are 1 s)"
    ]


@pytest.mark.parametrize("lead", ["tests/data/", "/home/me/corpus/", "x/"])
def test_leading_folders_that_do_not_exist_are_taken_off(tmp_path: Path, lead: str) -> None:
    save_noise(tmp_path / "asr" / "wav" / "1.wav")
    write(tmp_path / "train.json", row(f"{lead}asr/wav/1.wav"))
    corpus = module(tmp_path).read()
    assert len(corpus.splits["train"]) == 1
    said = lead if not lead.startswith("/home/") else r"/home/me/corpus/"
    assert corpus.notes == [f"train.json: files are found without the leading {said}"]


def test_a_path_is_below_the_manifest_then_below_root(tmp_path: Path) -> None:
    save_noise(tmp_path / "lists" / "wav" / "1.wav", 0.5)
    save_noise(tmp_path / "wav" / "1.wav", 1.0)
    save_noise(tmp_path / "wav" / "2.wav", 1.5)
    absolute = save_noise(tmp_path / "elsewhere" / "3.wav", 2.0)
    rows = [row("wav/1.wav"), row("wav/2.wav"), row(absolute), row("../wav/1.wav")]
    write(tmp_path / "lists" / "train.json", *rows)
    corpus = module(tmp_path, train="lists/train.json", val_fraction=0.0).read()
    assert [u.audio.seconds for u in corpus.splits["train"]] == [0.5, 1.5, 2.0, 1.0]
    assert corpus.notes == []


def test_a_file_of_that_name_in_another_folder_is_not_taken(tmp_path: Path) -> None:
    save_noise(tmp_path / "1.wav")
    save_noise(tmp_path / "wav" / "2.wav")
    write(tmp_path / "train.json", row("wav/1.wav"))
    with pytest.raises(BadSample, match=r"train\.json:1: .*wav/1\.wav: the file does not exist"):
        module(tmp_path).read()


BAD: list[tuple[dict[str, Any] | str | bytes, str]] = [
    ("{broken", r"not JSON \(.*\); a manifest has one object a line, not '{broken'"),
    ('["a.wav"]', r"one JSON object a line, not '\[\"a.wav\"\]'"),
    ("[" * 100000, "not JSON"),
    ('{"audio_filepath": "a.wav", "text": "a", "duration": 1' + "0" * 5000 + "}", "not JSON"),
    (b'{"audio_filepath": "a.wav", "text": "caf\xe9"}', r"not UTF-8 \(byte 0xe9\); save the file"),
    ({"text": "a"}, "'audio_filepath' must name a file, got None"),
    (row(""), "'audio_filepath' must name a file, got ''"),
    ({"audio_filepath": ["a.wav"], "text": "a"}, "'audio_filepath' must name a file, got"),
    (row("a\0.wav"), "'audio_filepath' must name a file"),
    ({"audio_filepath": "a.wav"}, "'text' must be the transcript, got None"),
    ({"audio_filepath": "a.wav", "text": 3}, "'text' must be the transcript, got 3"),
    ('{"audio_filepath": "a.wav", "text": "\\ud800"}', "'text' must be the transcript"),
    (row("no.wav"), r"no\.wav: the file does not exist"),
    (row("\ud800.wav"), "is not the name of a file"),
    (row("x" * 300), "File name too long"),
    (row("x" * 300 + "/a.wav"), "File name too long"),
    (row("a.wav", duration="1"), "'duration' must be seconds from 0, got '1'"),
    (row("a.wav", duration=-1), "'duration' must be seconds from 0, got -1"),
    (row("a.wav", duration=float("nan")), "'duration' must be seconds from 0, got nan"),
    (row("a.wav", offset=True), "'offset' must be seconds from 0, got True"),
    (row("a.wav", offset=10**400), "'offset' must be seconds from 0"),
    (row("a.wav", offset=0.5, duration=1), "the part from 0.5 to 1.5 s is not in the file"),
    (row("a.wav", offset=2), "the part from 2 s is not in the file, which lasts 0.500 s"),
    (row("a.wav", offset=0, duration=0), "a part must be longer than 0 s"),
    (row("text.wav"), "not a recording that soundfile reads"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_line_that_cannot_be_used_is_named(
    tmp_path: Path, line: dict[str, Any] | str | bytes, reason: str
) -> None:
    save_noise(tmp_path / "a.wav")
    (tmp_path / "text.wav").write_text("text")
    path = write(tmp_path / "train.json", row("a.wav"), "", line, row("a.wav"))
    with pytest.raises(BadSample, match=reason) as caught:
        module(tmp_path).read()
    assert caught.value.source == f"{path}:3"
    data = module(tmp_path, bad_samples="skip")
    assert [u.source for u in data.read().splits["train"]] == ["train.json:1", "train.json:4"]
    assert [bad.source for bad in data.left_out] == [f"{path}:3"]


def test_an_empty_transcript_is_named_by_its_line(tmp_path: Path) -> None:
    save_noise(tmp_path / "a.wav")
    write(tmp_path / "train.json", row("a.wav"), row("a.wav", " "))
    with pytest.raises(BadSample, match=r"train\.json:2: the transcript ' ' has no words"):
        module(tmp_path).ready()


def test_missing_and_empty_manifests_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train: .*train\.json does not exist; give the name of"):
        module(tmp_path).read()
    save_noise(tmp_path / "a.wav")
    write(tmp_path / "train.json", row("a.wav"))
    with pytest.raises(ValueError, match=r"val: .* is a folder"):
        module(tmp_path, val=".").read()
    write(tmp_path / "none.json", "")
    with pytest.raises(ValueError, match=r"test: .*none\.json lists nothing; it must hold"):
        module(tmp_path, test="none.json").read()
    with pytest.raises(ValueError, match="val_fraction is a share"):
        module(tmp_path, val_fraction=-0.1)


def an4(shared_data: Path) -> Path:
    folder = shared_data / "an4_mini"
    if not folder.is_dir():
        pytest.skip("AN4 is not there")
    return folder


def test_an4_has_paths_and_durations_of_another_machine(shared_data: Path) -> None:
    data = module(
        an4(shared_data),
        train="asr/an4_train.json",
        val="asr/an4_val.json",
        tokens=Characters(alphabet="abcdefghijklmnopqrstuvwxyz "),
    )
    assert len(data.ready_dataset("train")) == 30  # type: ignore[arg-type]
    assert len(data.ready_dataset("val")) == 10  # type: ignore[arg-type]
    said = " ".join(data.notes)
    assert "asr/an4_train.json: files are found without the leading tests/data/asr/" in said
    assert "asr/an4_train.json: 30 of 30 durations are wrong and taken from the files" in said
    assert "asr/an4_val.json: 10 of 10 durations are wrong" in said
    said_of_first = data.describe("train", 0)
    assert (said_of_first["source"], said_of_first["seconds"]) == ("asr/an4_train.json:1", 1.0)
    assert said_of_first["text"] == "stop"


def test_archives_are_to_be_unpacked(shared_data: Path, tmp_path: Path) -> None:
    folder = an4(shared_data) / "asr" / "tarred_an4"
    name = "tarred_audio_manifest.json"
    with pytest.raises(ValueError, match=rf"{name}:1: .*wav is inside a tar archive .*: tar -xf"):
        module(folder, train=name).read()
    (tmp_path / name).write_bytes((folder / name).read_bytes())
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path, filter="data")
    corpus = module(tmp_path, train=name, val_fraction=0.0).read()
    first, second = corpus.splits["train"][:2]
    assert (first.audio.seconds, second.audio.seconds) == (0.5, 0.7)
    assert len(corpus.splits["train"]) == 32
    assert corpus.notes == []
