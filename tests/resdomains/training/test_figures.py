import csv
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import Trainer

from resdomains.training import Task
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
