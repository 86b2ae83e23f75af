"""What every data module has: splits, sharded batches that can be resumed, and loaders built in one place."""

import os
import signal
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import torch
from filelock import FileLock
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from resdomains.schema import Split
from resdomains.training.batches import Batches, ShardedBatches


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
        # Also what `state_dict` returns before the next batch, as where a run goes on with a validation.
        self._epoch, self._given = batches.epoch, batches.start = state["epoch"], state["batch"]


def _begin_worker(worker: int) -> None:
    """Leave a signal that reaches all of a run's processes to the first: it still needs its batches to stop well.

    Ctrl-C and schedulers send to all. A second SIGTERM ends a worker; the loader ends workers that hang by it.
    """
    sys.excepthook = _report
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report what went wrong in a thread that hands batches over; not that the run ended while it was handed one."""
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


class DataModule(LightningDataModule, ABC):
    """Data of one task: the splits, and a plain description of them (`spec`) that the task is built from.

    A subclass gives `prepare`, `spec` and `dataset`, and where it needs to `collate`, `transform`, `sample_weights`
    or `batch_sampler`. This class alone builds loaders, so that sharding and resuming are written once.

    Args:
        batch_size: Samples of a batch over all processes together; on average, where batches differ in size.
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
        self.timeout = 600.0
        """Seconds to wait for a batch of the loader's workers, 0 for ever; the launcher gives `run.data_timeout`."""
        self._prepared = False

    @abstractmethod
    def prepare(self) -> None:
        """Find and check the data; called once per process, one process of a machine at a time.

        Raises:
            ValueError: If data are missing or malformed, naming the argument and the path.
        """

    def adopt(self, spec: Mapping[str, Any]) -> None:
        """Follow a trained task's description in what would else be learned from one's own training split.

        Called before `prepare` where a checkpoint is evaluated, so that other data can be read as the checkpoint's
        were: a tokenizer or the order of classes. There is nothing to follow unless a data module says so.

        Raises:
            ValueError: If the description is of other data.
        """

    @property
    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What a task must know of the data: plain values, equal in all processes."""

    @abstractmethod
    def dataset(self, split: Split) -> Dataset[Any] | None:
        """Return the split as a map-style data set, or None if the data have none."""

    @property
    def notes(self) -> list[str]:
        """What a user should know of how the data were read, a sentence each; shown when a run begins."""
        return []

    def amount(self, positions: int) -> str:
        """Return what positions of a batch amount to in the data's unit, such as `4,096 tokens` or `120 s of sound`.

        Shown when a run begins, where batches are made to hold about equally many positions (`LengthBatches`).
        """
        return f"{positions:,} positions"

    def collate(self, items: Any) -> Any:
        """Make a batch of a data set's items."""
        return default_collate(items)

    def transform(self, batch: Any, split: Split) -> Any:
        """Change a batch on the device that computes: augmentation lives here."""
        return batch

    def describe(self, split: Split, index: int) -> dict[str, Any]:
        """Return what a person should see of a sample in a table: plain values, such as where it stands."""
        return {}

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
            multiple=self.accumulated(split),
            weights=self.sample_weights() if train else None,
        )

    def accumulated(self, split: Split) -> int:
        """Return how many batches make an optimizer step; 1 in evaluation."""
        return (
            1 if split != "train" or self.trainer is None else self.trainer.accumulate_grad_batches
        )

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0."""
        return 0 if self.trainer is None else self.trainer.current_epoch

    def ready(self) -> Self:
        """Prepare the data if that is still to be done, and return self."""
        if not self._prepared:
            # A file of one's own: many systems forbid opening another user's in a shared temporary folder.
            name = f"resdomains-{os.getuid()}-{type(self).__name__}.lock"
            with FileLock(Path(tempfile.gettempdir()) / name):
                self.prepare()
            self._prepared = True
        return self

    def has(self, split: Split) -> bool:
        """Say whether the data have a split, and a sample in it."""
        dataset = self.ready().dataset(split)
        return dataset is not None and len(dataset) > 0  # type: ignore[arg-type]  # map-style

    @property
    def split_sizes(self) -> dict[str, int]:
        """How many samples each split has."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        return {s: len(self.ready_dataset(s)) for s in splits if self.has(s)}  # type: ignore[arg-type]

    def ready_dataset(self, split: Split) -> Dataset[Any]:
        """Return a split that must exist.

        Raises:
            ValueError: If the data have no such split.
        """
        dataset = self.ready().dataset(split)
        if dataset is None:
            raise ValueError(f"{type(self).__name__} has no {split} split")
        return dataset

    def unchanged(self) -> Dataset[Any]:
        """Return the training split as an evaluation reads it: with nothing random about a sample.

        A data module whose training data set itself augments returns another here.
        """
        return self.ready_dataset("train")

    def batch(self, split: Split, chosen: Sequence[int]) -> Any:
        """Return a batch of chosen samples as a loader would give it, made beside the loaders."""
        loader = DataLoader(
            self.ready_dataset(split), batch_sampler=[list(chosen)], collate_fn=self.collate
        )
        return next(iter(loader))

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
            timeout=self.timeout if self.num_workers else 0,
            worker_init_fn=_begin_worker,
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
