import csv
import hashlib
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.text_classification.files import TextFiles
from resdomains_tasks.text_classification.splits import HashSplit, RandomSplit
from resdomains_tasks.text_classification.texts import Corpus
from resdomains_tasks.text_classification.tokens import Bytes

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")

ROWS = [(f"text, number {i}", "yn"[i % 2]) for i in range(40)]


def module(root: Path, **options: Any) -> TextFiles:
    return TextFiles(**{"root": str(root), "batch_size": 2, "tokens": Bytes(), **options})


def read(root: Path, **options: Any) -> Corpus:
    return module(root, **options).read()


def write(path: Path, rows: Iterable[Iterable[Any]] = ROWS, *header: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header or ("text", "label"), *rows])
    return path


def sizes(corpus: Corpus) -> dict[str, int]:
    return {split: len(texts) for split, texts in corpus.splits.items()}


def test_a_file_alone_is_split_in_three(tmp_path: Path) -> None:
    corpus = read(write(tmp_path / "reviews.csv"), split=RandomSplit(0.2, 0.1))
    assert sizes(corpus) == {"train": 28, "val": 8, "test": 4}
    together = [
        pair for t in corpus.splits.values() for pair in zip(t.texts, t.targets, strict=True)
    ]
    assert sorted(together) == sorted(ROWS)
    for texts in corpus.splits.values():
        for text, source in zip(texts.texts, texts.sources, strict=True):
            assert source == f"reviews.csv:{int(text.split()[-1]) + 2}"
    assert corpus.classes == ["n", "y"]
    assert (corpus.text_column, corpus.pair_column) == ("text", None)
    assert corpus.notes == [
        "reviews.csv: comma-separated, quoted, with a header; text from column 'text', label from column 'label' "
        "(text and label guessed)",
        "RandomSplit holds texts out: 28 train, 8 val, 4 test",
    ]


def test_the_only_table_of_a_folder_is_split_too(tmp_path: Path) -> None:
    write(tmp_path / "reviews.csv")
    (tmp_path / "README.txt").write_text("No table.\n")
    assert set(sizes(read(tmp_path))) == {"train", "val", "test"}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Dev"])
def test_tables_are_found_by_the_names_of_splits(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.csv", ROWS[:20])
    write(tmp_path / f"{name}.csv", ROWS[20:30])
    write(tmp_path / "test.csv", ROWS[30:])
    corpus = read(tmp_path)
    assert sizes(corpus) == {"train": 20, "val": 10, "test": 10}
    assert corpus.splits["val"].sources[0] == f"{name}.csv:2"


def test_what_is_missing_beside_a_test_table_is_validation_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS[:20])
    write(tmp_path / "test.csv", ROWS[20:])
    assert sizes(read(tmp_path)) == {"train": 18, "val": 2, "test": 20}
    (tmp_path / "test.csv").rename(tmp_path / "dev.csv")
    assert sizes(read(tmp_path)) == {"train": 20, "val": 20}


@pytest.mark.parametrize(
    "names",
    [
        [
            "train-00000-of-00002.csv",
            "train-00001-of-00002.csv",
            "validation-00000-of-00001-0a1b2c.csv",
        ],
        ["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv", "data/validation.csv"],
        ["train/0.csv", "train/1.csv", "validation/0.csv"],
    ],
)
def test_splits_may_be_in_parts_and_in_folders(tmp_path: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        write(tmp_path / name, ROWS[10 * i : 10 * i + 10])
    corpus = read(tmp_path)
    assert sizes(corpus) == {"train": 20, "val": 10}
    assert [corpus.splits["train"].sources[i] for i in (0, 10)] == [f"{n}:2" for n in names[:2]]


def test_files_may_be_named(tmp_path: Path) -> None:
    for name in ("train", "one", "two", "three", "test"):
        write(tmp_path / f"{name}.csv", ROWS[:10])
    corpus = read(tmp_path, train="one.csv", val="two.csv")
    assert {split: texts.sources[0] for split, texts in corpus.splits.items()} == {
        "train": "one.csv:2",
        "val": "two.csv:2",
        "test": "test.csv:2",
    }


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            [],
            {},
            r"root: .* holds no training table; looked for train and training with \.csv.*the folder holds nothing",
        ),
        (
            ["a.csv", "b.csv"],
            {},
            r"the folder holds a\.csv, b\.csv; name the file with --data\.train",
        ),
        (
            ["train.csv", "train.tsv"],
            {},
            r"train: train\.csv, train\.tsv in .* could all be it; name one with --data\.train",
        ),
        (["dev.csv", "train.csv", "val.csv"], {}, r"val: dev\.csv, val\.csv in .* could all be it"),
        (["a.csv"], {"train": "b.csv"}, r"train: .*b\.csv does not exist; the folder holds a\.csv"),
        (["a/a.csv"], {"train": "a"}, r"train: .*a is a folder; the folder holds a/"),
    ],
)
def test_folders_without_a_clear_training_table_are_refused(
    tmp_path: Path, files: list[str], options: dict[str, str], message: str
) -> None:
    for name in files:
        write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **options)


