"""Fashion-MNIST with a network no larger than ResNet-20, whole process on this machine.

python -m tests.benchmarks.fashion_mnist --root PATH [--seed 0]
"""

import argparse

from tests.benchmarks.measure import report
from tests.benchmarks.runs import fit


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder of the four idx files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run = fit(
        "--config",
        "image_classification/fashion_mnist",
        "--data.root",
        arguments.root,
        "--seed",
        str(arguments.seed),
    )
    names = ("network", "parameters", "seed", "test/score", "wall_seconds")
    report("fashion_mnist", [{name: run[name] for name in names}])


if __name__ == "__main__":
    main()
