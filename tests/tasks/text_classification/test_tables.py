import json
import random
from pathlib import Path
from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.text_classification.spec import TextSpec
from resdomains_tasks.text_classification.tables import (
    DelimitedTable,
    Item,
    Reading,
    Table,
    is_saved,
    read_for_prediction,
    read_saved,
    read_table,
    text_fault,
)


def table(path: Path, content: str | bytes, *, single: bool = False, **reading: Any) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, path.name, Reading(**reading), single=single)


def rows(found: Table) -> list[list[Any]]:
    return [list(row) for row in zip(*map(found.values, found.columns), strict=True)]


def test_delimited_text_is_read_as_it_lies(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", 'id;text;label\n1;"a; b\nc";x\n\n2;d, e;y\n')
    assert found.columns == ["id", "text", "label"]
    assert rows(found) == [["1", "a; b\nc", "x"], ["2", "d, e", "y"]]
    assert list(found.lines) == [2, 5]
    assert found.about == "semicolon-separated, quoted, with a header"
    assert found.source(2) == "a.csv:2"
    found = table(tmp_path / "a.tsv", 'he "said"\t0\n"so" it\t1\n')
    assert found.columns == ["0", "1"]
    assert rows(found) == [['he "said"', "0"], ['"so" it', "1"]]
    assert found.about == "tab-separated, not quoted, without a header"


def test_what_is_given_is_not_guessed(tmp_path: Path) -> None:
    content = '"a,b"\tlabel\nc,d\tx\n'
    found = table(tmp_path / "a", content, delimiter=",", quoting="none", header=False)
    assert rows(found) == [['"a', 'b"\tlabel'], ["c", "d\tx"]]
    found = table(tmp_path / "a", content, quoting="standard", header=True)
    assert found.columns == ["a,b", "label"]
    found = table(tmp_path / "a", "words\tverdict\na\tb\n", names=("verdict",))
    assert found.columns == ["words", "verdict"]


def test_how_a_file_was_read_reads_its_like(tmp_path: Path) -> None:
    first = table(tmp_path / "a.txt", "text|label\n" + '"a|b"|c\n' * 5)
    assert isinstance(first, DelimitedTable)
    assert first.reading == Reading(delimiter="|", quoting="standard", header=True)


def test_the_encoding_is_said_where_it_is_not_utf_8(tmp_path: Path) -> None:
    content = "text,label\nschön,a\nübel,b\n"
    assert "utf-16" in table(tmp_path / "a.csv", content.encode("utf-16")).about
    assert table(tmp_path / "a.csv", content.encode("latin-1")).about.endswith(
        "cp1252 by its looks"
    )
    assert rows(table(tmp_path / "a.csv", content.encode("latin-1"))) == [
        ["schön", "a"],
        ["übel", "b"],
    ]
    assert table(tmp_path / "a.csv", content.encode("utf-8-sig")).columns == ["text", "label"]


def test_lines_that_are_no_rows_are_set_aside(tmp_path: Path) -> None:
    found = table(tmp_path / "a.csv", 'text,label\na,x\nb\nc,y,z\n"d,x\ne,y\n')
    assert rows(found) == [["a", "x"], ["e", "y"]]
    assert sorted(found.bad) == [3, 4, 5]
    assert found.bad[3] == "1 value (comma-separated, quoted), the header names 2"
    assert found.bad[4].startswith(
        "3 values (comma-separated, quoted), the header names 2; a value that"
    )
    assert "never closed" in found.bad[5]
    found = table(tmp_path / "a.tsv", "a b\t0\nc d\t1\ne f\ng h\t0\n")
    assert found.bad == {3: "1 value (tab-separated, not quoted), most have 2"}


def test_unnamed_columns_are_called_by_their_number(tmp_path: Path) -> None:
    assert table(tmp_path / "a.csv", ",text,label\n0,a,x\n1,b,y\n").columns == [
        "0",
        "text",
        "label",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.csv is empty"),
        ("\n \n", r"a\.csv is empty"),
        ("\ufeff", r"a\.csv is empty"),
        ("text,label\n", r"a\.csv holds a header and no rows"),
        ("text,label,text\na,b,c\n", r"a\.csv:1: the header names 'text' more than once"),
        ("text, text \na,b\n", r"a\.csv:1: the header names 'text' more than once"),
        ("text,label\0\na,b\n", r"a\.csv:1: the header names 'label\\x00', which is damaged"),
        (
            "one\ntwo\nthree\n",
            r"a\.csv: neither tab, comma, semicolon nor bar .*set --data\.delimiter",
        ),
        ('"a,b\n"c,d\n', r"a\.csv"),
        ("text,label\na,b,c\nd,e,f\n", r"a\.csv: no line is a row of the table; line 2: 3 values"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path / "a.csv", content, header="auto" if "one" in content else True)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.csv cannot be read \(No such file"):
        read_table(tmp_path / "absent.csv", "absent.csv", Reading())
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory"):
        read_table(tmp_path, "x", Reading())


@pytest.mark.parametrize("layout", ["lines", "list", "indented"])
def test_json(tmp_path: Path, layout: str) -> None:
    given = [{"text": "a\u2028b", "label": 1}, {"text": "🙂", "label": True, "more": None}]
    content = {
        "lines": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in given),
        "list": json.dumps(given),
        "indented": json.dumps(given, indent=2),
    }[layout]
    found = table(tmp_path / ("a.jsonl" if layout == "lines" else "a.json"), content)
    assert found.columns == ["text", "label", "more"]
    assert rows(found) == [["a\u2028b", 1, None], ["🙂", True, None]]
    assert list(found.lines) == ([1, 3] if layout == "lines" else [1, 2])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "b"', "not a JSON object (Expecting"),
        ('["b", 1]', "not a JSON object, but ['b', 1]"),
        ("3", "not a JSON object, but 3"),
        ("[" * 100_000, "not a JSON object (nested too deeply)"),
        ('{"text": ' + "9" * 5000 + "}", "not a JSON object (Exceeds the limit"),
        ('{"text": "a", "text": "b"}', "not a JSON object (key 'text' is given twice)"),
    ],
)
def test_broken_json_lines_are_set_aside(tmp_path: Path, line: str, reason: str) -> None:
    found = table(tmp_path / "a.jsonl", f'{{"text": "a"}}\n\n{line}\n{{"text": "c"}}\n')
    assert rows(found) == [["a"], ["c"]]
    assert list(found.bad) == [3]
    assert found.bad[3].startswith(reason)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n {"text": ', r"a\.json: not a list of JSON objects \(Expecting"),
        ("[1, 2]", r"a\.json:1: not a JSON object, but 1"),
        ("[]", r"a\.json:1: holds no objects"),
        (
            '{"text": {"0": "a"}',
            r"a\.json:1: not a JSON object .*one list of objects \(pandas: orient='records'\)",
        ),
        ("{\n}", r"a\.json:1: not a JSON object"),
        ("[" * 100_000, r"a\.json: not a list of JSON objects \(nested too deeply"),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table(tmp_path / "a.json", content)


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    given = pa.table(
        {
            "text": ["a", None, "🙂"],
            "label": [0, 1, 1],
            "x": pa.array(["a", "b", "a"]).dictionary_encode(),
        }
    )
    # A folder called so must not become a column.
    folder = tmp_path / "lang=en"
    folder.mkdir()
    parquet.write_table(given, folder / "a.parquet")
    found = read_table(folder / "a.parquet", "a.parquet", Reading())
    assert found.columns == ["text", "label", "x"]
    assert rows(found) == [["a", 0, "a"], [None, 1, "b"], ["🙂", 1, "a"]]
    assert list(found.lines) == [1, 2, 3]
    assert found.class_names("label") is None
    broken = pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")
    )
    parquet.write_table(pa.table({"text": broken}), tmp_path / "b.parquet")
    texts = read_table(tmp_path / "b.parquet", "b.parquet", Reading()).values("text")
    assert [text_fault(text) is None for text in texts] == [True, False]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"text,label\n"])