def test_a_root_that_is_not_there_or_a_file_among_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"root: .*absent does not exist; set --data\.root to the file or the folder",
    ):
        read(tmp_path / "absent")
    path = write(tmp_path / "a.csv")
    with pytest.raises(
        ValueError, match=r"root: .*a\.csv is a file, the training texts; for test 'b.csv' give"
    ):
        read(path, test="b.csv")


def test_the_other_tables_are_read_as_the_training_table(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ROWS, "words", "verdict")
    # By itself two lines tell nothing of a header.
    write(tmp_path / "test.csv", [("a", "y"), ("b", "n")], "words", "verdict")
    assert read(tmp_path).splits["test"].texts == ["a", "b"]


def test_columns_are_given_by_name_or_number(tmp_path: Path) -> None:
    rows = [(str(i), text, label, "z") for i, (text, label) in enumerate(ROWS)]
    path = write(tmp_path / "a.csv", rows, "id", "words", "verdict", "constant")
    named = read(path, text="words", label="verdict")
    assert read(path, text=1, label=2).splits == named.splits == read(path).splits
    assert "guessed" not in named.notes[0]
    assert "(label guessed)" in read(path, text=1).notes[0]
    (tmp_path / "b.csv").write_text("\n".join(path.read_text().split("\n")[1:]))
    assert read(tmp_path / "b.csv", text=1, label=2).text_column == "1"
    with pytest.raises(
        ValueError, match=r"label: a\.csv has no column 'verdicts' \(did you mean 'verdict'\?\)"
    ):
        read(path, label="verdicts")
    with pytest.raises(ValueError, match="text, pair and label must be different columns"):
        read(path, text="words", label="words")


def test_a_table_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv")
    write(tmp_path / "test.csv", ROWS, "words", "label")
    with pytest.raises(
        ValueError,
        match=r"test\.csv: has no column 'text', which the training file has; it has 'words'",
    ):
        read(tmp_path)


def test_pairs(tmp_path: Path) -> None:
    rows = [(f"a {i}", f"b {i}", "yn"[i % 2]) for i in range(20)]
    guessed = read(write(tmp_path / "a.csv", rows, "premise", "hypothesis", "label"))
    assert (guessed.text_column, guessed.pair_column) == ("premise", "hypothesis")
    given = read(write(tmp_path / "b.csv", rows, "x", "y", "label"), text="x", pair="y")
    for corpus in (guessed, given):
        for texts in corpus.splits.values():
            assert texts.pairs == [text.replace("a", "b") for text in texts.texts]
    rows[3] = ("a", "", "y")
    with pytest.raises(BadSample, match=r"c\.csv:5: the second text is empty"):
        read(write(tmp_path / "c.csv", rows, "premise", "hypothesis", "label"))


BAD = (
    "text,label\n"
    "a,x\n"  # 2
    ",y\n"
    "b,\n"
    "c\n"
    "d,x,y\n"
    '"e\nf",y\n'  # 7 and 8
    '"g ""h""" i,x\n'
    "j\0,x\n"
    "k\udcff,x\n"
    "lé,y\n"  # 12
    '"m,x'
)
REASONS = {
    3: "the text is empty",
    4: "the label is missing",
    5: "1 value (comma-separated, quoted), the header names 2",
    6: "3 values (comma-separated, quoted), the header names 2; a value that holds the delimiter must be quoted",
    9: "a quote opens a value here that is not followed by the delimiter where it closes, in line 9; "
    "a quote within quotes is written twice",
    10: "the text holds a NUL character",
    11: "the text holds bytes that are not in the file's encoding, or half a surrogate pair",
    13: "a quote opens a value here and is never closed",
}


def write_bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.csv"
    path.write_bytes(BAD.encode("utf-8", "surrogateescape"))
    return path


