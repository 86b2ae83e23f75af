"""Text classification keeps the contract of all tasks."""

import csv
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers import pipeline

from resdomains.plugins import find
from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
CLASSIFICATION = "resdomains_tasks.text_classification"
# Lives as long as the tests do.
_FOLDER = tempfile.TemporaryDirectory(prefix="resdomains-texts-")


def table() -> str:
    """Write 160 short opinions of three kinds, with the words that give each away and others."""
    draw = random.Random(0)
    others_of_all = ["the", "a", "film", "plot", "it", "and", "with", "of", "long", "short"]
    telling = {"praise": "good fine great", "blame": "bad poor dull", "other": "there is was"}
    path = Path(_FOLDER.name) / "opinions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for number in range(160):
            label = list(telling)[number % 3]
            others = draw.choices(others_of_all, k=draw.randint(0, 14))
            words = [*others, draw.choice(telling[label].split())]
            draw.shuffle(words)
            writer.writerow((f"{' '.join(words)} {number}", label))
    return str(path)


CONFIG = {
    "seed": 0,
    "model": {
        "class_path": f"{CLASSIFICATION}.TextClassification",
        "init_args": {
            "backbone": {
                "class_path": "resdomains.core.ResidualEncoder",
                "init_args": {
                    "layers": 2,
                    "width": 32,
                    "in_channels": 69,
                    "stem": {
                        "class_path": "resdomains.core.TokenStem",
                        "init_args": {"length": 64},
                    },
                },
            },
            "optimization": {"lr": 0.003},
        },
    },
    "data": {
        "class_path": f"{CLASSIFICATION}.TextFiles",
        "init_args": {
            "root": table(),
            "batch_size": 16,
            "max_length": 64,
            "tokens": {"class_path": f"{CLASSIFICATION}.Characters"},
        },
    },
}


TEXTS = ['a film, "long"', "good", "a very long plot " * 9, "中文 👍", "bad and dull", "it was"]


def texts(folder: Path) -> Sequence[Path]:
    """Write tables of one text and of several, of different lengths."""
    (folder / "one.csv").write_text('text\n"a film, ""long"""\n', encoding="utf-8")
    (folder / "lines.txt").write_text("\n".join(TEXTS[1:4]) + "\n", encoding="utf-8")
    (folder / "objects.jsonl").write_text('{"text": "bad and dull"}\n{"text": "it was"}\n')
    return [folder / name for name in ("one.csv", "lines.txt", "objects.jsonl")]


def run_transformers(folder: Path, paths: Sequence[Path]) -> list[dict[str, object]]:
    """What transformers' pipeline says of the texts."""
    classify = pipeline("text-classification", str(folder), device="cpu")
    answers = classify([text.strip() for text in TEXTS], truncation=True)
    return [{"label": answer["label"], "probability": answer["score"]} for answer in answers]


CASE = TaskCase(
    plugin=find("text_classification"),
    roots={
        f"text_classification/{name}": SHARED / folder
        for name, folder in (("sst2", "sst2"), ("sst2_vdcnn", "sst2"), ("sms_spam", "sms_spam"))
        if (SHARED / folder).is_dir()
    },
    config=CONFIG,
    inputs=texts,
    # transformers has no encoder with the norm before its branches.
    exportable={
        "model.backbone": "{class_path: bert, init_args: "
        "{layers: 1, width: 32, heads: 2, length: 64, in_channels: 69}}",
        "model.head": "{class_path: FirstTokenHead, init_args: {pooler: TanhPooler}}",
    },
    exported={"huggingface": run_transformers},
    bad_files=[
        BadFile(name="empty.csv", content=b"", message="is empty"),
        BadFile(name="no.parquet", content=b"PAR1 is not enough", message="not a Parquet file"),
        BadFile(name="list.json", content=b"[1, 2", message="not a list of JSON objects"),
        BadFile(name="blank.jsonl", content=b'{"text": " "}\n', message="the text is empty"),
        BadFile(name="nul.txt", content=b"a text with \0 in it\n", message="NUL character"),
        BadFile(name="twice.csv", content=b"text,text\na,b\n", message="more than once"),
    ],
    bad_arguments=[
        BadArgument(
            key="data.batch_size", value="0", message="batch_size must be at least 1, got 0"
        ),
        BadArgument(
            key="data.max_length", value="0", message="max_length must be at least 1, got 0"
        ),
        BadArgument(key="data.truncation", value="middle", message="middle"),
        BadArgument(
            key="data.label", value="lable", message="no column 'lable' .did you mean 'label'"
        ),
        BadArgument(
            key="model.backbone.in_channels",
            value="70",
            message=r"reads 70 different tokens, the data have 69; set --model\.backbone\.in_channels 69",
        ),
        BadArgument(
            key="model.backbone.stem.length",
            value="32",
            message=r"has 32 positions, texts have up to 64 tokens; set --model\.backbone\.stem\.length 64",
        ),
        BadArgument(
            key="model.loss", value="SquaredError", message="not for targets that are classes"
        ),
    ],
)


@parametrize_with_checks(CASE)
def test_contract(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_the_case_exempts_nothing() -> None:
    assert not CASE.exempt
