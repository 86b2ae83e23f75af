"""Everything that was logged, as a table on disk."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from resdomains import schema

Row = dict[str, Any]


class MetricsFile(Logger):
    """Write `metrics.csv`: a row a record, at once, so that whoever watches a slow run sees where it is.

    A column that is new rewrites the file, whole or not at all. A run that goes on keeps the rows there are, which
    Lightning's logger would delete.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []
        if path.is_file():
            self._columns = list(_rows(path)[0])

    @property
    def name(self) -> str:
        """Folder beside the file of what Lightning's own callbacks write, such as a `ModelCheckpoint` of the config."""
        return "lightning"

    @property
    def version(self) -> str:
        """None: a folder has one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the run's `config.yaml` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row."""
        row = {n: v.item() if isinstance(v, Tensor) else v for n, v in metrics.items()}
        row["step"] = step
        if row.keys() - set(self._columns):
            before = _rows(self.path)[1] if self._columns else []
            self._columns = sorted({*self._columns, *row})
            self._write([*before, row])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    @rank_zero_only
    def rewind(self, step: int, seconds: float) -> None:
        """Drop what was logged after a checkpoint.

        Args:
            step: The checkpoint's optimizer step.
            seconds: Its place on the axis `progress/seconds`.
        """
        if not self._columns:
            return
        kept = [
            row
            for row in _rows(self.path)[1]
            if float(row["step"]) <= step and float(row.get(schema.SECONDS) or 0) <= seconds
        ]
        self._write(kept)

    def _write(self, rows: list[Row]) -> None:
        draft = self.path.with_name(f"{self.path.name}.part")
        with draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(self.path)


def _rows(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and rows of a table; a last row that a killed process left unfinished is none."""
    with path.open(newline="") as file:
        whole = [line for line in file if line.endswith("\n")]
    reader = csv.DictReader(whole)
    return list(reader.fieldnames or ()), list(reader)
