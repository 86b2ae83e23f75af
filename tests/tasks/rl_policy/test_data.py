from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from resdomains_tasks.rl_policy import ClipReward, Gymnasium
from resdomains_tasks.rl_policy.data import Episodes, Turn
from resdomains_tasks.rl_policy.rollout import Acted

from . import worlds  # noqa: F401 it registers them


def data(**options: Any) -> Gymnasium:
    arguments: dict[str, Any] = {
        "environment": "CartPole-v1",
        "batch_size": 32,
        "epoch_steps": 100,
        "num_environments": 4,
        "vectorization": "sync",
        "val_episodes": 5,
        "test_episodes": 3,
    }
    return Gymnasium(**{**arguments, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 30}, "must be a multiple of num_environments, got 30 for 4; take 28 or 32"),
        ({"batch_size": 2}, "got 2 for 4; take 4"),
        ({"num_environments": 0}, "num_environments must be at least 1, got 0"),
        ({"epoch_steps": 0}, "epoch_steps must be at least 1, got 0"),
        ({"val_episodes": -1}, "must be at least 0, got -1 and 3"),
    ],
)
def test_sizes_are_checked(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(**options)


def test_an_epoch_is_whole_iterations_on_every_process() -> None:
    for rank in (0, 1):
        batches = data().batch_sampler("train", rank, 2)
        assert list(batches) == [[0], [1], [2], [3]]
        assert batches.mean_items == 16


def test_an_iteration_takes_its_steps_in_every_environment() -> None:
    module = data()
    turn = module.transform(module.collate([{"index": 0, "seed": 0}]), "train")
    assert isinstance(turn, Turn)
    assert (turn.steps, turn.runner.environments.count) == (8, 4)
    assert (
        module.transform(module.collate([{"index": 1, "seed": 1}]), "train").runner is turn.runner
    )


def test_evaluation_has_seeds_of_its_own_and_the_same_in_every_run() -> None:
    seeds = {}
    for split in ("val", "test"):
        module = data(seed=7)
        (indices,) = module.batch_sampler(split, 0, 1)
        samples = module.ready_dataset(split)
        batch = module.transform(module.collate([samples[i] for i in indices]), split)
        assert isinstance(batch, Episodes)
        seeds[split] = batch.seeds
        assert batch.index == indices
        assert batch.environments.count == len(indices)
    assert seeds == {
        "val": [1_000_000 + i for i in range(5)],
        "test": [2_000_000 + i for i in range(3)],
    }


def test_training_environments_differ_and_the_seed_decides() -> None:
    def first(seed: int) -> torch.Tensor:
        return torch.from_numpy(
            data(seed=seed).runner().environments.frame.observations["observation"]
        )

    assert len({tuple(row) for row in first(0).tolist()}) == 4
    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_evaluation_counts_true_rewards() -> None:
    options = {"lengths": [5], "truncates": False}
    module = data(environment="Worlds/Counting-v0", options=options, wrappers=[ClipReward(-1, 1)])
    runner, judges = module.runner().environments, module.judge(4)
    judges.reset([0, 1, 2, 3])
    action = np.zeros(4, np.int64)
    for step in (1, 2, 3):
        assert runner.step(action).rewards.tolist() == [1.0] * 4
        assert judges.step(action).rewards.tolist() == [float(step)] * 4


def test_missing_references_are_said_and_those_of_the_config_taken() -> None:
    world = {"environment": "Worlds/Counting-v0", "options": {"lengths": [5]}}
    (note,) = data(**world).ready().notes
    assert "no reference return of Worlds/Counting-v0 is known" in note
    told = data(**world, random_return=1.0, reference_return=15.0).ready()
    assert told.notes == []
    assert told.spec["source"] == "the config"
    assert data().spec["reference_return"] == 500.0


def test_environments_must_be_dealt_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Three:
        global_rank, world_size = 0, 3

    module = data()
    monkeypatch.setattr(module, "trainer", Three())
    with pytest.raises(
        ValueError, match="must be a multiple of their number, got 4 for 3 processes"
    ):
        module.runner()


def test_processes_play_environments_of_their_own_which_are_those_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def observed(rank: int, world: int) -> torch.Tensor:
        module = data()
        place = SimpleNamespace(global_rank=rank, world_size=world)
        monkeypatch.setattr(module, "trainer", place)
        return module.runner().collect(30, push).observations["observation"]

    def push(step: int, observations: Mapping[str, torch.Tensor], masks: Any) -> Acted:
        taken = np.full(len(observations["observation"]), step % 2)
        return Acted(torch.zeros(len(taken), 2), torch.from_numpy(taken), taken, None)

    first, second = observed(0, 2), observed(1, 2)
    assert torch.equal(torch.cat((first, second), 1), observed(0, 1))
    assert not (first[0] == second[0]).any()


def test_no_episodes_mean_no_split() -> None:
    module = data(test_episodes=0)
    assert module.has("val")
    assert not module.has("test")


def test_environments_without_states_are_named() -> None:
    (note,) = data(environment="LunarLander-v3").ready().notes
    assert "begins new episodes, since the states of LunarLander-v3 cannot be kept: " in note
