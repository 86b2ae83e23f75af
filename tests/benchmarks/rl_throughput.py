"""Environment steps per second of training: ours against Stable-Baselines3, and the framework against a bare loop.

- CartPole-v1, 8 environments, rl-baselines3-zoo's PPO, and networks of as many weights: Stable-Baselines3's two trunks
  of 64-64 (4,480 weights each), and two residual ones (4,512: a linear map to 64, and a block of 32 inside). Our own
  best setting is the shipped config's with twice its environments and twice its minibatches, which still returned 500
  with each of three seeds (`--data.num_environments 128 --data.batch_size 4096 --data.epoch_steps 32768
  --model.algorithm.minibatch_size 1024`).
- The same PPO in a bare loop: the task's own parts with an optimizer, without Lightning, logging and callbacks.
- Atari (Breakout): IMPALA's network with a layer of 256, read by policy and critic. Stable-Baselines3 plays through its
  Atari wrappers, which need opencv-python-headless, and has the same module as features extractor. Both take the
  paper's numbers, but for 32 steps an iteration rather than 128: they cost the same each and are measured sooner. Ours
  in float32 as the peer, and in the precision that a run takes by itself on this machine.

Ours trains in `Trainer.fit` with everything that a run has. Environments and networks are built, and some iterations
done, before the clock starts. All take turns in one process.

python -m tests.benchmarks.rl_throughput [cartpole] [loop] [atari] [--rounds 5]
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ale_py
import gymnasium
import pytorch_lightning as pl
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack
from torch import Tensor, nn

from resdomains.cli.quiet import quiet
from resdomains.core import FeedForward, NoNorm, impala, simba
from resdomains.training import Optimization, Run, RunOptions, WandbOptions, WarmupLinear, run_facts
from resdomains.training.clipping import clip_by_norm
from resdomains.training.precision import choose_precision
from resdomains_tasks.rl_policy import (
    PPO,
    AtariPreprocessing,
    Flattened,
    FusedAdam,
    Gymnasium,
    RLPolicy,
)
from resdomains_tasks.rl_policy.ppo import minibatches, normalise
from tests.benchmarks.measure import figures_in_turn, report
from tests.benchmarks.rl_peers import zoo_cartpole


@dataclass(frozen=True)
class Setting:
    """What is trained, on how much, and how long.

    Args:
        environment: The id.
        backbone: Makes the network.
        environments: How many.
        steps: Of each environment in an iteration.
        epochs: Passes over an iteration's steps.
        minibatch: Steps of an update.
        iterations: What is timed.
        warmup: Iterations before the clock starts.
        task: Further arguments of the task.
        algorithm: Further arguments of PPO.
        data: Further arguments of the data module.
    """

    environment: str
    backbone: Callable[[], nn.Module]
    environments: int
    steps: int
    epochs: int
    minibatch: int
    iterations: int
    warmup: int = 5
    task: dict[str, Any] = field(default_factory=dict)
    algorithm: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Environment steps of an iteration."""
        return self.environments * self.steps

    def build(self) -> tuple[RLPolicy, Gymnasium]:
        """Return a task and its data."""
        pl.seed_everything(0, verbose=False)
        data = Gymnasium(
            environment=self.environment,
            batch_size=self.batch,
            epoch_steps=self.batch * (self.warmup + self.iterations + 1),
            num_environments=self.environments,
            val_episodes=0,
            test_episodes=0,
            **self.data,
        )
        task = RLPolicy(
            backbone=self.backbone(),
            spec=data.spec,
            optimization=Optimization(
                lr=1e-3,
                optimizer=FusedAdam,
                schedule=WarmupLinear(warmup=0.0),
            ),
            algorithm=PPO(epochs=self.epochs, minibatch_size=self.minibatch, **self.algorithm),
            **self.task,
        )
        return task, data


CARTPOLE = Setting(
    environment="CartPole-v1",
    backbone=lambda: simba(
        1, 64, in_channels=4, layer=(partial(FeedForward, expansion=0.5),), norm=NoNorm
    ),
    environments=8,
    steps=32,
    epochs=20,
    minibatch=256,
    iterations=40,
    task={"normalize_observations": False},
    algorithm={"discount": 0.98, "gae_lambda": 0.8},
)
BEST = Setting(
    environment="CartPole-v1",
    backbone=lambda: simba(1, 32, in_channels=4),
    environments=128,
    steps=32,
    epochs=8,
    minibatch=1024,
    iterations=20,
    task={"critic": "shared", "normalize_observations": False, "normalize_rewards": True},
)
ATARI = Setting(
    environment="ALE/Breakout-v5",
    backbone=impala,
    environments=8,
    steps=32,
    epochs=4,
    minibatch=256,
    iterations=1,
    warmup=1,
    task={"embedding": partial(Flattened, hidden=256), "critic": "shared"},
    algorithm={"clip": 0.1, "entropy": 0.01},
    data={"wrappers": [AtariPreprocessing(sticky=0.0, episodic_life=True, fire_at_reset=True)]},
)


class _Clock(pl.Callback):
    """Times the iterations after the first ones."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.marks: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.marks.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the mean seconds of an iteration, waiting included."""
        marks = self.marks[self.warmup :]
        return (marks[-1] - marks[0]) / (len(marks) - 1)


