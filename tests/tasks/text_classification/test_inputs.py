import io
import json
from pathlib import Path
from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.text_classification.inputs import read_inputs
from resdomains_tasks.text_classification.spec import TextSpec


def spec(**changes: Any) -> TextSpec:
    values = {"classes": ["a", "b"], "tokenizer": "{}", "vocabulary": 2, "max_length": 8}
    return TextSpec(**{**values, "text_column": "text", **changes})


def found(inputs: list[str], described: TextSpec | None = None) -> list[Any]:
    return [
        (item.source, item.reason) if isinstance(item, BadSample) else item
        for item in read_inputs(inputs, described or spec())
    ]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    def give(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


def test_texts_files_and_standard_input_come_in_the_order_given(tmp_path: Path, stdin: Any) -> None:
    table = tmp_path / "reviews.csv"
    table.write_text('text,stars\n"two\nlines",1\nfine,5\n')
    stdin(b"from a pipe\r\nand one without an end")
    assert found(["some text", str(table), "-", "the last"]) == [
        ("some text", None, "argument 1"),
        ("two\nlines", None, "reviews.csv:2"),
        ("fine", None, "reviews.csv:4"),
        ("from a pipe", None, "stdin:1"),
        ("and one without an end", None, "stdin:2"),
        ("the last", None, "argument 4"),
    ]


def test_a_folder_gives_its_tables_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.jsonl").write_text('{"text": "three"}\n')
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert [text for text, _, _ in found([str(tmp_path)])] == ["one", "two", "three"]
    (tmp_path / "empty").mkdir()
    [(_, reason)] = found([str(tmp_path / "empty")])
    assert reason.startswith("a folder without tables (.csv, ")


@pytest.mark.parametrize(
    ("given", "source", "reason"),
    [
        ("gone.csv", "gone.csv", "no such file"),
        ("no/such/REVIEWS.PARQUET", "no/such/REVIEWS.PARQUET", "no such file"),
        ("  ", "argument 1", "the text is empty"),
        ("a\0b", "argument 1", "NUL character"),
        ("\udcff", "argument 1", "not in the file's encoding"),
    ],
)
def test_what_cannot_be_used_is_named(given: str, source: str, reason: str) -> None:
    [(where, why)] = found([given])
    assert where == source
    assert reason in why


def test_a_sentence_about_a_file_is_a_text() -> None:
    assert found(["I lost reviews.csv", "data.csvs"]) == [
        ("I lost reviews.csv", None, "argument 1"),
        ("data.csvs", None, "argument 2"),
    ]


def test_a_text_longer_than_any_file_name_is_a_text() -> None:
    assert found(["word " * 100_000]) == [("word " * 100_000, None, "argument 1")]


def test_a_broken_line_of_standard_input_does_not_end_it(stdin: Any) -> None:
    stdin(b"\xef\xbb\xbffirst\n\xff\xfe\n\nlast\n")
    items = found(["-"])
    assert [items[0], items[3]] == [("first", None, "stdin:1"), ("last", None, "stdin:4")]
    assert [source for source, _ in items[1:3]] == ["stdin:2", "stdin:3"]


def test_a_file_that_cannot_be_read_is_named_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    items = found([str(tmp_path / "a.parquet"), "a text"])
    assert "a.parquet" in items[0][0]
    assert "not a Parquet file" in items[0][1]
    assert items[1] == ("a text", None, "argument 2")


def test_pairs_are_json_lists_of_two(stdin: Any) -> None:
    pairs = spec(pair=True, pair_column="other")
    stdin(b'["c", "d"]\nc\n')
    items = found([json.dumps(["a", "b"]), "-", '["a"]', '["a", 3]', '["", "b"]'], pairs)
    assert items[:2] == [("a", "b", "argument 1"), ("c", "d", "stdin:1")]
    assert items[2][0] == "stdin:2"
    assert items[2][1].startswith("expected two texts as a JSON list")
    assert items[3][1].startswith("expected two texts as a JSON list")
    assert items[4][1] == "the second text must be a string, got 3"
    assert items[5][1] == "the text is empty"