def test_lines_that_give_no_sample_are_named_counted_and_left_out_when_skipped(
    tmp_path: Path,
) -> None:
    path = write_bad(tmp_path)
    data = module(path, bad_samples="skip", split=RandomSplit(0.0, 0.0))
    corpus = data.read()
    assert {error.source: error.reason for error in data.left_out} == {
        f"bad.csv:{line}": reason for line, reason in REASONS.items()
    }
    assert corpus.splits["train"].texts == ["a", "e\nf", "lé"]
    assert corpus.splits["train"].sources == ["bad.csv:2", "bad.csv:7", "bad.csv:12"]
    (note,) = [note for note in corpus.notes if "left out" in note]
    assert note.startswith(
        "8 of 11 samples are left out (--data.bad_samples skip): bad.csv:3: the text is empty; bad.csv:4:"
    )
    assert note.endswith("; ...")


def test_the_first_of_them_stops_when_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSample) as caught:
        read(write_bad(tmp_path))
    assert str(caught.value) == (
        "bad.csv:3: the text is empty, and 7 more cannot be used "
        "(--data.bad_samples skip leaves such samples out)"
    )
    (tmp_path / "a.csv").write_text('text,label\na,x\n"b" c,y\n')
    with pytest.raises(
        BadSample, match=r"; set --data\.quoting none if quotes belong to the texts"
    ):
        read(tmp_path / "a.csv")


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("", "x"), ("", "y")])
    with pytest.raises(ValueError, match="no sample to train on is left"):
        read(path, bad_samples="skip")


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_label_that_training_has_not_is_named(tmp_path: Path, split: str) -> None:
    write(tmp_path / "train.csv")
    write(tmp_path / f"{split}.csv", [("a", "y"), ("b", "maybe"), ("c", "n")])
    with pytest.raises(
        BadSample, match=rf"{split}\.csv:3: 'maybe' is not one of the 2 classes \(n, y\) that"
    ):
        read(tmp_path)
    assert read(tmp_path, bad_samples="skip").splits[split].texts == ["a", "c"]  # type: ignore[index]


def test_class_names_fix_the_order_and_must_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv")
    assert read(path, class_names=["y", "n"]).classes == ["y", "n"]
    with pytest.raises(BadSample, match=r"a\.csv:3: 'n' is not one of the 1 classes \(y\)"):
        read(path, class_names=["y"])
    with pytest.raises(ValueError, match="class_names: z have no training text"):
        read(path, class_names=["y", "n", "z"])


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(text, "y") for text, _ in ROWS])
    with pytest.raises(
        ValueError,
        match=r"label: all 32 training texts in .* have the label 'y'; a classifier needs two",
    ):
        read(path)


def test_labels_are_text_as_they_stand(tmp_path: Path) -> None:
    labels = ["0", "1", "true", "1.0", " 0"]
    path = write(tmp_path / "a.csv", [(text, labels[i % 5]) for i, (text, _) in enumerate(ROWS)])
    assert read(path).classes == ["0", "1", "1.0", "true"]
    rows = [{"text": text, "label": [0, 1, True, 1.0][i % 4]} for i, (text, _) in enumerate(ROWS)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path / "a.jsonl").classes == ["0", "1", "true"]