def test_broken_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=r"a\.parquet: not a Parquet file that can be read"):
        table(tmp_path / "a.parquet", content)


def test_columns_of_one_name_and_no_rows_are_refused_in_parquet_too(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has columns of the same name: 'text'"):
        read_table(tmp_path / "a.parquet", "a.parquet", Reading())
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet holds no rows"):
        read_table(tmp_path / "a.parquet", "a.parquet", Reading())


def test_a_saved_data_set_is_read_with_its_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["x", "y"])),
        }
    )
    given = datasets.Dataset.from_dict(
        {"text": ["a", "b", "c"], "label": [1, 0, 1], "tags": [[0], [], [0, 1]]}, features=features
    )
    both = datasets.DatasetDict({"train": given, "validation": given.select([2, 0])})
    both.save_to_disk(str(tmp_path / "saved"))
    assert is_saved(tmp_path / "saved")
    assert not is_saved(tmp_path)
    found = read_saved(tmp_path / "saved")
    assert rows(found["train"]) == [["a", 1, [0]], ["b", 0, []], ["c", 1, [0, 1]]]
    assert found["validation"].values("text") == ["c", "a"]
    assert found["train"].class_names("label") == ["neg", "pos"]
    assert found["train"].class_names("tags") == ["x", "y"]
    assert found["train"].class_names("text") is None
    given.to_parquet(str(tmp_path / "a.parquet"))
    alike = read_table(tmp_path / "a.parquet", "a.parquet", Reading())
    assert alike.class_names("label") == ["neg", "pos"]
    (tmp_path / "saved" / "train" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"saved: cannot be read as datasets saved it \("):
        read_saved(tmp_path / "saved")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("🙂 مرحبا", None),
        (" \n\t", "the text is empty"),
        (None, "the text is missing"),
        (3, "the text must be a string, got 3"),
        ("a\0", "the text holds a NUL character"),
        ("a\udc80", "the text holds bytes that are not in the file's encoding"),
    ],
)
def test_why_a_value_is_no_text(value: Any, fault: str | None) -> None:
    found = text_fault(value)
    assert found == fault or (fault is not None and found is not None and found.startswith(fault))


