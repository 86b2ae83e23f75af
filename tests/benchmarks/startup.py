"""Whole-process time of the commands that need no torch.

python -m tests.benchmarks.startup
"""

import statistics
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.measure import in_turn, report


def main() -> None:
    """Measure and report."""
    command = str(Path(sys.executable).with_name("resdomains"))
    calls = {
        " ".join(words): lambda words=words: subprocess.run(
            [command, *words], check=True, capture_output=True
        )
        for words in (["--help"], ["tasks"], ["configs"])
    }
    seconds = in_turn(calls, rounds=9, warmup=2)
    report(
        "startup",
        [
            {"command": f"resdomains {name}", "seconds": statistics.median(s), "worst": max(s)}
            for name, s in seconds.items()
        ],
    )


if __name__ == "__main__":
    main()
