"""The README's first command: digits, five seeds, whole process; a support vector machine beside it.

python -m tests.benchmarks.digits [--seeds 5]
"""

import argparse
import statistics

from sklearn.datasets import load_digits
from sklearn.svm import SVC

from tests.benchmarks.measure import report
from tests.benchmarks.runs import fit


def support_vector_machine() -> float:
    """Return the test accuracy of scikit-learn's RBF machine on the same split: the last 20 %."""
    digits = load_digits()
    train = 1437
    machine = SVC(C=10, gamma=0.001).fit(digits.data[:train], digits.target[:train])
    return float(machine.score(digits.data[train:], digits.target[train:]))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    rows = []
    for seed in seeds:
        run = fit("--config", "image_classification/digits", "--seed", str(seed))
        rows.append(
            {
                "what": f"seed {seed}",
                "test/score": run["test/score"],
                "seconds": run["wall_seconds"],
            }
        )
    mean = statistics.mean(row["test/score"] for row in rows)
    longest = max(row["seconds"] for row in rows)
    rows.append({"what": "mean score, longest time", "test/score": mean, "seconds": longest})
    rows.append(
        {"what": "RBF support vector machine", "test/score": support_vector_machine(), "seconds": 0}
    )
    report("digits", rows)


if __name__ == "__main__":
    main()
