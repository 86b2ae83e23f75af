"""Time and memory of `resdomains compare` over many runs, read from W&B's offline files and from CSV.

A run's files are written once, by W&B and as `resdomains fit` does, and copied under other ids.

python -m tests.benchmarks.comparing [--runs 200] [--steps 500] [--repeats 5]
"""

import argparse
import json
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.measure import report
from tests.resdomains.comparing.recorded import rows, write_folder, write_offline

_HEADER = struct.Struct("<IHB")
_BLOCK, _BEGIN = 32 * 1024, 7
ID = "run00000"


def renamed(data: bytes, run_id: str) -> bytes:
    """The same offline file of another id of equal length, with checksums that fit."""
    changed = bytearray(data.replace(ID.encode(), run_id.encode()))
    place = _BEGIN
    while place + _HEADER.size <= len(changed):
        rest = _BLOCK - place % _BLOCK
        if rest < _HEADER.size:
            place += rest
            continue
        _, length, kind = _HEADER.unpack_from(changed, place)
        begin = place + _HEADER.size
        part = bytes(changed[begin : begin + length])
        _HEADER.pack_into(changed, place, zlib.crc32(part, zlib.crc32(bytes([kind]))), length, kind)
        place = begin + length
    return bytes(changed)


def write(folder: Path, count: int, steps: int) -> dict[str, Path]:
    """Write as many runs as asked, both ways."""
    first = write_offline(folder / "first", ID, rows=rows(steps))
    data = first.read_bytes()
    for number in range(count):
        run_id = f"run{number:05d}"
        path = folder / "offline" / run_id / f"run-{run_id}.wandb"
        path.parent.mkdir(parents=True)
        path.write_bytes(renamed(data, run_id))
        shutil.copytree(first.parent / "files", path.parent / "files")
        write_folder(folder / "csv" / run_id, run_id, rows=rows(steps), seed=number)
    return {"W&B offline files": folder / "offline", "run folders (CSV)": folder / "csv"}


def compare(runs: Path, output: Path) -> dict[str, float]:
    """Run the command once, in a process of its own."""
    command = ["compare", str(runs), "--output", str(output), "--format", "json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "resdomains.cli", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    setups: list[Any] = json.loads(done.stdout)
    assert setups
    # The highest of all processes that have ended: what writing needed is in it too, and is less.
    return {"seconds": seconds, "peak_mib": max(before, after) / 2**10}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="resdomains-benchmark-") as name:
        folders = write(Path(name), arguments.runs, arguments.steps)
        found: dict[str, list[dict[str, float]]] = {source: [] for source in folders}
        for _ in range(arguments.repeats):
            for source, folder in folders.items():
                found[source].append(compare(folder, Path(name) / "comparison"))
    report(
        "comparing",
        [
            {
                "source": source,
                "runs": arguments.runs,
                "steps a run": arguments.steps,
                "seconds": statistics.median(run["seconds"] for run in runs),
                "peak memory, MiB": max(run["peak_mib"] for run in runs),
            }
            for source, runs in found.items()
        ],
    )


if __name__ == "__main__":
    main()
