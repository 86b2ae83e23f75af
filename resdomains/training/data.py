"""What every data module has: splits, sharded batches that can be resumed, and loaders built in one place."""

import itertools
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from filelock import FileLock
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from resdomains.training.schema import Split


class BadSample(ValueError):
    """One sample that cannot be used, by name.

    Args:
        source: The file (and line, where there is one) or index.
        reason: What is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class Batches(Sampler[list[int]], ABC):
    """One process's batches of a split, in an order that an epoch fixes, from any position on."""

    def __init__(self) -> None:
        self.epoch = 0
        self.start = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Yield all batches of an epoch."""

    @property
    def sampler(self) -> "Batches":
        """Itself: Lightning calls `set_epoch` on a batch sampler's `sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given epoch; a resumed position holds for its own epoch only."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(self.batches(self.epoch), self.start, None)


class ShardedBatches(Batches):
    """Batches of equal size.

    In training, each epoch shuffles the whole split by (seed, epoch), cuts it into global batches of `batch_size` and
    gives each process its slice of every one: the processes together see just what a single process would. In
    evaluation nothing is shuffled, padded or dropped: every sample is seen once, so processes may differ by a batch.

    Args:
        length: Samples in the split.
        batch_size: Samples of a global batch.
        rank: This process, from 0.
        world: Number of processes.
        shuffle: Whether this is training: shuffle, and drop the last, smaller batch.
        seed: The run's seed.
        multiple: Batches of an epoch are rounded down to a multiple of this (gradient accumulation), if any are left.
        weights: (length,) probabilities to draw with replacement instead of shuffling.

    Raises:
        ValueError: If the batch size is not a multiple of the number of processes, or exceeds the split in training.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        rank: int,
        world: int,
        *,
        shuffle: bool,
        seed: int,
        multiple: int = 1,
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        if batch_size % world:
            raise ValueError(
                f"batch_size counts samples over all processes and must be a multiple of their number, "
                f"got {batch_size} for {world} processes; take {batch_size // world * world or world} "
                f"or {(batch_size // world + 1) * world}"
            )
        if shuffle and length < batch_size:
            raise ValueError(
                f"batch_size {batch_size} is larger than the training split of {length} samples; "
                f"set --data.batch_size to at most {length}"
            )
        self.length, self.batch_size, self.rank, self.world = length, batch_size, rank, world
        self.shuffle, self.seed, self.weights = shuffle, seed, weights
        self.multiple = multiple if length // batch_size >= multiple else 1

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.batch_size // self.multiple * self.multiple
        share = self.batch_size // self.world
        return -(-len(range(self.rank, self.length, self.world)) // share)

    def _shuffled(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        if self.weights is not None:
            return torch.multinomial(
                self.weights, self.length, replacement=True, generator=generator
            )
        return torch.randperm(self.length, generator=generator)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Yield this process's slices of the epoch's global batches, or its share of an evaluated split."""
        share = self.batch_size // self.world
        if self.shuffle:
            order, step, offset = self._shuffled(epoch), self.batch_size, self.rank * share
        else:
            order, step, offset = torch.arange(self.rank, self.length, self.world), share, 0
        for batch in range(len(self)):
            begin = batch * step + offset
            yield order[begin : begin + share].tolist()


