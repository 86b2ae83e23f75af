"""The shipped speech configs over seeds, whole processes, from the real command.

The networks of `fsdd_speakers`, which are tested on a speaker of FSDD whom they never heard, begin with the weights of
one that was trained on synthetic voices (the row `voices`).

python -m tests.benchmarks.speech_recognition --data ../shared/data [--seeds 10] [--only yesno]
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import report
from tests.benchmarks.runs import fit

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
SEEDS = {"digit_strings": 1, "yesno": 10, "fsdd": 3, "fsdd_speakers": 1, "fsdd_strings": 3}

UNHEARD = ("--trainer.max_epochs", "20", "--data.augment+", "Equalizer")
VOICES = (
    *("--data", "DigitStrings", "--data.sample_rate", "8000", "--data.batch_size", "32"),
    *("--data.train", "4000"),
)


def run(what: str, config: str, folder: Path, seed: int, *options: str) -> dict[str, Any]:
    """Train a shipped config and return what its test says."""
    data = {"yesno": "yesno", "fsdd": "fsdd", "fsdd_strings": "fsdd"}.get(config)
    root = [] if data is None else ["--data.root", str(folder / data)]
    return line(config, what, trained(config, seed, *root, *options))


def trained(config: str, seed: int, *options: str) -> dict[str, Any]:
    """Train a shipped config and return what `fit` does."""
    return fit(
        *("--config", f"speech_recognition/{config}", "--seed", str(seed)),
        *("--run.wandb.mode", "disabled", *options),
    )


def line(data: str, what: str, found: dict[str, Any]) -> dict[str, Any]:
    """A line of the table."""
    return {
        "data": data,
        "what": what,
        "WER %": 100 * found["test/wer"],
        "CER %": 100 * found["test/cer"],
        "training s": found["seconds"],
        "process s": found["wall_seconds"],
    }


def without_each_speaker(folder: Path) -> list[dict[str, Any]]:
    """Train on synthetic voices, from there on five speakers of FSDD, and test the sixth; the last row has the mean."""
    voices = trained("fsdd", 0, *VOICES, *UNHEARD)
    weights = Path(voices["folder"]) / "checkpoints" / "best.ckpt"
    options = (
        *("--model.weights", "Checkpoint", "--model.weights.source", str(weights)),
        *("--model.optimization.lr", "1.5e-3", *UNHEARD),
    )
    rows = [
        run(f"without {speaker}", "fsdd", folder, 0, "--data.held_out_speaker", speaker, *options)
        for speaker in SPEAKERS
    ]
    return [line("voices", "seed 0", voices), *rows, _summary(rows, "mean", statistics.mean)]


def runs(name: str, folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Train over seeds; the last row has the median."""
    if name == "fsdd_speakers":
        return without_each_speaker(folder)
    rows = [run(f"seed {seed}", name, folder, seed) for seed in range(seeds)]
    return [*rows, _summary(rows, "median", statistics.median)]


def _summary(rows: list[dict[str, Any]], what: str, of: Any) -> dict[str, Any]:
    numbers = ("WER %", "CER %", "training s", "process s")
    return {
        "data": rows[0]["data"],
        "what": what,
        **{key: of([row[key] for row in rows]) for key in numbers},
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of yesno and fsdd")
    parser.add_argument("--seeds", type=int, help="in place of those of each set")
    parser.add_argument("--only", choices=SEEDS)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, usual in SEEDS.items():
        if arguments.only in (None, name):
            rows += runs(name, arguments.data, arguments.seeds or usual)
            report("speech_recognition", rows)


if __name__ == "__main__":
    main()
