"""The data module: environments of gymnasium to learn in, and others, with seeds of their own, to be judged in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate

from resdomains.schema import Split
from resdomains.training import DataModule
from resdomains.training.batches import Batches, ShardedBatches

from .environments import (
    Autoreset,
    VectorEnvironments,
    Vectorization,
    describe,
    make_environments,
)
from .episodes import evaluation_environments
from .rollout import Runner
from .spec import PolicySpec
from .wrappers import Wrapping

# Seeds of evaluated episodes, the same in every run; training's environments count from the run's seed.
_FIRST_SEED: Mapping[Split, int] = {"val": 1_000_000, "test": 2_000_000}
_SIDE_BY_SIDE = 128  # episodes of a process that are played at the same time


@dataclass(frozen=True)
class Turn:
    """One iteration's batch: where to act, and how long.

    Args:
        runner: This process's environments.
        steps: Steps to take in each.
    """

    runner: Runner
    steps: int

    def __deepcopy__(self, memo: dict[int, Any]) -> "Turn":
        """Return itself: environments cannot be copied in general, and a probe that copies a batch changes none."""
        return self


@dataclass(frozen=True)
class Episodes:
    """Episodes to be played side by side, each in an environment of its own.

    Args:
        seeds: Each episode's seed.
        index: Its place in the split.
        environments: As many environments.
    """

    seeds: list[int]
    index: list[int]
    environments: VectorEnvironments

    def __deepcopy__(self, memo: dict[int, Any]) -> "Episodes":
        """Return itself: what is played begins with a reset."""
        return self


class Iterations(Batches):
    """The numbers of an epoch's iterations, one a batch, the same on every process.

    Args:
        count: Iterations of an epoch.
        steps: Environment steps of an iteration on this process.
    """

    def __init__(self, count: int, steps: int) -> None:
        super().__init__()
        self.count, self.steps = count, steps

    def __len__(self) -> int:
        return self.count

    @property
    def mean_items(self) -> float:
        """The environment steps of an iteration."""
        return self.steps

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Yield each iteration's number."""
        yield from ([number] for number in range(self.count))


class _Numbered(Dataset[dict[str, int]]):
    """Samples that are numbers: an iteration, or an episode with its seed."""

    def __init__(self, count: int, first_seed: int) -> None:
        self.count, self.first_seed = count, first_seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"index": index, "seed": self.first_seed + index}