class ResumableLoader(DataLoader[Any]):
    """A loader that Lightning saves and restores in the middle of an epoch.

    It counts the batches that it handed out, whatever its workers have read ahead; the order is the batch sampler's.
    (torchdata's StatefulDataLoader does the same in general, but lost the position of an epoch's last batch with
    persistent workers.)
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # an iterator is all that Lightning asks for
        batches = cast(Batches, self.batch_sampler)
        self._epoch, self._given = batches.epoch, batches.start
        loaded = super().__iter__()
        batches.start = 0
        for batch in loaded:
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were handed out."""
        return {"epoch": self._epoch, "batch": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next iteration where `state_dict` was taken."""
        batches = cast(Batches, self.batch_sampler)
        batches.epoch, batches.start = state["epoch"], state["batch"]


class DataModule(LightningDataModule, ABC):
    """Data of one task: the splits, and a plain description of them (`spec`) that the task is built from.

    A subclass gives `prepare`, `spec` and `dataset`, and where it needs to `collate`, `transform`, `sample_weights`
    or `batch_sampler`. This class alone builds loaders, so that sharding and resuming are written once.

    Args:
        batch_size: Samples of a batch over all processes together.
        num_workers: Loader processes; 0 reads in the training process.
        seed: Seed of the order and of the augmentation; the launcher gives the run's.
    """

    def __init__(self, *, batch_size: int, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(
                f"num_workers must be at least 0, got {num_workers}; 0 reads in the training process"
            )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._prepared = False

    @abstractmethod
    def prepare(self) -> None:
        """Find and check the data; called once per process, one process of a machine at a time.

        Raises:
            ValueError: If data are missing or malformed, naming the argument and the path.
        """

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What a task must know of the data: plain values, equal in all processes."""

    @abstractmethod
    def dataset(self, split: Split) -> Dataset[Any] | None:
        """Return the split as a map-style data set, or None if the data have none."""

    def collate(self, items: Any) -> Any:
        """Make a batch of a data set's items."""
        return default_collate(items)

    def transform(self, batch: Any, split: Split) -> Any:
        """Change a batch on the device that computes: augmentation lives here."""
        return batch

    def sample_weights(self) -> Tensor | None:
        """Return (N,) weights to draw training samples by, or None to shuffle."""
        return None

    def batch_sampler(self, split: Split, rank: int, world: int) -> Batches:
        """Return this process's batches of a split."""
        train = split == "train"
        return ShardedBatches(
            len(self.ready_dataset(split)),  # type: ignore[arg-type]  # map-style data sets have a length
            self.batch_size,
            rank,
            world,
            shuffle=train,
            seed=self.seed,
            multiple=self.trainer.accumulate_grad_batches
            if train and self.trainer is not None
            else 1,
            weights=self.sample_weights() if train else None,
        )

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return 0 if self.trainer is None else self.trainer.current_epoch

    def ready(self) -> "DataModule":
        """Prepare the data if that is still to be done, and return self."""
        if not self._prepared:
            # A file of one's own: many systems forbid opening another user's in a shared temporary folder.
            name = f"resdomains-{os.getuid()}-{type(self).__name__}.lock"
            with FileLock(Path(tempfile.gettempdir()) / name):
                self.prepare()
            self._prepared = True
        return self

    def has(self, split: Split) -> bool:
        """Say whether the data have a split."""
        return self.ready().dataset(split) is not None

    def ready_dataset(self, split: Split) -> Dataset[Any]:
        """Return a split that must exist.

        Raises:
            ValueError: If the data have no such split.
        """
        dataset = self.ready().dataset(split)
        if dataset is None:
            raise ValueError(f"{type(self).__name__} has no {split} split")
        return dataset

    def setup(self, stage: str) -> None:
        """Prepare the data in this process."""
        self.ready()

    def _loader(self, split: Split) -> ResumableLoader:
        rank, world = (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )
        return ResumableLoader(
            self.ready_dataset(split),
            batch_sampler=self.batch_sampler(split, rank, world),
            num_workers=self.num_workers,
            collate_fn=self.collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> ResumableLoader:
        """Return the training batches of this process."""
        return self._loader("train")

    def val_dataloader(self) -> ResumableLoader | Sequence[Any]:
        """Return the validation batches of this process; none if the data have no such split."""
        return self._loader("val") if self.has("val") else []

    def test_dataloader(self) -> ResumableLoader:
        """Return the test batches of this process."""
        return self._loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Apply `transform` for the split that is being run."""
        if self.trainer is None or self.trainer.training:
            return self.transform(batch, "train")
        return self.transform(batch, "test" if self.trainer.testing else "val")
