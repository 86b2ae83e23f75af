import os
import socket
from collections.abc import Generator, Sequence
from contextlib import closing
from multiprocessing import connection, current_process
from multiprocessing.resource_sharer import DupFd
from typing import Any, cast

import pytest
import torch

from resdomains.training import BadSample
from resdomains.training.batches import ShardedBatches
from tests.resdomains.training.toy import Clouds


def batches(world: int, epoch: int = 0, **options: object) -> list[list[list[int]]]:
    arguments: dict[str, object] = {"shuffle": True, "seed": 0, **options}
    samplers = [ShardedBatches(101, 12, rank, world, **arguments) for rank in range(world)]  # type: ignore[arg-type]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def test_processes_together_see_the_batches_of_one() -> None:
    (alone,) = batches(1)
    for world in (2, 3):
        shares = batches(world)
        together = [[i for part in parts for i in part] for parts in zip(*shares, strict=True)]
        assert together == alone


def test_training_shuffles_each_epoch_anew_and_drops_the_rest() -> None:
    first, second = batches(1)[0], batches(1, epoch=1)[0]
    assert first != second
    assert len(first) == 101 // 12
    assert len({i for batch in first for i in batch}) == 96


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_sample_once_and_in_order(world: int) -> None:
    shares = batches(world, shuffle=False)
    seen = sorted(i for share in shares for batch in share for i in batch)
    assert seen == list(range(101))
    for rank, share in enumerate(shares):
        sampler = ShardedBatches(101, 12, rank, world, shuffle=False, seed=0)
        assert len(sampler) == len(share)


def test_an_epoch_holds_whole_accumulations() -> None:
    (alone,) = batches(1, multiple=3)
    assert len(alone) == 6


def test_weights_draw_in_their_proportion() -> None:
    weights = torch.cat([torch.full((50,), 9.0), torch.full((51,), 1.0)])
    drawn = [i for batch in batches(1, weights=weights)[0] for i in batch]
    assert 0.8 < sum(i < 50 for i in drawn) / len(drawn) < 1.0


def test_batch_size_must_be_shared_evenly() -> None:
    with pytest.raises(
        ValueError, match=r"multiple of their number, got 12 for 5 processes; take 10 or 15"
    ):
        ShardedBatches(101, 12, 0, 5, shuffle=True, seed=0)
    with pytest.raises(ValueError, match=r"got 4 for 5 processes; take 5$"):
        ShardedBatches(101, 4, 0, 5, shuffle=True, seed=0)


def test_batch_larger_than_the_split_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"batch_size 12 is larger than the training split of 7 samples"
    ):
        ShardedBatches(7, 12, 0, 1, shuffle=True, seed=0)


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("num_workers", -1)])
def test_bad_sizes_are_refused_when_built(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least . *, got {value}"):
        Clouds(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0, 2, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_goes_on_in_the_middle_of_an_epoch(workers: int, given: int) -> None:
    whole = [batch[2].tolist() for batch in Clouds(num_workers=workers).train_dataloader()]
    first = Clouds(num_workers=workers).train_dataloader()
    steps = iter(first)
    head = [next(steps)[2].tolist() for _ in range(given)]
    second = Clouds(num_workers=workers).train_dataloader()
    if given:
        second.load_state_dict(first.state_dict())
    assert head + [batch[2].tolist() for batch in second] == whole
    assert [batch[2].tolist() for batch in second] == whole


def test_missing_split_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Clouds has no val split"):
        Clouds(val=0).ready_dataset("val")
    assert Clouds(val=0).val_dataloader() == []


def test_a_split_without_samples_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Clouds()
    assert data.has("val")
    monkeypatch.setattr(data, "dataset", lambda _: [])
    assert not data.has("val")
    assert data.val_dataloader() == []


def test_bad_sample_says_which_and_why() -> None:
    assert str(BadSample("a.png", "truncated")) == "a.png: truncated"


class Handed(Clouds):
    """Batches that a loader's process hands over as it does tensors: by a thread, on request."""

    def collate(self, samples: Sequence[Any]) -> DupFd:
        return DupFd(1)


def test_a_worker_says_nothing_of_a_run_that_ended_while_it_was_handed_a_batch(
    capfd: pytest.CaptureFixture[str],
) -> None:
    loaded = cast(Generator[DupFd], iter(Handed(num_workers=1).train_dataloader()))
    with closing(loaded) as batches:  # ends the worker
        first, second = next(batches), next(batches)
        address, _ = vars(first)["_id"]
        with socket.socket(socket.AF_UNIX) as left:
            left.connect(address)
        os.close(first.detach())  # the thread takes one after another
        assert capfd.readouterr().err == ""
        with connection.Client(address, authkey=current_process().authkey) as wrong:
            wrong.send((10**6, os.getpid()))
        os.close(second.detach())
        assert capfd.readouterr().err.rstrip().endswith("KeyError: 1000000")
