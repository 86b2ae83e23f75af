"""Apply a checkpoint to what a command line names and show one record an item, whatever the domain."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resdomains.cli import own_options
from resdomains.cli.arguments import Arguments
from resdomains.cli.commands.predict import OPTIONS, PRECISIONS
from resdomains.cli.errors import FAILED, CliError
from resdomains.cli.folders import check_new, draft
from resdomains.cli.main import complain
from resdomains.cli.quiet import quiet
from resdomains.cli.session import import_plugins
from resdomains.cli.tables import table
from resdomains.core import fold
from resdomains.training import BadCheckpoint, BadSample, Film, NoFilm, Task, load_task
from resdomains.training.figures import write_png
from resdomains.training.precision import choose_precision

_WINDOW = 50  # batches
_HELD = 2**26  # positions, such as 70 minutes of sound at 16 kHz, 256 MiB
_LONGEST = 60  # characters of a text in a table

_LONGEST_NAME = 60  # characters of a file's name; some file systems count 255 bytes
_FORMATS = ("table", "json", "csv")

Draw = Callable[[Mapping[str, Any]], Tensor | Film]
Answer = tuple[dict[str, Any], Any]
"""An item's record and its features, if they are asked for."""


def predict(arguments: Arguments) -> int:
    """Predict what a command line names; 1 if a bad sample was skipped and nothing is left.

    Raises:
        CliError: If the checkpoint or a file cannot be used.
    """
    quiet()
    output = arguments.options.get("output")
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise CliError(f"--output {output}: its folder does not exist")
    pictures = arguments.options.get("pictures")
    folder = None if pictures is None else Path(pictures).expanduser().resolve()
    if folder is not None:
        check_new(folder, "pictures")
    task = _load(arguments)
    own_options.apply(task, task.predict_options, arguments.others, OPTIONS)
    _check_inputs(task, arguments)
    formats = task.formats()
    shape = arguments.choice("format", "table", (*_FORMATS, *formats))
    draw = None if folder is None else _drawer(task, bool(arguments.files))
    embed = _embedder(task, arguments)
    skip = arguments.choice("bad_samples", "refuse", ("refuse", "skip")) == "skip"
    # An episode is played again to be filmed: alone both times, so that it is the same to the last bit.
    filmed = draw is not None and not arguments.files
    size = 1 if filmed else arguments.number("batch_size", 32)
    precision = arguments.choice("precision", "auto", PRECISIONS)
    bad: list[BadSample] = []
    answers: list[Answer] = []
    items = _readable(task.read(arguments.files), skip, bad)
    with torch.inference_mode(), arithmetic(task, precision):
        try:
            for window in windows(task, items, size):
                answers += _answers(task, embed, window, size)
        except BadSample as error:
            raise CliError(str(error)) from error
        records = [record for record, _ in answers]
        if folder is not None and draw is not None and records:
            _write_pictures(folder, records, draw, skip, bad)
    for sample in bad:
        complain(f"skipped {sample}")
    if not answers:
        complain("nothing to predict: no sample could be read")
        return FAILED
    if shape in formats:
        text = formats[shape](records)
    else:
        top = arguments.number("top", 5)
        rows = [task.row(record) for record in records] if shape == "table" else records
        text = render(
            [{k: v[:top] if k == "top" else v for k, v in row.items()} for row in rows], shape
        )
    if output is None:
        print(text)
    else:
        Path(output).write_text(text + "\n", encoding="utf-8")
    if embed is not None:
        sources = np.array([record["source"] for record in records])
        with Path(arguments.options["embeddings"]).open("wb") as file:
            np.savez(file, source=sources, embedding=np.stack([vector for _, vector in answers]))
    return 0


def explain(arguments: Arguments) -> None:
    """Print the options that a checkpoint's task has of its own.

    Raises:
        CliError: If the checkpoint cannot be used.
    """
    quiet()
    task = _load(arguments)
    own_options.explain(task, task.predict_options)
    if task.formats():
        print(f"{type(task).__name__} writes these formats too: {', '.join(task.formats())}")


def _check_inputs(task: Task, arguments: Arguments) -> None:
    """Refuse what needs inputs where there are none, and an empty one, which would be the folder of the moment."""
    if "" in arguments.files:
        raise CliError(
            f"input {arguments.files.index('') + 1} is empty: expected a file or a folder, or a text if the task reads "
            "them; a variable of the shell that is not set gives this"
        )
    if arguments.files:
        return
    if task.needs_inputs:
        raise CliError(
            "`resdomains predict` needs files or folders to predict, or texts if its task reads them"
        )
    if "embeddings" in arguments.options:
        raise CliError("--embeddings: there are features of inputs only; name some")


def _drawer(task: Task, inputs: bool) -> Draw:
    """What makes a picture of a record of an input, or a film of one without."""
    method, does = ("draw", "draws") if inputs else ("film", "films")
    draw: Draw | None = getattr(task, method, None)
    if draw is None:
        name = type(task).__name__
        raise CliError(f"--pictures: {name} {does} nothing (it has no method `{method}`)")
    return draw


