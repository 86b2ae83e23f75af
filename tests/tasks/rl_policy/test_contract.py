"""The contract of every task, held by policies."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from resdomains.plugins import find
from resdomains.testing import BadArgument, BadFile, Check, TaskCase, parametrize_with_checks
from resdomains.training import DataModule, Task
from resdomains_tasks.rl_policy import Gymnasium, RLPolicy
from resdomains_tasks.rl_policy.ppo import Transitions


def few_steps(task: Task, data: DataModule) -> Transitions:
    """What the untrained policy did in its environments' next 16 steps."""
    assert isinstance(task, RLPolicy)
    assert isinstance(data, Gymnasium)
    return task.first_look(data.runner(), 16, torch.Generator().manual_seed(0))


def recordings(folder: Path) -> Sequence[Path]:
    """Three files of observations."""
    paths = []
    for count in (1, 3, 2):
        path = folder / f"{count}.npy"
        rows = np.random.default_rng(count).uniform(-0.2, 0.2, (count, 4))
        np.save(path, rows.astype(np.float32))
        paths.append(path)
    return paths


CASE = TaskCase(
    plugin=find("rl_policy"),
    config={
        "seed": 0,
        "model": {
            "class_path": "resdomains_tasks.rl_policy.RLPolicy",
            "init_args": {
                "backbone": {
                    "class_path": "resdomains.core.ResidualMLP",
                    "init_args": {"layers": 2, "width": 16},
                },
                "algorithm": {
                    "class_path": "resdomains_tasks.rl_policy.PPO",
                    # One update an iteration: the checks count steps.
                    "init_args": {"epochs": 1, "minibatch_size": 1024},
                },
                "optimization": {
                    "lr": 0.01,
                    "optimizer": "torch.optim.Adam",
                },
                "normalize_rewards": True,
            },
        },
        "data": {
            "class_path": "resdomains_tasks.rl_policy.Gymnasium",
            "init_args": {
                "environment": "CartPole-v1",
                "vectorization": "sync",
                "num_environments": 4,
                "batch_size": 128,
                "epoch_steps": 1024,
                "val_episodes": 7,
                "test_episodes": 3,
                "random_return": 20.0,
                "reference_return": 500.0,
            },
        },
    },
    shipped={"*": {"data.num_environments": "2"}},
    inputs=recordings,
    bad_files=[
        BadFile(
            name="cut.npy", content=b"\x93NUMPY\x01\x00v\x00", message="no .npy file of numbers"
        ),
        BadFile(name="text.npy", content=b"not an array", message="no .npy file of numbers"),
    ],
    bad_arguments=[
        BadArgument(key="data.environment", value="CartPoel-v1", message="CartPole"),
        BadArgument(key="data.batch_size", value="129", message="multiple of num_environments"),
        BadArgument(
            key="model.backbone.in_channels",
            value="5",
            message="set --model.backbone.in_channels 4",
        ),
        BadArgument(key="model.algorithm.discount", value="1.5", message=r"discount .*\[0, 1\]"),
    ],
    batch=few_steps,
    overfit_steps=200,
    # Several updates an iteration, of minibatches that processes share unevenly.
    sample_wise={"model.algorithm.epochs": "3", "model.algorithm.minibatch_size": "48"},
)


@parametrize_with_checks(CASE)
def test_policies_keep_the_contract(check: Check, tmp_path: Path) -> None:
    check(tmp_path)


def test_the_case_exempts_nothing() -> None:
    assert not CASE.exempt
