"""Which samples make a batch, in which process and in which order."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


class Batches(Sampler[list[int]], ABC):
    """One process's batches of a split, in an order that an epoch fixes, from any position on."""

    def __init__(self) -> None:
        self.epoch = 0
        self.start = 0
        self.positions: int | None = None
        """The most positions that a global batch holds, padding included; None where all samples cost alike."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Yield all batches of an epoch."""

    @property
    @abstractmethod
    def mean_items(self) -> float:
        """The mean number of samples of a batch."""

    def share(self, items: int) -> float:
        """Return the factor of a training batch's mean loss with which every sample of an epoch counts alike.

        That is `items / mean_items` where batches differ in size, in one process or several, accumulated or not:
        gradients are averaged over batches, which would let a sample of a small batch count more. Batches of equal
        size have 1.

        Args:
            items: The batch's samples.
        """
        return 1.0

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
            below = batch_size // world * world
            near = f"{below} or {below + world}" if below else f"{world}"
            raise ValueError(
                f"batch_size counts samples over all processes and must be a multiple of their number, "
                f"got {batch_size} for {world} processes; take {near}"
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

    @property
    def mean_items(self) -> float:
        """The samples of each of this process's batches, but for the last in evaluation."""
        return self.batch_size / self.world

    def _shuffled(self, epoch: int) -> Tensor:
        generator = _generator(self.seed, epoch)
        if self.weights is not None:
            return torch.multinomial(
                self.weights, self.length, replacement=True, generator=generator
            )
        return torch.randperm(self.length, generator=generator)

    def _in_order(self) -> Tensor:
        return torch.arange(self.length)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Yield this process's slices of the epoch's global batches, or its share of an evaluated split."""
        share = self.batch_size // self.world
        if self.shuffle:
            order, step, offset = self._shuffled(epoch), self.batch_size, self.rank * share
        else:
            order, step, offset = self._in_order()[self.rank :: self.world], share, 0
        for batch in range(len(self)):
            begin = batch * step + offset
            yield order[begin : begin + share].tolist()


class SimilarBatches(ShardedBatches):
    """Batches of equal size whose samples are alike, such as pictures of one aspect ratio, which share a batch's shape.

    In training, each epoch shuffles by (seed, epoch), leaves out what does not fill a batch, and orders the others by
    group, so that at most one batch begins in a group and ends in the next; batches come in shuffled order. In
    evaluation, samples are ordered by group, and each is seen once.

    Args:
        groups: (N,) whole numbers; neighbours are more alike than others.
        batch_size: Samples of a global batch.
        rank: This process, from 0.
        world: Number of processes.
        shuffle: Whether this is training.
        seed: The run's seed.
        multiple: Batches of an epoch are rounded down to a multiple of this (gradient accumulation), if any are left.

    Raises:
        ValueError: If the batch size is not a multiple of the number of processes, or exceeds the split in training.
    """

    def __init__(
        self,
        groups: Tensor,
        batch_size: int,
        rank: int,
        world: int,
        *,
        shuffle: bool,
        seed: int,
        multiple: int = 1,
    ) -> None:
        super().__init__(
            len(groups), batch_size, rank, world, shuffle=shuffle, seed=seed, multiple=multiple
        )
        self.groups = groups

    def _shuffled(self, epoch: int) -> Tensor:
        kept = super()._shuffled(epoch)[: len(self) * self.batch_size]
        alike = kept[self.groups[kept].argsort(stable=True)].view(-1, self.batch_size)
        order = torch.randperm(len(alike), generator=_generator(self.seed, epoch, stream=1))
        return alike[order].view(-1)

    def _in_order(self) -> Tensor:
        return self.groups.argsort(stable=True)


class Stamped(Batches):
    """Batches of `epoch * length + index`: loader processes that live through several epochs learn the epoch so.

    Args:
        inner: The batches of indices.
        length: Samples in the split.
    """

    def __init__(self, inner: Batches, length: int) -> None:
        super().__init__()
        self.inner, self.length = inner, length

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def mean_items(self) -> float:
        """The mean number of samples of a batch."""
        return self.inner.mean_items

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Yield all batches of an epoch."""
        for batch in self.inner.batches(epoch):
            yield [epoch * self.length + index for index in batch]


def _generator(seed: int, epoch: int, stream: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch + stream * 2**40)


class LengthBatches(Batches):
    """Batches of samples of like length, all of about the same size in positions.

    Samples are ordered by length, rounded up to a grid whose steps are a tenth of the length, and cut into
    ceil(length / batch_size) global batches such that the largest product `samples * longest` is as small as can be:
    many short samples make a batch, or few long ones. In training, each epoch shuffles by (seed, epoch) which samples
    of one rounded length fall into which batch, and the order of the batches; every sample is seen once. Each process
    takes every `world`-th sample of a global batch, which has at least one for each. In evaluation nothing is shuffled,
    and every sample is seen once.

    Args:
        lengths: (N,) positions of each sample, at least 1.
        batch_size: Samples of a global batch, on average.
        rank: This process, from 0.
        world: Number of processes.
        shuffle: Whether this is training.
        seed: The run's seed.
        multiple: Batches of an epoch are rounded up to a multiple of this (gradient accumulation), if the samples
            suffice.

    Raises:
        ValueError: If there are fewer samples than processes in training.
    """

    GRID = 1.1

    def __init__(
        self,
        lengths: Tensor,
        batch_size: int,
        rank: int,
        world: int,
        *,
        shuffle: bool,
        seed: int,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        count = len(lengths)
        if shuffle and count < world:
            raise ValueError(
                f"the training split of {count} samples is too small for {world} processes; "
                f"take at most {count} (--trainer.devices)"
            )
        self.rank, self.world, self.shuffle, self.seed = rank, world, shuffle, seed
        self._rounded = _grid(lengths, self.GRID)
        wanted = max(1, -(-count // batch_size))
        if -(-wanted // multiple) * multiple * world <= count:
            wanted = -(-wanted // multiple) * multiple
        costs = self._rounded.sort(descending=True).values.tolist()
        # The sorted lengths are those of every epoch, so the places of the cuts are too.
        # The batches of a single process, unless one is too small to have a sample for each of several.
        cuts = _cut(costs, wanted, 1)
        if any(end - begin < world for begin, end in itertools.pairwise(cuts)):
            cuts = _cut(costs, wanted, world)
        self._pieces = [(begin, end - begin) for begin, end in itertools.pairwise(cuts)]
        self.positions = max((size * costs[begin] for begin, size in self._pieces), default=0)

    def __len__(self) -> int:
        return sum(size > self.rank for _, size in self._pieces)

    @property
    def mean_items(self) -> float:
        """The mean number of samples of this process's batches."""
        return len(self._rounded) / self.world / max(len(self._pieces), 1)

    def share(self, items: int) -> float:
        """Return the batch's samples over their mean."""
        return items / self.mean_items

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Yield this process's samples of the epoch's global batches."""
        mixed, order = torch.arange(len(self._rounded)), torch.arange(len(self._pieces))
        if self.shuffle:
            mixed = torch.randperm(len(mixed), generator=_generator(self.seed, epoch, stream=1))
            order = torch.randperm(len(order), generator=_generator(self.seed, epoch))
        by_length = mixed[self._rounded[mixed].argsort(descending=True, stable=True)]
        for place in order.tolist():
            begin, size = self._pieces[place]
            own = by_length[begin + self.rank : begin + size : self.world].tolist()
            if own:
                yield own


def _grid(lengths: Tensor, ratio: float) -> Tensor:
    """Round lengths up to 1, 2, 3 ... and, where that is coarser, to steps of the ratio."""
    longest = int(lengths.max()) if len(lengths) else 1
    grid = [1]
    while grid[-1] < longest:
        grid.append(max(grid[-1] + 1, int(grid[-1] * ratio)))
    steps = torch.tensor(grid)
    return steps[torch.searchsorted(steps, lengths.long())]


def _cut(costs: list[int], wanted: int, smallest: int) -> list[int]:
    """Cut falling costs into `wanted` pieces of at least `smallest`, the largest `size * first cost` being least.

    Returns:
        The places of the cuts, from 0 to the number of costs; fewer pieces where the costs do not suffice.
    """
    if not costs:
        return [0]
    wanted = max(1, min(wanted, len(costs) // smallest))
    low, high = 1, costs[0] * len(costs)
    while low < high:
        middle = (low + high) // 2
        if len(_fill(costs, middle, smallest)) - 1 <= wanted:
            high = middle
        else:
            low = middle + 1
    cuts = _fill(costs, low, smallest)
    while len(cuts) - 1 < wanted:
        sizes = [end - begin for begin, end in itertools.pairwise(cuts)]
        place = max(range(len(sizes)), key=sizes.__getitem__)
        if sizes[place] < 2 * smallest:
            break
        cuts.insert(place + 1, cuts[place] + sizes[place] // 2)
    return cuts


def _fill(costs: list[int], budget: int, smallest: int) -> list[int]:
    """Cut falling costs greedily into pieces within a budget."""
    cuts = [0]
    while cuts[-1] < len(costs):
        cuts.append(cuts[-1] + max(budget // costs[cuts[-1]], smallest))
    cuts[-1] = len(costs)
    if len(cuts) > 2 and cuts[-1] - cuts[-2] < smallest:
        del cuts[-2]
    return cuts
