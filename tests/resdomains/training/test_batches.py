"""Batches of like length: what they hold, what they cost, and that every sample counts alike."""

from typing import Any

import pytest
import torch
from torch import Tensor

from resdomains.training.batches import LengthBatches, SimilarBatches, Stamped


def lengths(count: int = 1003, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, generator=generator) * 0.8 + 3).exp().long().clamp(1, 300)


def shares(world: int, epoch: int = 0, **options: Any) -> list[list[list[int]]]:
    arguments: dict[str, Any] = {"shuffle": True, "seed": 0, "batch_size": 16, **options}
    samplers = [LengthBatches(lengths(), rank=r, world=world, **arguments) for r in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_sample_is_seen_once_an_epoch(world: int, shuffle: bool) -> None:
    seen = [i for part in shares(world, shuffle=shuffle) for batch in part for i in batch]
    assert sorted(seen) == list(range(1003))


def test_processes_together_see_the_batches_of_one() -> None:
    (alone,) = shares(1, batch_size=64)
    for world in (2, 3):
        parts = shares(world, batch_size=64)
        together = [{i for part in step for i in part} for step in zip(*parts, strict=True)]
        assert together == [set(batch) for batch in alone]


def test_a_last_batch_that_two_processes_could_not_share_changes_no_other_cut() -> None:
    for seed in range(40):
        sizes = lengths(100 + seed, seed)
        alone, one, two = (
            LengthBatches(sizes, 12, rank, world, shuffle=True, seed=0)
            for rank, world in ((0, 1), (0, 2), (1, 2))
        )
        if min(len(batch) for batch in alone) > 1:
            together = [set(a) | set(b) for a, b in zip(one, two, strict=True)]
            assert together == [set(batch) for batch in alone]


def test_there_are_as_many_batches_as_of_equal_size_and_as_len_says() -> None:
    for world in (1, 2, 3):
        for rank, part in enumerate(shares(world)):
            sampler = LengthBatches(lengths(), 16, rank, world, shuffle=True, seed=0)
            assert len(part) == len(sampler) == -(-1003 // 16)


def test_batches_cost_alike_and_hold_little_padding() -> None:
    sizes = lengths()
    (alone,) = shares(1)
    costs = torch.tensor([len(batch) * int(sizes[batch].max()) for batch in alone])
    assert costs.max() < 1.3 * costs.float().median()
    assert sizes.sum() > 0.9 * costs.sum()
    assert max(len(b) for b in alone) > 5 * min(len(b) for b in alone)
    sampler = LengthBatches(sizes, 16, 0, 1, shuffle=True, seed=0)
    assert sampler.positions is not None
    assert costs.max() <= sampler.positions < 1.15 * costs.max()


def test_each_epoch_mixes_batches_and_their_order_anew() -> None:
    (first,), (second,), (again,) = shares(1), shares(1, epoch=1), shares(1)
    assert first == again
    assert first != second
    assert {frozenset(b) for b in first} != {frozenset(b) for b in second}
    assert [len(b) for b in first] != [len(b) for b in second]
    assert sorted(len(b) for b in first) == sorted(len(b) for b in second)


def test_an_epoch_resumes_at_any_batch() -> None:
    (alone,) = shares(1, epoch=2)
    sampler = LengthBatches(lengths(), 16, 0, 1, shuffle=True, seed=0)
    sampler.set_epoch(2)
    sampler.start = 17
    assert list(sampler) == alone[17:]


@pytest.mark.parametrize(("world", "multiple"), [(1, 1), (2, 1), (1, 4), (3, 4)])
def test_every_sample_of_an_epoch_counts_alike(world: int, multiple: int) -> None:
    """Averaged over processes and batches, as gradients are, the losses are the mean over all samples."""
    samplers = [
        LengthBatches(lengths(), 16, rank, world, shuffle=True, seed=0, multiple=multiple)
        for rank in range(world)
    ]
    values = torch.rand(1003, dtype=torch.float64)
    parts = [list(sampler) for sampler in samplers]
    assert len(parts[0]) % multiple == 0
    averaged = [
        torch.stack([s.share(len(batch)) * values[batch].mean() for batch in part]).mean()
        for s, part in zip(samplers, parts, strict=True)
    ]
    assert torch.allclose(torch.stack(averaged).mean(), values.mean())


def test_more_processes_than_long_samples_make_larger_batches() -> None:
    """Each process gets a part of each training batch, though few long samples would fill one."""
    sizes = torch.cat([torch.full((8,), 400), torch.ones(800, dtype=torch.long)])
    for rank in range(8):
        sampler = LengthBatches(sizes, 8, rank, 8, shuffle=True, seed=0)
        assert all(list(sampler))
        assert len(list(sampler)) == len(sampler)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_evaluation_of_fewer_samples_than_processes_leaves_some_without(count: int) -> None:
    parts = [
        list(LengthBatches(torch.arange(1, count + 1), 4, rank, 6, shuffle=False, seed=0))
        for rank in range(6)
    ]
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(count))


def test_fewer_samples_than_processes_cannot_train() -> None:
    with pytest.raises(ValueError, match="training split of 3 samples is too small for 4 proc"):
        LengthBatches(torch.ones(3), 4, 0, 4, shuffle=True, seed=0)


def test_equal_lengths_make_equal_batches() -> None:
    batches = list(LengthBatches(torch.full((96,), 50), 16, 0, 1, shuffle=True, seed=0))
    assert [len(batch) for batch in batches] == [16] * 6


SHAPES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 0, 1, 2, 2, 1, 0, 1, 2, 1, 0, 2, 1, 0, 0, 1])


