"""Seconds until CartPole-v1 is solved: ours against Stable-Baselines3's PPO with rl-baselines3-zoo's settings.

Solved is the first of the evaluations every 2,000 environment steps whose 20 episodes return 495 or more in the mean.
Both play the same 20 episodes, side by side, with their most probable actions. The clock starts before environments and
network are built and runs through the evaluations; imports are excluded, and so is the first run of each, which makes
those that are made late. One torch thread, seed by seed in turn, in one process.

python -m tests.benchmarks.rl_time_to_solve [--seeds 10] [--config rl_policy/cartpole]
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from resdomains.cli.arguments import Arguments
from resdomains.cli.fitting import build_trainer
from resdomains.cli.quiet import quiet
from resdomains.cli.session import Session
from resdomains.training import Run, RunOptions, WandbOptions
from resdomains_tasks.rl_policy.task import RLPolicy
from tests.benchmarks.measure import report
from tests.benchmarks.rl_peers import CARTPOLE_STEPS, AfterSteps, Evaluator, zoo_cartpole

EVERY = 2_000
EPISODES = 20
SOLVED = 495.0


@dataclass
class Result:
    """How a run went.

    Attributes:
        seconds: Until it was solved, evaluations included; None if it never was.
        training: The same without the evaluations.
        steps: Environment steps until then.
    """

    seconds: float | None
    training: float | None
    steps: int


class Clock:
    """Evaluates every 2,000 steps until the task is solved.

    Args:
        evaluator: Plays the episodes.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.evaluating = 0.0
        self.evaluations = 0
        self.steps = 0
        self.solved: float | None = None
        self.began = time.perf_counter()

    def due(self, steps: int) -> bool:
        """Whether a multiple of 2,000 steps was passed since the last evaluation."""
        self.steps = steps
        return steps // EVERY > self.evaluations

    def evaluate(self, act: Callable[[np.ndarray], np.ndarray]) -> bool:
        """Evaluate; says whether the task is solved."""
        self.evaluations = self.steps // EVERY
        began = time.perf_counter()
        mean = self.evaluator(act)
        now = time.perf_counter()
        self.evaluating += now - began
        if mean >= SOLVED:
            self.solved = now - self.began
        return self.solved is not None

    def result(self) -> Result:
        """What was measured."""
        training = None if self.solved is None else self.solved - self.evaluating
        return Result(self.solved, training, self.steps)


def peer(seed: int, evaluator: Evaluator) -> Result:
    """Train Stable-Baselines3's PPO until it solves the task."""
    clock = Clock(evaluator)
    model = zoo_cartpole(seed)

    def act(observations: np.ndarray) -> np.ndarray:
        return model.predict(observations, deterministic=True)[0]

    model.learn(
        CARTPOLE_STEPS, callback=AfterSteps(lambda n: not (clock.due(n) and clock.evaluate(act)))
    )
    return clock.result()


class _UntilSolved(Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Evaluate the policy after an update that ends 2,000 steps or more."""
        task: RLPolicy = pl_module

        def act(observations: np.ndarray) -> np.ndarray:
            return task.act({"observation": observations}, None, None)[0]

        if self.clock.due(self.clock.steps + outputs["items"]):
            task.eval()
            trainer.should_stop = self.clock.evaluate(act)
            task.train()


def ours(name: str, changes: Mapping[str, str], seed: int, evaluator: Evaluator) -> Result:
    """Train as `resdomains fit` does until the task is solved; the run's own validation and test are left out."""
    clock = Clock(evaluator)
    overrides = {
        "trainer.accelerator": "cpu",
        "trainer.limit_val_batches": "0",
        "trainer.enable_progress_bar": "false",
        "seed": str(seed),
        **changes,
    }
    session = Session(
        Arguments(
            configs=[name],
            overrides=[(tuple(key.split(".")), value) for key, value in overrides.items()],
        )
    )
    seed_everything(session.seed, workers=True, verbose=False)
    data = session.data()
    task = session.task(data.spec)
    options = RunOptions(Path(mkdtemp()), wandb=WandbOptions(mode="disabled"))
    run = Run.create(options, session.task_name, session.name)
    trainer, _ = build_trainer(
        session, [*run.callbacks(None), _UntilSolved(clock)], run.folder, bar=False
    )
    trainer.loggers = run.loggers({}, list(task.build_metrics()))
    trainer.fit(task, datamodule=data)
    return clock.result()


def row(name: str, results: list[Result]) -> dict[str, Any]:
    """A line of the table; a seed that was never solved counts as longer than all others."""

    def seconds(values: list[float | None]) -> list[float]:
        return [float("inf") if value is None else value for value in values]

    whole = seconds([result.seconds for result in results])
    return {
        "what": name,
        "solved": sum(result.seconds is not None for result in results),
        "seconds": statistics.median(whole),
        "lowest": min(whole),
        "highest": max(whole),
        "without evaluations": statistics.median(seconds([result.training for result in results])),
        "steps": statistics.median(result.steps for result in results),
        "seconds of each seed": " ".join(f"{value:.2f}" for value in whole),
        "steps of each seed": " ".join(str(result.steps) for result in results),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--config", default="rl_policy/cartpole")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the config"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    changes = dict(change.split("=", 1) for change in arguments.set)
    evaluator = Evaluator(EPISODES)
    runs: dict[str, Callable[[int], Result]] = {
        "Stable-Baselines3": lambda seed: peer(seed, evaluator),
        "ours": lambda seed: ours(arguments.config, changes, seed, evaluator),
    }
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for run in runs.values():
        run(arguments.seeds)
    for seed in range(arguments.seeds):
        for name, run in runs.items():
            results[name].append(run(seed))
            print(name, seed, results[name][-1])
    rows = [row(name, found) for name, found in results.items()]
    for found in rows:
        found["ratio"] = found["seconds"] / rows[0]["seconds"]
    report("rl_time_to_solve", rows)


if __name__ == "__main__":
    main()
