"""Time things in turn, and report them: a table in the terminal, JSON in a file."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

OUTPUT = Path(os.environ.get("RESDOMAINS_BENCHMARKS", "runs/benchmarks"))


def in_turn(
    things: Mapping[str, Callable[[], object]], rounds: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """Time each thing once a round, A B C, B C A, C A B ...: drift and what ran before meet all alike.

    Returns:
        Seconds of every counted round, by name.
    """

    def timed(thing: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            thing()
            return time.perf_counter() - began

        return run

    return figures_in_turn({name: timed(thing) for name, thing in things.items()}, rounds, warmup)


def figures_in_turn(
    things: Mapping[str, Callable[[], float]], rounds: int = 5, warmup: int = 1
) -> dict[str, list[float]]:
    """Let each thing measure itself once a round, in the order of `in_turn`.

    Returns:
        The figures of every counted round, by name.
    """
    for _ in range(warmup):
        for thing in things.values():
            thing()
    figures: dict[str, list[float]] = {name: [] for name in things}
    names = list(things)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(things[name]())
    return figures


class Apart:
    """A thing in a process of its own, where another's memory does not matter; it runs when it is asked.

    Args:
        build: Makes the thing, which may return a figure; picklable.
        threads: Of torch in the process.
    """

    def __init__(self, build: Callable[[], Callable[[], float | None]], threads: int) -> None:
        context = get_context("spawn")
        self._here, there = context.Pipe()
        context.Process(target=_serve, args=(there, build, threads), daemon=True).start()
        there.close()

    def __call__(self) -> float:
        """Run it once and return its figure; of a thing without one the seconds."""
        self._here.send(None)
        figure: float = self._here.recv()
        return figure


def _serve(pipe: Connection, build: Callable[[], Callable[[], float | None]], threads: int) -> None:
    torch.set_num_threads(threads)
    thing = build()
    # It ends when nobody can ask any more.
    with suppress(EOFError):
        while True:
            pipe.recv()
            began = time.perf_counter()
            figure = thing()
            pipe.send(time.perf_counter() - began if figure is None else figure)


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return how many times faster `fast` is: the median of the rounds' own ratios."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=True))


def channels_last(model: nn.Module) -> nn.Module:
    """Return the model with its weights in channels_last."""
    # torch's annotations of Module.to leave memory_format out.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def machine() -> dict[str, Any]:
    """Describe what a figure was measured on."""
    facts = {
        "cpu": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def report(name: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table and write them to `<OUTPUT>/<name>.json` with the machine."""
    table = Table(title=name)
    columns = list(rows[0])
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    Console(width=120).print(table)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    print(path)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
