"""What it costs and brings that a process keeps the memory a step frees: whole runs, with and without, in turn.

The shipped configs of embedded data, some epochs each, with torch's own number of threads. Seconds are those of
training, the ratio is the median of the rounds' own; memory is the process's peak.

python -m tests.benchmarks.freed_memory [--rounds 3] [--only digits ...]
"""

import argparse
import statistics
from typing import Any

from tests.benchmarks.measure import ratio, report
from tests.benchmarks.runs import fit

EPOCHS = {
    "image_classification/digits": 8,
    "object_detection/scenes": 1,
    "speech_recognition/digit_strings": 2,
    "text_classification/docstrings": 2,
    "rl_policy/cartpole": 3,
}


def run(config: str, kept: bool) -> dict[str, Any]:
    """Train some epochs."""
    return fit(
        *("--config", config, "--trainer.max_epochs", str(EPOCHS[config])),
        *("--trainer.accelerator", "cpu", "--test_after_fit", "false"),
        *("--run.wandb.mode", "disabled", "--run.keep_freed_memory", str(kept).lower()),
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=[c.partition("/")[2] for c in EPOCHS])
    arguments = parser.parse_args()
    rows = []
    for config in EPOCHS:
        name = config.partition("/")[2]
        if arguments.only and name not in arguments.only:
            continue
        runs: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for number in range(arguments.rounds):
            for kept in (True, False) if number % 2 else (False, True):
                runs[kept].append(run(config, kept))
        seconds = {kept: [one["seconds"] for one in of] for kept, of in runs.items()}
        peaks = {
            kept: statistics.median(one["peak_memory_mib"] for one in of)
            for kept, of in runs.items()
        }
        rows.append(
            {
                "config": name,
                "seconds, kept": statistics.median(seconds[True]),
                "given back": statistics.median(seconds[False]),
                "faster by": ratio(seconds[False], seconds[True]),
                "peak MiB, kept": peaks[True],
                "given back ": peaks[False],
                "more": peaks[True] / peaks[False],
            }
        )
        report("freed_memory", rows)


if __name__ == "__main__":
    main()
