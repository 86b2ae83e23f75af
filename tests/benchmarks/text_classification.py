"""The shipped text configs over seeds, whole processes, beside linear models tuned on the same validation split.

python -m tests.benchmarks.text_classification --data ../shared/data [--seeds 5] [--only docstrings]
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from resdomains import schema
from resdomains_tasks.text_classification import (
    Bytes,
    Docstrings,
    EncodedTexts,
    HashSplit,
    TextData,
    TextFiles,
)
from tests.benchmarks.measure import report
from tests.benchmarks.runs import fit
from tests.benchmarks.text_baseline import Split, words, words_and_characters


def sets(folder: Path) -> dict[str, TextData]:
    """Return the data of each config, for the linear models."""
    return {
        "docstrings": Docstrings(batch_size=1, tokens=Bytes()),
        "sst2": TextFiles(
            root=str(folder / "sst2"),
            batch_size=1,
            tokens=Bytes(),
            delimiter="tab",
            quoting="none",
            header=False,
            text=0,
            label=1,
        ),
        "sms_spam": TextFiles(
            root=str(folder / "sms_spam"),
            batch_size=1,
            tokens=Bytes(),
            train="SMSSpamCollection",
            delimiter="tab",
            quoting="none",
            header=True,
            text="SMS",
            label="Label",
            distinct=True,
            split=HashSplit(),
        ),
    }


def baselines(name: str, data: TextData) -> list[dict[str, Any]]:
    """Tune the linear models on a data set's validation split and measure them on its test split."""

    def columns(name: schema.Split) -> Split:
        found = data.ready_dataset(name)
        assert isinstance(found, EncodedTexts)
        return found.texts.texts, [str(target) for target in found.texts.targets]

    train, val, test = columns("train"), columns("val"), columns("test")
    rows = []
    for model in (words, words_and_characters):
        found = model(train, val, test, "spam" if name == "sms_spam" else None)
        rows.append(
            {
                "data": name,
                "what": f"TF-IDF, {model.__name__.replace('_', ' ')}, logistic regression",
                "val/score": 100 * found.val_accuracy,
                "test/score": 100 * found.accuracy,
                "test/f1_rarer": found.f1 or "",
                "seconds": "",
            }
        )
    return rows


def runs(name: str, folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Train a shipped config with several seeds."""
    root = [] if name == "docstrings" else ["--data.root", str(folder / name)]
    rows = []
    for seed in range(seeds):
        run = fit(
            "--config",
            f"text_classification/{name}",
            *root,
            "--seed",
            str(seed),
            "--run.wandb.mode",
            "disabled",
        )
        rows.append(
            {
                "data": name,
                "what": f"seed {seed}",
                "val/score": 100 * run["best"]["val/score"],
                "test/score": 100 * run["test/score"],
                "test/f1_rarer": run.get("test/f1_rarer", ""),
                "seconds": run["wall_seconds"],
            }
        )
    mean: dict[str, Any] = {"data": name, "what": "mean"}
    for key in ("val/score", "test/score", "test/f1_rarer", "seconds"):
        values = [row[key] for row in rows if row[key] != ""]
        mean[key] = statistics.mean(values) if values else ""
    return [*rows, mean]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2 and sms_spam")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=("docstrings", "sst2", "sms_spam"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, data in sets(arguments.data).items():
        if arguments.only in (None, name):
            rows += [*baselines(name, data), *runs(name, arguments.data, arguments.seeds)]
            report("text_classification", rows)


if __name__ == "__main__":
    main()
