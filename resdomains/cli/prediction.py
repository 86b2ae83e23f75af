"""Apply a checkpoint to files and show one record an item, whatever the domain."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resdomains.cli.arguments import Arguments
from resdomains.cli.commands.predict import PRECISIONS
from resdomains.cli.errors import FAILED, CliError
from resdomains.cli.main import complain
from resdomains.cli.quiet import quiet
from resdomains.cli.session import import_plugins
from resdomains.cli.tables import table
from resdomains.core import fold
from resdomains.training import BadCheckpoint, BadSample, Task, load_task
from resdomains.training.precision import choose_precision


def predict(arguments: Arguments) -> int:
    """Predict what a command line names; 1 if a bad sample was skipped and nothing is left.

    Raises:
        CliError: If the checkpoint or a file cannot be used.
    """
    quiet()
    paths = [Path(name) for name in arguments.files]
    for path in paths:
        if not path.exists():
            raise CliError(f"{path}: no such file or folder")
    output = arguments.options.get("output")
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise CliError(f"--output {output}: its folder does not exist")
    task = _load(arguments)
    embed = _embedder(task, arguments)
    skip = arguments.choice("bad_samples", "refuse", ("refuse", "skip")) == "skip"
    records: list[dict[str, Any]] = []
    features: list[np.ndarray[Any, Any]] = []
    bad: list[BadSample] = []
    with torch.inference_mode(), _precision(task, arguments):
        for items in _batches(task, paths, arguments.number("batch_size", 32), skip, bad):
            batch = task.transfer_batch_to_device(task.collate(items), task.device, 0)
            records += task.predict(batch)
            if embed is not None:
                features.append(embed(batch).float().cpu().numpy())
    for sample in bad:
        complain(f"skipped {sample}")
    if not records:
        complain("nothing to predict: no sample could be read")
        return FAILED
    top = arguments.number("top", 5)
    records = [{k: v[:top] if k == "top" else v for k, v in record.items()} for record in records]
    text = render(records, arguments.choice("format", "table", ("table", "json", "csv")))
    if output is None:
        print(text)
    else:
        Path(output).write_text(text + "\n", encoding="utf-8")
    if features:
        sources = np.array([record["source"] for record in records])
        with Path(arguments.options["embeddings"]).open("wb") as file:
            np.savez(file, source=sources, embedding=np.concatenate(features))
    return 0


def _load(arguments: Arguments) -> Task:
    import_plugins(arguments.plugins)
    try:
        task = load_task(arguments.options["ckpt_path"], arguments.plugins)
    except BadCheckpoint as error:
        raise CliError(f"--ckpt_path {error}") from error
    wanted = arguments.choice("accelerator", "auto", ("auto", "cpu", "cuda"))
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CliError("--accelerator cuda: torch finds no GPU here")
    device = "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"
    task.backbone = fold(task.backbone)
    return task.to(device)


def _precision(task: Task, arguments: Arguments) -> torch.autocast:
    """The arithmetic of validation, unless another is asked for."""
    device = task.device.type
    wanted = arguments.choice("precision", "auto", PRECISIONS)
    bf16 = wanted == "bf16" or (wanted == "auto" and choose_precision(device).name == "bf16-mixed")
    return torch.autocast(device, torch.bfloat16, enabled=bf16)


def _embedder(task: Task, arguments: Arguments) -> Any:
    if "embeddings" not in arguments.options:
        return None
    path = Path(arguments.options["embeddings"])
    if not path.absolute().parent.is_dir():
        raise CliError(f"--embeddings {path}: its folder does not exist")
    embed = getattr(task, "embed", None)
    if embed is None:
        raise CliError(
            f"--embeddings: {type(task).__name__} has no features to write (no method `embed`)"
        )
    return embed


def _batches(
    task: Task, paths: Sequence[Path], size: int, skip: bool, bad: list[BadSample]
) -> Iterator[list[Any]]:
    """Group what the task reads; bad samples are collected, or refused with their name."""
    items: list[Any] = []
    for item in task.read([str(path) for path in paths]):
        if isinstance(item, BadSample):
            if not skip:
                raise CliError(f"{item} (--bad_samples skip leaves such files out)") from item
            bad.append(item)
            continue
        items.append(item)
        if len(items) == size:
            yield items
            items = []
    if items:
        yield items


def render(records: Sequence[Mapping[str, Any]], shape: str) -> str:
    """Records as a table, as JSON (a line a record) or as CSV."""
    if shape == "json":
        return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    names = list(dict.fromkeys(name for record in records for name in record))
    if shape == "table":
        rows = [tuple(_cell(record.get(name)) for name in names) for record in records]
        return table(names, rows)
    flat = [dict(_flat(record)) for record in records]
    columns = list(dict.fromkeys(name for record in flat for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().rstrip("\n")


def _is_ranking(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(v, list | tuple) and len(v) == 2 for v in value
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if _is_ranking(value):
        return ", ".join(f"{name} {_cell(score)}" for name, score in value)
    if isinstance(value, list | tuple):
        return " ".join(_cell(v) for v in value)
    return "" if value is None else str(value)


def _flat(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The columns of a record: a ranking becomes `top_1`, `top_1_value`, `top_2` ..."""
    for name, value in record.items():
        if _is_ranking(value):
            for place, (what, score) in enumerate(value, 1):
                yield f"{name}_{place}", what
                yield f"{name}_{place}_value", score
        elif isinstance(value, list | tuple | dict):
            yield name, json.dumps(value, ensure_ascii=False)
        else:
            yield name, value
