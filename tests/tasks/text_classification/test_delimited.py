import csv
import io
import random
import time

import pytest

from resdomains_tasks.text_classification.columns import KNOWN
from resdomains_tasks.text_classification.delimited import Dialect, has_header, records, sniff

COMMA = Dialect(",", True)


def read(text: str, dialect: Dialect = COMMA) -> tuple[list[tuple[int, list[str]]], dict[int, str]]:
    faults: dict[int, str] = {}
    return list(records(text, dialect, faults)), faults


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_the_csv_module_writes_is_read_as_it_reads_it(delimiter: str, quoting: int) -> None:
    draw = random.Random(0)
    rows = [
        ["".join(draw.choices('ab ,;\t|"\né🙂', k=draw.randrange(12))) + "." for _ in range(3)]
        for _ in range(500)
    ]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    text = file.getvalue()
    found, faults = read(text, Dialect(delimiter, True))
    assert not faults
    assert [values for _, values in found] == rows
    reader, lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [1]
    for _ in reader:
        lines.append(reader.line_num + 1)
    assert [line for line, _ in found] == lines[:-1]


def test_a_record_has_the_line_it_begins_in() -> None:
    found, _ = read('a,b\n"one\ntwo\nthree",x\n\n"y ""z""",w\n')
    assert found == [(1, ["a", "b"]), (2, ["one\ntwo\nthree", "x"]), (6, ['y "z"', "w"])]


def test_a_quote_that_is_never_closed_costs_its_own_line() -> None:
    found, faults = read('a,1\n"b,2\nc,3\nd,4')
    assert found == [(1, ["a", "1"]), (3, ["c", "3"]), (4, ["d", "4"])]
    assert faults == {2: "a quote opens a value here and is never closed"}
    assert read('a,1\n"b"",2\nc,3')[1] == faults


def test_a_quote_that_runs_into_another_costs_its_own_line_and_both_are_named() -> None:
    found, faults = read('a,1\n"b,2\nc,3\n"d",4')
    assert [line for line, _ in found] == [1, 3, 4]
    assert list(faults) == [2]
    assert "not followed by the delimiter where it closes, in line 4" in faults[2]


def test_quotes_within_a_value_belong_to_it() -> None:
    assert read('5" pipe,x\n a "b" c,y')[0] == [(1, ['5" pipe', "x"]), (2, [' a "b" c', "y"])]


def test_spaces_around_quotes_are_ignored() -> None:
    assert read('1, "a, b" \n2,c')[0] == [(1, ["1", "a, b"]), (2, ["2", "c"])]


def test_without_quoting_quotes_are_text_and_lines_are_records() -> None:
    found, faults = read('"a\tx\nb"\ty', Dialect("\t", False))
    assert found == [(1, ['"a', "x"]), (2, ['b"', "y"])]
    assert not faults


def test_a_delimiter_may_be_several_characters() -> None:
    assert read('"a::b"::c::d', Dialect("::", True))[0] == [(1, ["a::b", "c", "d"])]


def test_line_separators_within_a_text_end_no_record() -> None:
    assert read("a\u2028b\x85c\x0cd,x")[0] == [(1, ["a\u2028b\x85c\x0cd", "x"])]


def test_a_value_may_be_of_any_size() -> None:
    long = "x" * 10_000_000
    assert read(f'"{long}",1')[0] == [(1, [long, "1"])]


@pytest.mark.parametrize("unit", ['"a,1\n', '"""', 'a,"b""', '"\n', '""x\n', '"a""'])
def test_quotes_in_any_disorder_take_linear_time(unit: str) -> None:
    start = time.perf_counter()
    read(unit * 100_000)
    assert time.perf_counter() - start < 5


WORDS = ["the", "a", "film", "is", "bad,", "good;", "or", "so", "|", "well"]


def texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randrange(3, 20))) for _ in range(count)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ""])
@pytest.mark.parametrize("count", [4, 50, 2000])
def test_delimiter_and_quoting_are_found(
    delimiter: str, quoting: int, suffix: str, count: int
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
    writer.writerow(["text", "label"])
    writer.writerows([text, "yn"[i % 2]] for i, text in enumerate(texts(count)))
    found = sniff(file.getvalue(), suffix)
    assert found is not None
    assert found.delimiter == delimiter
    faults: dict[int, str] = {}
    assert [values[0] for _, values in records(file.getvalue(), found, faults)][1:] == texts(count)


def test_quotes_that_belong_to_messages_are_left_to_them() -> None:
    lines = [f"{'yn'[i % 2]}\t{text}" for i, text in enumerate(texts(1000))]
    # Far behind the sample, both cleanly closed in another line and not.
    lines[700], lines[800] = 'y\t"so he', 'n\tsaid"'
    lines[900], lines[950] = 'y\t"Hi" he said', 'y\t"Hi"'
    assert sniff("\n".join(lines), "") == Dialect("\t", False)


def test_messages_that_open_and_close_a_quote_in_two_lines_are_two() -> None:
    text = "".join(f"y\t{text}\n" for text in texts(20)) + 'y\t"so he\nn\tsaid"\n'
    assert sniff(text, "") == Dialect("\t", False)


def test_the_header_decides_between_delimiters_that_nearly_all_lines_have() -> None:
    rows = ["a, b\ty"] * 18 + ["a, b"] * 2
    assert sniff("\n".join(["text\tlabel", *rows]), ".csv") == Dialect("\t", False)


def test_the_suffix_decides_between_delimiters_that_all_lines_have() -> None:
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t"), (".txt", "\t")):
        assert sniff("a, b\tc\n" * 9, suffix) == Dialect(delimiter, False)


def test_two_lines_of_a_text_are_quoted_and_not_two_records() -> None:
    text = "text,label\n" + '"one\ntwo",a\nthree,b\n' * 10
    assert sniff(text, ".csv") == Dialect(",", True)


def test_no_delimiter_is_found_where_none_is() -> None:
    assert sniff("one two\nthree, four, five\nsix", ".csv") is None
    assert sniff("word\n" * 10, "") is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["Text", "Label"], ["a", "b"]], True),
        ([["", "text", "label"], ["0", "a", "b"]], True),
        ([["v1", "v2", "", ""], *[["01"[i % 2], f"a {i}", "", ""] for i in range(8)]], True),
        ([["text", "", "label"], ["a", "", "b"]], True),
        ([["words", "verdict"], *[["a b c", "01"[i % 2]] for i in range(8)]], True),
        ([["words", "verdict"], *[["a b c", "yn"[i % 2]] for i in range(8)]], True),
        ([["a film", "1"], *[["a b c", "01"[i % 2]] for i in range(8)]], False),
        ([["a film", "y"], *[["a b c", "yn"[i % 2]] for i in range(8)]], False),
        ([["a film", "y"]], False),
        # A class that is called as columns are.
        ([["a", "text"], *[["b", ["text", "speech"][i % 2]] for i in range(8)]], False),
    ],
)
def test_a_header_is_known_by_names_or_by_what_stands_below(
    rows: list[list[str]], expected: bool
) -> None:
    assert has_header(rows, KNOWN) is expected
