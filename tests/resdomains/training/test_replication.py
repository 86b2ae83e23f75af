"""Gradients that travel: all that count, and no more."""

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from resdomains.core import Table
from resdomains.training import Replicated
from tests.pairs import in_two_processes

WORDS, OTHERS, WIDTH, STEPS = 12000, 14000, 24, 4
BATCH = 30


class Words(LightningModule):
    """Two large tables, of which a batch looks up some rows, a small one, and a layer behind them.

    Args:
        dtype: Of all weights.
        bad: In which step the loss is NaN.
    """

    def __init__(self, dtype: torch.dtype, bad: int) -> None:
        super().__init__()
        self.words = Table(WORDS, WIDTH, dtype=dtype)
        self.others = Table(OTHERS, WIDTH, dtype=dtype)
        self.frozen = Table(OTHERS, WIDTH, dtype=dtype).requires_grad_(False)
        self.few = Table(7, WIDTH, dtype=dtype)
        self.layer = nn.Linear(WIDTH, 5, dtype=dtype)
        self.bad = bad
        self.seen: list[list[Tensor]] = []
        self.kinds: list[bool] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Look words up, some of them twice."""
        y = self.words(batch % WORDS) + self.others(batch % OTHERS) + self.few(batch % 7)
        y = self.layer(y + self.words(batch // 2 % WORDS) + self.frozen(batch % OTHERS)).tanh()
        weight = float("nan") if batch_idx == self.bad else 1.0
        loss: Tensor = weight * y.square().sum()
        return loss

    def on_after_backward(self) -> None:
        """Note which gradients are sparse."""
        gradient = self.words.weight.grad
        self.kinds.append(gradient is not None and gradient.is_sparse)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the gradients, and look a word up outside of a step, as a probe does."""
        kept = [p.grad for p in self.parameters() if p.grad is not None]
        self.seen.append([gradient.clone() for gradient in kept])
        (alone,) = torch.autograd.grad(self.words(torch.tensor([3])).sum(), self.words.weight)
        assert not alone.is_sparse

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return one that takes dense gradients alone."""
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def train(
    rank: int, ours: bool, dtype: torch.dtype, accumulate: int, bad: int
) -> dict[str, list[Any]]:
    """Train some steps; return each one's gradients, which were sparse, and how many numbers travelled in each."""
    torch.manual_seed(0)
    task = Words(dtype, bad)
    sizes: list[int] = []
    usual = dist.all_reduce

    def counted(x: Tensor, *arguments: Any, **options: Any) -> Any:
        sizes.append(x.numel())
        return usual(x, *arguments, **options)

    drawn = torch.Generator().manual_seed(rank)
    batches = [torch.randint(WORDS + OTHERS, (BATCH,), generator=drawn) for _ in range(STEPS)]
    # As torchrun tells a process where it stands.
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({key: str(value) for key, value in places.items()})
    os.environ.update(GROUP_RANK="0", TORCHELASTIC_RUN_ID="here")
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=Replicated() if ours else DDPStrategy(),
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1e-3,
        logger=False,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", counted)
        trainer.fit(task, DataLoader(cast(Dataset[Tensor], batches), batch_size=None))
    assert not any(table.sparse for table in task.children() if isinstance(table, Table))
    return {
        "gradients": task.seen,
        "weights": list(task.parameters()),
        "sizes": sizes,
        "sparse": task.kinds,
    }


def compare(folder: Path, dtype: torch.dtype, accumulate: int, bad: int) -> dict[str, list[Any]]:
    """Train with our strategy and with Lightning's; return what ours found, once equal to the other."""
    found: dict[bool, dict[str, list[Any]]] = {}
    for ours in (True, False):
        place = folder / str(ours)
        place.mkdir()
        first, second = in_two_processes(train, place, ours, dtype, accumulate, bad)
        assert first["sizes"] == second["sizes"]
        for one, two in zip(first["weights"], second["weights"], strict=True):
            assert torch.equal(one.nan_to_num(7), two.nan_to_num(7))
        found[ours] = first
    ours_, usual = found[True], found[False]
    assert len(ours_["gradients"]) == STEPS // accumulate
    for step, wanted in zip(ours_["gradients"], usual["gradients"], strict=True):
        assert all(gradient.count_nonzero() for gradient in step)
        torch.testing.assert_close(step, wanted, equal_nan=True)
    torch.testing.assert_close(ours_["weights"], usual["weights"], equal_nan=True)
    assert usual["sparse"] == [False] * STEPS
    return ours_


def test_gradients_and_weights_are_those_of_whole_buckets(tmp_path: Path) -> None:
    found = compare(tmp_path, torch.float32, 1, STEPS - 1)
    assert not found["gradients"][-2][0].isnan().any()
    assert found["gradients"][-1][0].isnan().any()
    # Of large tables the rows travel that some process looked up: words' own, their halves', and others'.
    assert found["sparse"] == [True] * STEPS
    least = WORDS + OTHERS + 7 * WIDTH + WIDTH * 5 + 5
    assert STEPS * least < sum(found["sizes"]) < STEPS * (least + 2 * 3 * BATCH * WIDTH) + 200


def test_several_batches_make_a_step(tmp_path: Path) -> None:
    compare(tmp_path, torch.bfloat16, 2, -1)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_a_bucket_holds_something(size: float) -> None:
    with pytest.raises(ValueError, match=f"bucket_cap_mb must be above 0 MiB, got {size}"):
        Replicated(bucket_cap_mb=size)
