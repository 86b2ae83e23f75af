from pathlib import Path

import pytest

from resdomains.cli.errors import CliError
from resdomains.cli.yaml_files import read_config, read_text, summary_of


def test_numbers_follow_yaml_1_2() -> None:
    assert read_text("a: 1e-3\nb: .5\nc: 2020-01-02\nd: 1.0e+2", "x") == {
        "a": 1e-3,
        "b": 0.5,
        "c": "2020-01-02",
        "d": 100.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n b: [", r"x\.yaml:2: mapping values"),
        ("a: {b: 1, b: 2}", r"x\.yaml:1: the key 'b' stands here twice"),
        ("a: 1\na: 2", r"x\.yaml:2: the key 'a' stands here twice"),
        ("- 1", r"x\.yaml: a config holds `key: value` lines, this file holds a list"),
        ("1: 2", r"x\.yaml: a config holds `key: value` lines"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(CliError, match=message):
        read_config(path)


def test_tags_that_build_objects_are_refused_unexecuted(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    planted = tmp_path / "planted"
    path.write_text(f"seed: !!python/object/apply:os.mkdir ['{planted}']")
    with pytest.raises(CliError, match=r"x\.yaml:1: the tag !!python/object/apply:os.mkdir is not"):
        read_config(path)
    assert not planted.exists()


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="Is a directory"):
        read_config(tmp_path)
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CliError, match="not a text file"):
        read_config(binary)


def test_first_comment_is_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# What it is for\nseed: 0\n")
    assert summary_of(path) == "What it is for"
    path.write_text("seed: 0\n")
    assert summary_of(path) == ""


def test_an_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# nothing\n")
    assert read_config(path) == {}