class Gymnasium(DataModule):
    """An environment that gymnasium knows by its id, many of it at a time.

    An iteration of training takes `batch_size` steps, `batch_size / num_environments` in each environment; an epoch
    takes `epoch_steps`, after which the policy is judged. Evaluation plays whole episodes in separate environments,
    each with its own fixed seed and without the wrappers that are for training alone.

    Args:
        environment: The id, such as `CartPole-v1`, `LunarLander-v3`, `ALE/Pong-v5` or `MinAtar/Breakout-v1`.
        batch_size: Environment steps of an iteration over all processes.
        epoch_steps: Environment steps of an epoch, rounded up to whole iterations.
        num_environments: Environments that step together, over all processes.
        options: Arguments of `gymnasium.make`.
        wrappers: What changes observations, actions and rewards, the innermost first.
        vectorization: `native` for the environment's own vectorised implementation, `sync` for one environment after
            the other, `async` for a process each; `auto` is `native` where there is one, else `sync`.
        autoreset: Whether an environment whose episode is over begins the next with the following step
            (`next_step`, gymnasium's default) or in the same.
        val_episodes: Episodes after each epoch.
        test_episodes: Episodes of the test; 0 for no test.
        episode_limit: Steps after which evaluation ends an episode; None for the environment's own limit, 10,000 where
            it has none.
        random_return: The mean return of random actions; None for what is known of the environment.
        reference_return: The return that counts as a score of 1; None for what is known of the environment.
        seed: The run's seed.

    Raises:
        ValueError: If an argument is out of its range or they do not fit one another.
    """

    def __init__(
        self,
        *,
        environment: str,
        batch_size: int = 2048,
        epoch_steps: int = 16384,
        num_environments: int = 8,
        options: dict[str, Any] | None = None,
        wrappers: Sequence[Wrapping] = (),
        vectorization: Vectorization = "auto",
        autoreset: Autoreset = "next_step",
        val_episodes: int = 20,
        test_episodes: int = 100,
        episode_limit: int | None = None,
        random_return: float | None = None,
        reference_return: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        if num_environments < 1:
            raise ValueError(f"num_environments must be at least 1, got {num_environments}")
        if batch_size % num_environments:
            less = batch_size // num_environments * num_environments
            nearest = " or ".join(str(n) for n in (less, less + num_environments) if n)
            raise ValueError(
                "batch_size counts the steps of all environments and must be a multiple of num_environments, "
                f"got {batch_size} for {num_environments}; take {nearest}"
            )
        if epoch_steps < 1:
            raise ValueError(f"epoch_steps must be at least 1, got {epoch_steps}")
        if val_episodes < 0 or test_episodes < 0:
            raise ValueError(
                f"val_episodes and test_episodes must be at least 0, got {val_episodes} and {test_episodes}"
            )
        self.environment = environment
        self.epoch_steps = epoch_steps
        self.num_environments = num_environments
        self.options = options or {}
        self.wrappers = list(wrappers)
        self.vectorization = vectorization
        self.autoreset = autoreset
        self.episodes: dict[Split, int] = {"val": val_episodes, "test": test_episodes}
        self.episode_limit = episode_limit
        self.returns = {"random_return": random_return, "reference_return": reference_return}
        self._runner: Runner | None = None
        self._judges: dict[int, VectorEnvironments] = {}
        self._restored: Mapping[str, Any] | None = None

    def prepare(self) -> None:
        """Make the environment once, and look at its observations and actions.

        Raises:
            ValueError: If there is no such environment, an extra is missing, or a space is not supported.
        """
        self.described: PolicySpec = describe(
            self.environment,
            self.options,
            self.wrappers,
            random_return=self.returns["random_return"],
            reference_return=self.returns["reference_return"],
            source="the config" if self.returns["reference_return"] is not None else "",
            episode_limit=self.episode_limit,
        )

    @property
    def spec(self) -> dict[str, Any]:
        """The environment's description."""
        return self.ready().described.plain()

    @property
    def notes(self) -> list[str]:
        """What is said of returns that make no score, and of environments that a resumed run cannot go on in."""
        said = []
        if not self.described.has_reference:
            said.append(
                f"no reference return of {self.environment} is known, so that a return has no score or skill: "
                "set --data.random_return and --data.reference_return"
            )
        judge = self.judge(1)
        judge.reset([0])
        if judge.no_state:
            said.append(
                f"a run that goes on from a checkpoint begins new episodes, since the states of {self.environment} "
                f"cannot be kept: {judge.no_state}"
            )
        return said

    def dataset(self, split: Split) -> Dataset[Any] | None:
        """Return the epoch's iterations, or the episodes of an evaluated split."""
        if split == "train":
            return _Numbered(-(-self.epoch_steps // self.batch_size), 0)
        count = self.episodes[split]
        return _Numbered(count, _FIRST_SEED[split]) if count else None

    def batch_sampler(self, split: Split, rank: int, world: int) -> Batches:
        """Return the iterations, or this process's episodes, as many at a time as are played side by side."""
        length = len(self.ready_dataset(split))  # type: ignore[arg-type]  # map-style
        if split == "train":
            return Iterations(length, self.batch_size // world)
        share = min(-(-length // world), _SIDE_BY_SIDE)
        return ShardedBatches(length, share * world, rank, world, shuffle=False, seed=self.seed)

    def collate(self, items: Any) -> Any:
        """Make a batch of numbers."""
        return default_collate(items)

    def transform(self, batch: Any, split: Split) -> Any:
        """Return the environments that the batch's iteration or episodes take place in."""
        if split == "train":
            return Turn(self.runner(), self.batch_size // self.num_environments)
        seeds: list[int] = batch["seed"].tolist()
        return Episodes(seeds, batch["index"].tolist(), self.judge(len(seeds)))

    def runner(self) -> Runner:
        """Return this process's training environments, which are made when they are first asked for.

        Raises:
            ValueError: If the environments cannot be dealt out evenly.
        """
        if self._runner is None:
            rank, world = (
                (0, 1)
                if self.trainer is None
                else (self.trainer.global_rank, self.trainer.world_size)
            )
            if self.num_environments % world:
                raise ValueError(
                    "num_environments counts those of all processes and must be a multiple of their number, "
                    f"got {self.num_environments} for {world} processes"
                )
            count = self.num_environments // world
            environments = make_environments(
                self.ready().described,
                count,
                vectorization=self.vectorization,
                autoreset=self.autoreset,
                training=True,
            )
            self._runner = Runner(environments, rank * count, self.num_environments)
            if self._restored is None or not self._runner.restore(self._restored["runners"]):
                first = self.seed * 100_003 + rank * count
                environments.reset([first + place for place in range(count)])
        return self._runner

    def judge(self, count: int) -> VectorEnvironments:
        """Return environments for so many episodes, each with a seed of its own."""
        if count not in self._judges:
            self._judges[count] = evaluation_environments(self.ready().described, count)
        return self._judges[count]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training environments of all processes, where they can give one."""
        own = None if self._runner is None else self._runner.state()
        if self.trainer is None or self.trainer.world_size == 1:
            return {"runners": [own]}
        every: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(every, own)
        return {"runners": every}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let training go on in the environments of a checkpoint, if their number is this run's."""
        self._restored = state_dict

    def teardown(self, stage: str) -> None:
        """Close the environments."""
        for environments in self._judges.values():
            environments.close()
        self._judges.clear()
        if stage == "fit" and self._runner is not None:
            self._runner.environments.close()
            self._runner = None
