import csv
import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from resdomains.training import Run, RunOptions, Sound, Task, WandbOptions
from resdomains.training.callbacks import Pictures
from resdomains.training.figures import log_table


def test_a_table_is_written_with_its_columns_in_order(tmp_path: Path) -> None:
    rows = [{"text": 'a, "b"\nc', "n": 1}, {"text": "\ud800 half", "n": 2}]
    log_table([], rows, tmp_path / "tables" / "val_x.csv")
    with (tmp_path / "tables" / "val_x.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found == [["text", "n"], ['a, "b"\nc', "1"], ["? half", "2"]]


def test_a_table_without_rows_is_not_written(tmp_path: Path) -> None:
    log_table([], [], tmp_path / "tables" / "val_x.csv")
    assert not (tmp_path / "tables").exists()


def test_a_tasks_tables_go_to_their_folder(tmp_path: Path) -> None:
    class Told:
        def __init__(self) -> None:
            self.results: dict[str, Any] = {"test": {}}

        def tables(self, split: str, results: Any) -> dict[str, list[dict[str, Any]]]:
            return {"classes": [{"class": split}]}

        def figures(self, split: str, results: Any) -> dict[str, Any]:
            return {}

    pictures = Pictures(tmp_path / "pictures", tmp_path / "tables", tmp_path / "metrics.csv")
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    pictures.on_test_end(trainer, cast(Task, Told()))
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["test_classes.csv"]


def samples(path: Path, rate: int) -> list[int]:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate)
        found: list[int] = np.frombuffer(file.readframes(file.getnframes()), "<i2").tolist()
    return found


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (torch.tensor([0.0, 1.0, -1.0, 0.5]), [0, 32767, -32767, 16384]),
        (torch.tensor([2.0, -4.0, 1.0]), [16384, -32767, 8192]),
        (torch.tensor([float("nan"), float("inf"), 1.0]), [0, 0, 32767]),
        (torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True), [16384]),
        (torch.zeros(0), []),
    ],
)
def test_a_sound_is_a_file_of_16_bits(tmp_path: Path, given: Tensor, written: list[int]) -> None:
    Sound(given, 8000).write(tmp_path / "a.wav")
    assert samples(tmp_path / "a.wav", 8000) == written


def test_what_is_no_sound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one channel \(L,\), got \(2, 5\); mix channels down"):
        Sound(torch.zeros(2, 5), 8000)
    with pytest.raises(ValueError, match="rate must be at least 1 Hz, got 0"):
        Sound(torch.zeros(5), 0)


def test_a_table_holds_sounds_as_files_beside_it_and_as_players(tmp_path: Path) -> None:
    import wandb

    options = RunOptions(tmp_path, wandb=WandbOptions(mode="offline"))
    run = Run.create(options, "speech", "words")
    loggers = run.loggers({}, [])
    word, other = Sound(torch.ones(4), 16000), Sound(-torch.ones(2), 8000)
    rows = [
        {"n": 1, "audio": word, "echo": word, "tags": ["a"]},
        {"n": 2, "audio": other, "echo": None, "tags": []},
    ]
    log_table(loggers, rows, run.tables / "val_words.csv")
    wandb.finish()
    with (run.tables / "val_words.csv").open(newline="") as file:
        found = [row[:3] for row in csv.reader(file)]
    assert found == [
        ["n", "audio", "echo"],
        ["1", "val_words/00.wav", "val_words/00.wav"],
        ["2", "val_words/01.wav", ""],
    ]
    assert samples(run.tables / "val_words/00.wav", 16000) == [32767] * 4
    assert samples(run.tables / "val_words/01.wav", 8000) == [-32767] * 2
    # W&B shows players from an artifact, which is staged until it is sent.
    (records_file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    reader = [
        str(Path(sys.executable).with_name("wandb")),
        "leet",
        "inspect",
        "--json",
        str(records_file),
    ]
    output = subprocess.run(reader, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in output.splitlines()]
    (artifact,) = [record["artifact"] for record in records if record["type"] == "artifact"]
    staged = {part["path"]: Path(part["local_path"]) for part in artifact["manifest"]["contents"]}
    shown = json.loads(staged["tables/val_words.table.json"].read_text())
    assert shown["columns"] == ["n", "audio", "echo", "tags"]
    players = [row[1] for row in shown["data"]]
    assert [player["_type"] for player in players] == ["audio-file"] * 2
    for player, written in zip(players, ("00.wav", "01.wav"), strict=True):
        kept = (run.tables / "val_words" / written).read_bytes()
        assert staged[player["path"]].read_bytes() == kept