def test_ragged_json_names_the_line_that_lacks_a_key(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a", "label": "x"},
        {"label": "y", "more": 1},
        {"text": "b"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        BadSample, match=r"a\.jsonl:2: the text is missing, and 1 more cannot be used"
    ):
        read(tmp_path / "a.jsonl")


def several(tmp_path: Path, name: str) -> Path:
    labels = [["sun"], ["sun", "sea"], [], ["sea"]] * 10
    if name.endswith(".csv"):
        return write(
            tmp_path / name, [(t, "|".join(x)) for (t, _), x in zip(ROWS, labels, strict=True)]
        )
    rows = [{"text": text, "label": x} for (text, _), x in zip(ROWS, labels, strict=True)]
    (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.csv", {"kind": "multilabel"}), ("a.csv", {"label_separator": "|"}), ("a.jsonl", {})],
)
def test_several_labels_a_text(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    corpus = read(several(tmp_path, name), **options, split=RandomSplit(0.0, 0.0))
    assert corpus.classes == ["sea", "sun"]
    assert corpus.splits["train"].targets[:4] == [["sun"], ["sun", "sea"], [], ["sea"]]
    assert "labels from column 'label'" in corpus.notes[0]


def test_a_column_for_each_label(tmp_path: Path) -> None:
    rows = [(text, i % 2, int(i % 3 == 0)) for i, (text, _) in enumerate(ROWS)]
    path = write(tmp_path / "a.csv", rows, "comment_text", "toxic", "insult")
    corpus = read(path, label=["toxic", "insult"], split=RandomSplit(0.0, 0.0))
    assert corpus.classes == ["toxic", "insult"]
    assert corpus.splits["train"].targets[:4] == [["insult"], ["toxic"], [], ["toxic", "insult"]]
    rows[5] = ("x", 7, 0)
    with pytest.raises(
        BadSample, match=r"a\.csv:7: a class's own column must hold 0 or 1, got '7'"
    ):
        read(write(path, rows, "comment_text", "toxic", "insult"), label=["toxic", "insult"])


def test_numbers_are_predicted_only_if_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [(text, i % 30 / 4) for i, (text, _) in enumerate(ROWS)])
    corpus = read(path, kind="regression", split=RandomSplit(0.0, 0.0))
    assert corpus.classes is None
    assert corpus.splits["train"].targets[:3] == [0.0, 0.25, 0.5]
    with pytest.raises(
        ValueError, match=r"label: column 'label' of a\.csv: .*--data\.kind regression"
    ):
        read(path)
    with pytest.raises(BadSample, match=r"b\.csv:2: the label must be a number, got 'y'"):
        read(write(tmp_path / "b.csv"), kind="regression")


def test_a_test_table_without_labels_is_said_and_not_used(tmp_path: Path) -> None:
    write(tmp_path / "train.csv")
    write(tmp_path / "test.csv", [(i, text) for i, (text, _) in enumerate(ROWS)], "id", "text")
    corpus = read(tmp_path)
    assert sizes(corpus) == {"train": 32, "val": 4, "test": 4}
    assert any(note.startswith("test.csv has no labels and is not used") for note in corpus.notes)
    with pytest.raises(ValueError, match=r"test\.csv: has no column 'label'"):
        read(tmp_path, train="train.csv", test="test.csv")


def test_repeated_texts_are_taken_once(tmp_path: Path) -> None:
    train = [("a", "x"), ("b", "y"), ("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")]
    write(tmp_path / "train.csv", train)
    write(tmp_path / "dev.csv", [("c", "x"), ("e", "y"), ("e", "y")])
    corpus = read(tmp_path, distinct=True)
    assert corpus.splits["train"].sources == ["train.csv:2", "train.csv:3", "train.csv:7"]
    assert corpus.splits["val"].sources == ["dev.csv:2", "dev.csv:3"]
    assert corpus.notes[1:] == [
        "train: 2 repeated texts, 1 of them with another label than the first and 1 that are held out left out of 6",
        "val: 1 repeated texts left out of 3",
    ]
    corpus = read(tmp_path)
    assert sizes(corpus) == {"train": 6, "val": 3}
    assert corpus.notes[1:] == [
        "1 of 3 texts in val also train; --data.distinct true takes them out"
    ]


def test_a_huge_text_and_other_alphabets_are_read(tmp_path: Path) -> None:
    huge = "🙂 مرحبا " * 1_200_000
    path = write(tmp_path / "a.csv", [*ROWS, (huge, "y")])
    assert path.stat().st_size > 10_000_000
    assert huge in read(path, split=RandomSplit(0.0, 0.0)).splits["train"].texts


def test_utf_16_is_read_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("schön", "y"), ("übel", "n")] * 10)
    plain = read(path)
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    corpus = read(path)
    assert corpus.splits == plain.splits
    assert "utf-16 by its looks" in corpus.notes[0]