def _write_pictures(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    draw: Draw,
    skip: bool,
    bad: list[BadSample],
) -> None:
    """Draw or film every record in a folder, which is there when all are drawn."""
    try:
        with draft(folder) as beside:
            names = picture_names([_called(record) for record in records])
            for record, name in zip(records, names, strict=True):
                try:
                    _write_picture(draw(record), beside / name)
                except NoFilm as error:
                    raise CliError(f"--pictures: {error}") from error
                except BadSample as error:
                    if not skip:
                        raise CliError(str(error)) from error
                    bad.append(error)
            if folder.is_dir():
                folder.rmdir()
            beside.rename(folder)
    except OSError as error:
        raise CliError(f"--pictures {folder}: {error.strerror or error}") from error


def _write_picture(picture: Tensor | Film, path: Path) -> None:
    if isinstance(picture, Film):
        picture.write(path.with_name(f"{path.name}.gif"))
    else:
        write_png(picture, path.with_name(f"{path.name}.png"))


def _called(record: Mapping[str, Any]) -> str:
    """A record's source; of one without, what it begins with, such as `seed_7`."""
    if "source" in record:
        return str(record["source"])
    name, value = next(iter(record.items()))
    return f"{name}_{value}"


def picture_names(sources: Sequence[str]) -> list[str]:
    """Return a file's name without suffix for each source: its file's, with a number where two are called alike."""
    taken: set[str] = set()
    names = []
    for source in sources:
        stem = "".join(c for c in Path(source).stem if c.isprintable())[:_LONGEST_NAME] or "item"
        name, number = stem, 1
        # Some file systems do not tell capitals from small letters.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


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


def arithmetic(task: Task, wanted: str) -> torch.autocast:
    """Return what a task is computed in.

    Args:
        task: The task, on its device.
        wanted: `32`, `bf16`, or `auto`: float32 where the task was trained in it on purpose, else what validation on
            this device would take.
    """
    device = task.device.type
    trained = str(((task.recipe or {}).get("trainer") or {}).get("precision") or "")
    auto = not trained.startswith("32") and choose_precision(device).name == "bf16-mixed"
    return torch.autocast(
        device, torch.bfloat16, enabled=wanted == "bf16" or (wanted == "auto" and auto)
    )


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


def _readable(found: Iterable[Any], skip: bool, bad: list[BadSample]) -> Iterator[Any]:
    """What could be read; bad samples are collected, or refused with their name."""
    try:
        for item in found:
            if isinstance(item, BadSample):
                if not skip:
                    raise CliError(f"{item} (--bad_samples skip leaves such samples out)") from item
                bad.append(item)
            else:
                yield item
    except OSError as error:
        if error.filename is None:
            raise
        raise CliError(f"{error.filename}: {error.strerror}") from error


def windows(task: Task, items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Items that are held at once: a batch of them, or many batches where items differ in size, but not of any size."""
    while window := list(islice(items, size)):
        held = sum(task.size(item) or 0 for item in window)
        more = islice(items, (_WINDOW - 1) * size)
        while 0 < held < _HELD and (item := next(more, None)) is not None:
            window.append(item)
            held += task.size(item) or 0
        yield window


def _answers(task: Task, embed: Any, window: Sequence[Any], size: int) -> list[Answer]:
    """Answer a window in order; items of like size share a batch, so that padding costs little."""
    order = sorted(range(len(window)), key=lambda place: task.size(window[place]) or 0)
    found: dict[int, Answer] = {}
    for begin in range(0, len(order), size):
        places = order[begin : begin + size]
        collated = task.collate([window[place] for place in places])
        batch = task.transfer_batch_to_device(collated, task.device, 0)
        records = task.predict(batch)
        features = [None] * len(records) if embed is None else embed(batch).float().cpu().numpy()
        found.update(zip(places, zip(records, features, strict=True), strict=True))
    return [found[place] for place in range(len(window))]


def render(records: Sequence[Mapping[str, Any]], shape: str) -> str:
    """Records as a table, as JSON (a line a record) or as CSV; lists of mappings have no place in a table."""
    if shape == "json":
        return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    names = list(dict.fromkeys(name for record in records for name in record))
    if shape == "table":
        shown = [name for name in names if not any(map(_is_details, _column(records, name)))]
        rows = [
            tuple(_in_table(name, record.get(name), name == shown[-1]) for name in shown)
            for record in records
        ]
        return table(shown, rows)
    flat = [dict(_flat(record)) for record in records]
    columns = list(dict.fromkeys(name for record in flat for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().rstrip("\n")


def _is_ranking(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(v, list | tuple) and len(v) == 2 and isinstance(v[0], str) for v in value
    )


def _column(records: Sequence[Mapping[str, Any]], name: str) -> Iterator[Any]:
    return (record.get(name) for record in records)


def _is_details(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, Mapping) for v in value)


def _in_table(name: str, value: Any, wraps: bool) -> str:
    """A cell of one line; what a text says is cut where the column does not wrap, where it stands is not."""
    if not isinstance(value, str) or name == "source":
        return _cell(value)
    line = " ".join((value if wraps else value[: 4 * _LONGEST]).split())
    return line if wraps or len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


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