def spec(text: str | None = "text", pair: str | None = None) -> TextSpec:
    return TextSpec(
        classes=["a", "b"],
        prevalence=[0.5, 0.5],
        tokenizer="{}",
        vocabulary=5,
        max_length=8,
        pair=pair is not None,
        text_column=text,
        pair_column=pair,
    )


def predicted(path: Path, content: str, description: TextSpec) -> list[Item | BadSample]:
    path.write_text(content, encoding="utf-8", newline="")
    return list(read_for_prediction(path, description))


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", 'id,text\n1,"b, c"\n2,d\n', [2, 3]),
        ("a.csv", 'text\n"b, c"\nd\n', [2, 3]),
        ("a.csv", "text\nb, c\nd\n", [2, 3]),
        ("a.csv", "text\nb, c\nd\n" + "e, f\n" * 8, [2, 3]),
        ("a.tsv", "b, c\t1\nd\t0\n", [1, 2]),
        ("a.txt", "b, c\nd\n", [1, 2]),
        ("a.txt", "1\tb, c\n1\td\n", [1, 2]),
        ("a", "b, c\nd", [1, 2]),
        ("a.jsonl", '{"n": 1, "text": "b, c"}\n{"text": "d"}\n', [1, 2]),
        ("a.json", '[{"text": "b, c"}, {"text": "d"}]', [1, 2]),
    ],
)
def test_texts_to_predict_are_found(
    tmp_path: Path, name: str, content: str, lines: list[int]
) -> None:
    assert predicted(tmp_path / name, content, spec())[:2] == [
        ("b, c", None, f"{name}:{lines[0]}"),
        ("d", None, f"{name}:{lines[1]}"),
    ]