def test_parquet_and_saved_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["pos", "neg", "unseen"]),
        }
    )

    def part(begin: int, end: int, secret: bool = False) -> Any:
        rows = ROWS[begin:end]
        values = [-1 if secret else "yn".index(label) for _, label in rows]
        return datasets.Dataset.from_dict(
            {"text": [t for t, _ in rows], "label": values}, features=features
        )

    whole = datasets.DatasetDict(
        {
            "train": part(0, 20),
            "validation": part(20, 30),
            "test": part(30, 40, secret=True),
            "unsupervised": part(0, 5),
        }
    )
    whole.save_to_disk(str(tmp_path / "saved"))
    corpus = read(tmp_path / "saved")
    assert sizes(corpus) == {"train": 20, "val": 10}
    assert corpus.classes == ["pos", "neg"]
    assert corpus.splits["train"].targets[:2] == ["pos", "neg"]
    assert corpus.splits["val"].sources[0] == "validation:1"
    assert "not used of saved: unsupervised" in corpus.notes
    assert any(note.startswith("test has no labels") for note in corpus.notes)
    named = read(tmp_path / "saved", train="unsupervised", val="train")
    assert sizes(named) == {"train": 5, "val": 20}
    with pytest.raises(
        ValueError, match=r"train: .*saved has no split 'training'; it has train, validation"
    ):
        read(tmp_path / "saved", train="training")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split in ("train", "validation"):
        whole[split].to_parquet(str(tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet"))
    alike = read(tmp_path / "hub")
    assert [t.texts for t in alike.splits.values()] == [t.texts for t in corpus.splits.values()]
    assert [t.targets for t in alike.splits.values()] == [t.targets for t in corpus.splits.values()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "numbers"},
            "kind must be 'auto', 'single', 'multilabel' or 'regression', got 'numbers'",
        ),
        ({"bad_samples": "ignore"}, "bad_samples must be 'refuse' or 'skip', got 'ignore'"),
        ({"label_separator": ""}, "label_separator stands between several labels"),
        (
            {"label_separator": "|", "kind": "single"},
            "label_separator stands between several labels",
        ),
        ({"label": ["a", "b"], "kind": "single"}, "several columns are a label each"),
        (
            {"class_names": ["a", "b"], "kind": "regression"},
            "class_names are given, but kind 'regression'",
        ),
        ({"quoting": "all"}, "quoting must be 'auto', 'standard' or 'none', got 'all'"),
        ({"header": "yes"}, "header must be true, false or 'auto', got 'yes'"),
        ({"delimiter": ""}, "delimiter must be characters other than quotes and newlines, got ''"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(tmp_path, **options)


@pytest.mark.parametrize("name", ["tab", "\\t", "\t"])
def test_a_tab_may_be_spelled(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text("text\tlabel\n" + "".join(f"{t}\t{c}\n" for t, c in ROWS))
    assert len(read(tmp_path / "a.csv", delimiter=name).splits["train"]) == 32


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_damaged_files_end_in_a_message_that_names_them(tmp_path: Path, name: str) -> None:
    draw = random.Random(name)
    path = tmp_path / name
    write(path, [(f'{t} "é"', c) for t, c in ROWS[:8]])
    if name == "a.jsonl":
        path.write_text("\n".join(json.dumps({"text": t, "label": c}) for t, c in ROWS[:8]))
    content = path.read_bytes()
    read_through = 0
    for i in range(300):
        data = bytearray(content)
        for _ in range(draw.randrange(1, 4)):
            place = draw.randrange(len(data))
            data[place : place + draw.randrange(2)] = draw.choice(
                [b'"', b"\0", b"\n", b",", b"\xff", b"\\", bytes([draw.randrange(256)]), b""]
            )
        path.write_bytes(data)
        message = name
        try:
            read(path, bad_samples=("refuse", "skip")[i % 2])
            read_through += 1
        except ValueError as error:
            message = str(error)
        assert name in message
    assert 50 < read_through < 290


@needs_data
def test_sst2_is_read_as_it_lies() -> None:
    corpus = read(DATA / "sst2")
    assert sizes(corpus) == {"train": 6920, "val": 872, "test": 1821}
    assert corpus.classes == ["0", "1"]
    assert [texts.targets.count("1") for texts in corpus.splits.values()] == [3610, 444, 909]  # type: ignore[arg-type]
    lines = (DATA / "sst2" / "train.tsv").read_text(encoding="utf-8").split("\n")
    assert corpus.splits["train"].texts == [line.split("\t")[0] for line in lines if line]
    assert corpus.notes[1:] == [
        "2 of 1,821 texts in test also train; --data.distinct true takes them out"
    ]


@needs_data
def test_sms_spam_is_split_over_distinct_messages_by_their_hash() -> None:
    corpus = read(DATA / "sms_spam", train="SMSSpamCollection", distinct=True, split=HashSplit())
    lines = (DATA / "sms_spam" / "SMSSpamCollection").read_text(encoding="utf-8").split("\n")[1:]
    messages = dict.fromkeys(line.split("\t", 1)[1] for line in lines if line)
    assert len(messages) == sum(sizes(corpus).values()) == 5171
    expected: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for message in messages:
        residue = int(hashlib.md5(message.encode()).hexdigest(), 16) % 10
        expected["train" if residue < 8 else "val" if residue == 8 else "test"].append(message)
    assert {split: texts.texts for split, texts in corpus.splits.items()} == expected
    assert corpus.text_column == "SMS"
