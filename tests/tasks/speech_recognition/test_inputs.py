from pathlib import Path

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition.inputs import read_inputs

from .sounds import save_noise


def found(*inputs: Path | str) -> list[str]:
    """The files, or what is wrong."""
    return [
        str(audio) if isinstance(audio, BadSample) else audio.path
        for audio in read_inputs([str(given) for given in inputs])
    ]


def test_files_and_folders_come_in_the_order_given(tmp_path: Path) -> None:
    second = save_noise(tmp_path / "a folder" / "2.flac")
    first = save_noise(tmp_path / "a folder" / "1" / "z.wav")
    save_noise(tmp_path / "a folder" / ".hidden.wav")
    (tmp_path / "a folder" / "notes.txt").write_text("not sound")
    alone = save_noise(tmp_path / "b b.ogg")
    assert sorted(found(tmp_path / "a folder")) == sorted([str(first), str(second)])
    assert found(tmp_path / "a folder") == found(tmp_path / "a folder")
    assert found(alone, tmp_path / "a folder")[0] == str(alone)
    assert found(second, alone, second) == [str(second), str(alone), str(second)]


def test_a_file_that_is_named_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    path = save_noise(tmp_path / "sound.wav").rename(tmp_path / "sound.dat")
    assert found(path) == [str(path)]


def test_what_cannot_be_used_is_named_and_the_rest_still_comes(tmp_path: Path) -> None:
    good = save_noise(tmp_path / "mixed" / "good.wav")
    (tmp_path / "mixed" / "bad.wav").write_text("hello")
    (tmp_path / "silent").mkdir()
    bad, fine, none, gone = found(tmp_path / "mixed", tmp_path / "silent", tmp_path / "gone.wav")
    assert bad.startswith(f"{tmp_path / 'mixed' / 'bad.wav'}: not a recording that soundfile reads")
    assert fine == str(good)
    assert none.startswith(f"{tmp_path / 'silent'}: a folder without recordings (.wav, .flac")
    assert gone == f"{tmp_path / 'gone.wav'}: the file does not exist"


def test_recordings_are_opened_only_when_they_are_reached(tmp_path: Path) -> None:
    first, second = save_noise(tmp_path / "1.wav"), tmp_path / "2.wav"
    opened = read_inputs([str(first), str(second)])
    next(opened)
    save_noise(second)
    assert not isinstance(next(opened), BadSample)