def ours(setting: Setting, precision: Any = "32-true") -> float:
    """Return the environment steps per second of `Trainer.fit` with everything that a run has."""
    task, data = setting.build()
    options = RunOptions(root=Path(mkdtemp()), wandb=WandbOptions(mode="disabled"))
    run = Run.create(options, "rl_policy", "benchmark")
    clock = _Clock(setting.warmup)
    pl.Trainer(
        max_epochs=1,
        limit_val_batches=0,
        logger=run.loggers(run_facts(task, run, "Gymnasium", 0, 1), list(task.build_metrics())),
        callbacks=[*run.callbacks(None), clock],
        use_distributed_sampler=False,
        log_every_n_steps=1,
        enable_model_summary=False,
        accelerator="cpu",
        precision=precision,
    ).fit(task, data)
    return setting.batch / clock.seconds()


def bare(setting: Setting) -> float:
    """Return the environment steps per second of a plain loop over the same task's parts."""
    task, data = setting.build()
    runner, algorithm = data.runner(), task.algorithm
    optimizer = task.optimization.build(task, "backbone", task.blocks())
    total = setting.warmup + setting.iterations + 1
    scheduler = task.optimization.scheduler(optimizer, total)
    generator = torch.Generator().manual_seed(0)
    learning = list(task.parameters())
    task.train()
    marks = []
    for number in range(total):
        marks.append(time.perf_counter())
        rollout = task.roll_out(runner, setting.steps, generator)
        estimates = task.estimate(rollout, runner)
        transitions = task.transitions(rollout, estimates, runner.own)
        clip = algorithm.clip_at(number / total)
        valid = estimates.valid.reshape(-1)
        for _ in range(algorithm.epochs):
            for index in minibatches(valid, algorithm.minibatch_size, generator):
                part = transitions[index]
                part = replace(part, advantages=normalise(part.advantages))
                loss = task.terms(part, clip).loss
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                clip_by_norm(learning, 0.5)
                optimizer.step()
        scheduler.step()
        seen = {name: x[:-1].flatten(0, 1) for name, x in rollout.observations.items()}
        task.inputs.update(seen, torch.from_numpy(valid))
    data.teardown("fit")
    marks = marks[setting.warmup :]
    return setting.batch * (len(marks) - 1) / (marks[-1] - marks[0])


def peer(model: sb3.PPO, setting: Setting) -> Callable[[], float]:
    """Return what lets Stable-Baselines3 learn on, and tells its environment steps per second."""
    model.learn(setting.batch * setting.warmup)

    def learn() -> float:
        steps = setting.batch * setting.iterations
        began = time.perf_counter()
        model.learn(steps)
        return steps / (time.perf_counter() - began)

    return learn


class _Impala(BaseFeaturesExtractor):
    """Our network and its layer of 256, as Stable-Baselines3 wants them."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space, 256)
        self.backbone = impala().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            (*_, last), _ = self.backbone(torch.zeros(1, *observation_space.shape))
        self.embedding = Flattened(last.shape[1:], hidden=256)

    def forward(self, observations: Tensor) -> Tensor:
        """Return (B, 256)."""
        return self.embedding(self.backbone(observations))  # type: ignore[no-any-return]


def peer_atari() -> sb3.PPO:
    """Return Stable-Baselines3's PPO for Breakout with IMPALA's network, untrained."""
    gymnasium.register_envs(ale_py)
    environments = VecFrameStack(make_atari_env("BreakoutNoFrameskip-v4", n_envs=8, seed=0), 4)
    # Its own initialisation cannot write to weights in channels_last.
    policy = {"features_extractor_class": _Impala, "net_arch": [], "ortho_init": False}
    return sb3.PPO(
        "CnnPolicy",
        environments,
        n_steps=ATARI.steps,
        batch_size=ATARI.minibatch,
        n_epochs=ATARI.epochs,
        learning_rate=2.5e-4,
        clip_range=0.1,
        ent_coef=0.01,
        policy_kwargs=policy,
        seed=0,
        device="cpu",
    )


def rows(what: str, figures: dict[str, list[float]], against: str) -> list[dict[str, Any]]:
    """Return a line for each: its median, and the median of its rounds' ratios to another's."""
    return [
        {
            "what": what,
            "of": name,
            "steps/s": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            f"times {against}": statistics.median(
                value / other for value, other in zip(values, figures[against], strict=True)
            ),
        }
        for name, values in figures.items()
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["cartpole", "loop", "atari"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cartpole_threads", type=int, default=1)
    parser.add_argument("--atari_threads", type=int, default=2)
    arguments = parser.parse_args()
    quiet()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.cartpole_threads)
    if "cartpole" in arguments.what:
        runs = {
            "Stable-Baselines3": peer(zoo_cartpole(0), CARTPOLE),
            "ours": lambda: ours(CARTPOLE),
            "ours, best setting": lambda: ours(BEST),
        }
        figures = figures_in_turn(runs, arguments.rounds)
        report("rl_throughput_cartpole", rows("CartPole-v1", figures, "Stable-Baselines3"))
    if "loop" in arguments.what:
        runs = {"bare loop": lambda: bare(CARTPOLE), "ours": lambda: ours(CARTPOLE)}
        figures = figures_in_turn(runs, arguments.rounds)
        report("rl_throughput_loop", rows("CartPole-v1", figures, "bare loop"))
    if "atari" in arguments.what:
        torch.set_num_threads(arguments.atari_threads)
        chosen = choose_precision("cpu").name
        runs = {
            "Stable-Baselines3": peer(peer_atari(), ATARI),
            "ours, float32": lambda: ours(ATARI),
            f"ours, as a run chooses here: {chosen}": lambda: ours(ATARI, chosen),
        }
        figures = figures_in_turn(runs, arguments.rounds, warmup=0)
        report("rl_throughput_atari", rows("Breakout", figures, "Stable-Baselines3"))


if __name__ == "__main__":
    main()