def similar(world: int = 1, rank: int = 0, shuffle: bool = True) -> SimilarBatches:
    return SimilarBatches(SHAPES, 4, rank, world, shuffle=shuffle, seed=3)


def test_few_batches_hold_samples_that_differ() -> None:
    for epoch in range(5):
        found = list(similar().batches(epoch))
        assert len(found) == 5
        assert len({i for batch in found for i in batch}) == 20
        assert sum(len(set(SHAPES[batch].tolist())) > 1 for batch in found) <= 2


def test_batches_of_similar_samples_come_in_another_order_each_epoch() -> None:
    orders = [[int(SHAPES[batch[0]]) for batch in similar().batches(e)] for e in range(5)]
    assert any(order != sorted(order) for order in orders)
    assert len({tuple(map(tuple, similar().batches(e))) for e in range(5)}) == 5
    assert list(similar().batches(2)) == list(similar().batches(2))


def test_every_sample_is_left_out_of_some_epoch() -> None:
    seen = [{i for batch in similar().batches(e) for i in batch} for e in range(200)]
    assert all(any(i not in epoch for epoch in seen) for i in range(len(SHAPES)))


def test_processes_share_each_batch_of_similar_samples() -> None:
    one = list(similar().batches(1))
    two = [list(similar(2, rank).batches(1)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


@pytest.mark.parametrize("world", [1, 2])
def test_evaluation_sees_similar_samples_together_and_each_once(world: int) -> None:
    found = [
        batch for rank in range(world) for batch in similar(world, rank, shuffle=False).batches(0)
    ]
    assert sorted(i for batch in found for i in batch) == list(range(len(SHAPES)))
    assert sum(len(set(SHAPES[batch].tolist())) > 1 for batch in found) <= 2 * world


def test_a_stamp_says_the_epoch() -> None:
    inner = similar()
    stamped = Stamped(inner, len(SHAPES))
    assert len(stamped) == len(inner)
    assert [[i % 23 for i in batch] for batch in stamped.batches(7)] == list(inner.batches(7))
    assert {i // 23 for batch in stamped.batches(7) for i in batch} == {7}