def test_lines_of_text_are_whole_texts_whatever_stands_in_them(tmp_path: Path) -> None:
    for lines in (['so, "he", said', '"quoted, whole"', "a; b", "text"], ["one, two"] * 9):
        found = predicted(tmp_path / "a.txt", "\n".join(lines), spec())
        assert [item[0] for item in found if not isinstance(item, BadSample)] == lines


def test_what_cannot_be_predicted_is_named_in_its_place(tmp_path: Path) -> None:
    found = predicted(tmp_path / "a.csv", 'text,x\na,1\n,2\nb\n"c,3\nd,4\n', spec())
    assert [str(item) if isinstance(item, BadSample) else item[0] for item in found] == [
        "a",
        "a.csv:3: the text is empty",
        "a.csv:4: 1 value (comma-separated, quoted), the header names 2",
        "a.csv:5: a quote opens a value here and is never closed",
        "d",
    ]


def test_another_column_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = predicted(tmp_path / "a.csv", "id,review\n1,a\n2,b\n", spec("words"))
    assert [item[0] for item in found if not isinstance(item, BadSample)] == ["a", "b"]
    assert caplog.messages == ["a.csv: 'review' is taken as the text, there is no 'words'"]


def test_pairs_to_predict(tmp_path: Path) -> None:
    description = spec("premise", "hypothesis")
    expected = [("a", "b", "p.csv:2")]
    assert predicted(tmp_path / "p.csv", "n,hypothesis,premise\n1,b,a\n", description) == expected
    assert predicted(tmp_path / "p.tsv", "a\tb\n", description) == [("a", "b", "p.tsv:1")]
    with pytest.raises(
        ValueError, match=r"p\.csv: has the columns 'id', 'x', 'y', but the task reads pairs"
    ):
        predicted(tmp_path / "p.csv", "id,x,y\n1,b,a\n2,c,d\n", description)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.txt"])
def test_damaged_files_end_in_a_message_that_names_them(tmp_path: Path, name: str) -> None:
    draw = random.Random(name)
    content = {
        "a.csv": b'id,text,label\n1,"a ""b"", c",x\n2,"d\ne",y\n3,f,x\n' * 3,
        "a.tsv": 'ä "b"\tx\nc, d\ty\n🙂 e\tx\n'.encode() * 3,
        "a.jsonl": b'{"text": "a \\ud83d\\ude00", "label": 1}\n{"text": "b", "label": [true]}\n'
        * 3,
        "a.json": b'[{"text": "a", "label": 1}, {"text": "b", "label": null}]',
        "a.txt": b"a\nb, c\nd\n",
    }[name]
    path = tmp_path / name
    outcomes = set()
    for _ in range(300):
        data = bytearray(content)
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(data) + 1)
            kind = draw.randrange(4)
            if kind == 0:
                data[place:place] = draw.choice(
                    [b'"', b"\0", b"\n", b",", b"\t", b"\xff", b"[", b"{", b"\\", b"\r"]
                )
            elif kind == 1:
                del data[place : place + draw.randrange(1, 20)]
            elif kind == 2:
                data[place : place + 1] = bytes([draw.randrange(256)])
            else:
                data[0:0] = draw.choice([b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\0"])
            data = data or bytearray(b"x")
        path.write_bytes(data)
        for attempt in (
            lambda: list(read_for_prediction(path, spec())),
            lambda: rows(read_table(path, name, Reading())),
        ):
            try:
                found = attempt()
            except ValueError as error:
                message = str(error)
            else:
                message = ""
            bad = (
                [item.source for item in found if isinstance(item, BadSample)]
                if not message
                else []
            )
            assert name in message or not message
            assert all(source.startswith(name) for source in bad)
            message.encode()
            outcomes.add("refused" if message else "bad" if bad else "read")
    assert outcomes == {"read", "bad", "refused"} or name == "a.txt"
