"""Gradients that travel: all that count, and no more."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resdomains.training import Replicated
from resdomains.training.replication import NonZero
from tests.pairs import in_two_processes

WORDS, STEPS = 4001, 4
NUMBERS = WORDS * 24 + 24 * 5 + 5


class Words(nn.Module):
    """A table of which a batch looks up some rows, and a layer behind it whose size is no whole number of lines."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 24, dtype=dtype)
        self.layer = nn.Linear(24, 5, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.table(x)).tanh()
        return y


def gradients(rank: int, looked_up: int, dtype: torch.dtype, step: int, hook: bool) -> Any:
    """The averaged gradients of some steps, and how many numbers travelled in each."""
    torch.manual_seed(0)
    # A bucket of its own for the layer.
    network = DistributedDataParallel(
        Words(dtype), bucket_cap_mb=1e-4, gradient_as_bucket_view=True
    )
    if hook:
        network.register_comm_hook(NonZero(), NonZero.average)
    sizes: list[list[int]] = []
    usual = dist.all_reduce

    def counted(x: Tensor, *arguments: Any, **options: Any) -> Any:
        sizes[-1].append(x.numel())
        return usual(x, *arguments, **options)

    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counted)
        for at in range(STEPS):
            sizes.append([])
            words = torch.randperm(WORDS, generator=torch.Generator().manual_seed(2 * at + rank))
            network.zero_grad()
            out = network(words[:looked_up])
            weight = float("nan") if at == step else 1.0
            (weight * out.square().sum()).backward()
            found += [p.grad.clone() for p in network.parameters() if p.grad is not None]
    return {"gradients": found, "sizes": sizes}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_averages_are_those_of_whole_buckets_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    found = {}
    for hook in (True, False):
        folder = tmp_path / str(hook)
        folder.mkdir()
        found[hook] = in_two_processes(gradients, folder, 30, dtype, STEPS - 1, hook)
    for ours, usual in zip(found[True], found[False], strict=True):
        assert len(ours["gradients"]) == 3 * STEPS
        assert ours["gradients"][0].count_nonzero() > 0
        for one, two in zip(ours["gradients"], usual["gradients"], strict=True):
            assert torch.equal(one.nan_to_num(7), two.nan_to_num(7))
    assert found[True][0]["gradients"][-3].isnan().any()


def test_of_a_table_the_rows_travel_that_some_process_looked_up(tmp_path: Path) -> None:
    first, second = in_two_processes(gradients, tmp_path, 30, torch.float32, -1, True)
    assert first["sizes"] == second["sizes"]
    for sizes in first["sizes"]:
        # Which of the lines of 16 are not zero, then those of at most 60 rows and the layer.
        assert 50 * 24 < sum(sizes) - NUMBERS // 16 < 60 * 32 + 200


def test_a_table_that_is_looked_up_whole_travels_whole_and_is_not_searched_again(
    tmp_path: Path,
) -> None:
    (found, _) = in_two_processes(gradients, tmp_path, 2000, torch.float32, -1, True)
    assert sum(found["sizes"][0]) == NUMBERS + NUMBERS // 16
    # After the first step torch sorts gradients into other buckets.
    assert [sum(sizes) for sizes in found["sizes"][2:]] == [NUMBERS] * (STEPS - 2)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_a_bucket_holds_something(size: float) -> None:
    with pytest.raises(ValueError, match=f"bucket_cap_mb must be above 0 MiB, got {size}"):
        Replicated(bucket_cap_mb=size)
