from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from resdomains.core import Recompute, ResNet2d
from resdomains.probes import GradientFlow, blocks_of, grad_ratio, gradient_norms
from tests.resdomains.probes.toy import Blocks, hooks, rows, side, trainer


def test_norms_are_those_of_the_derivative_by_hand() -> None:
    network = Blocks(2, branch=lambda: nn.Linear(4, 4, bias=False), last=nn.Identity())
    with torch.no_grad():
        for weight, value in zip(network.parameters(), (0.5, -0.25), strict=True):
            weight.copy_(value * torch.eye(4))
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    network(x).square().sum().div(2).backward()
    # y = (1 + a)(1 + b) x and L = |y|^2 / 2, so dL/dA = (1 + b) y x^T and dL/dB = y ((1 + a) x)^T.
    y, size = 1.5 * 0.75 * x, x.norm()
    expected = torch.stack([0.75 * y.norm() * size, y.norm() * 1.5 * size])
    torch.testing.assert_close(gradient_norms(blocks_of(network)), expected)


def test_frozen_blocks_have_no_norm_and_no_ratio() -> None:
    network = Blocks(2)
    network.layers[0].requires_grad_(False)
    network(torch.randn(3, 4)).sum().backward()
    norms = gradient_norms(blocks_of(network)).tolist()
    assert norms[0] != norms[0]
    assert norms[1] > 0
    assert grad_ratio(norms) is None
    assert grad_ratio([2.0, 1.0, 4.0]) == 0.5
    assert grad_ratio([2.0, 0.0]) is None


class _Collect(Callback):
    """Sums every batch's own gradient, as accumulation does, and stops at the first step."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        self.batches = [*getattr(self, "batches", []), batch]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        weights = list(pl_module.backbone.layers[0].parameters())  # type: ignore[union-attr, index]
        losses = [pl_module.step(b, "train").loss for b in self.batches]  # type: ignore[operator]
        gradients = torch.autograd.grad(sum(losses) / len(losses), weights)
        self.norm = float(torch.cat([g.flatten() for g in gradients]).norm())


def test_a_fit_records_what_the_optimizer_gets_before_clipping(tmp_path: Path) -> None:
    task, data = side()
    collect, flow = _Collect(), GradientFlow(every_n_steps=2)
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 1e-6, "max_steps": 1}
    trainer(tmp_path, [collect, flow], **options).fit(task, data)
    table = rows(tmp_path / "probes" / "gradients.csv")
    assert [row["step"] for row in table] == ["0", "0", "0"]
    assert [row["block"] for row in table] == ["1", "2", "3"]
    assert [row["name"] for row in table] == [f"layers.{i}" for i in range(3)]
    assert [float(row["relative_depth"]) for row in table] == pytest.approx([1 / 3, 2 / 3, 1])
    assert float(table[0]["gradient_norm"]) == pytest.approx(collect.norm, rel=1e-5)


def test_every_nth_step_is_recorded_and_drawn(tmp_path: Path) -> None:
    task, data = side()
    flow = GradientFlow(every_n_steps=4)
    trainer(tmp_path, [flow]).fit(task, data)
    assert [step for step, _ in flow.history] == [0, 4, 8]
    assert len(rows(tmp_path / "probes" / "gradients.csv")) == 9
    assert len(rows(tmp_path / "probes" / "profile.csv")) == 3
    assert (tmp_path / "probes" / "gradients.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_stays_as_it_was(tmp_path: Path) -> None:
    normalised = partial(nn.Sequential, nn.Linear(4, 4), nn.BatchNorm1d(4))
    task, data = side(partial(Blocks, 2, branch=normalised))
    task.eval()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    flow = GradientFlow(batches=3)
    drawn = []
    for callbacks in ([], [flow]):
        torch.manual_seed(0)
        trainer(tmp_path, callbacks).validate(task, data, verbose=False)
        drawn.append(torch.get_rng_state())
    assert torch.equal(*drawn)
    assert not task.training
    assert all(parameter.grad is None for parameter in task.parameters())
    for name, value in task.state_dict().items():
        assert torch.equal(value, before[name]), name
    norms = []
    task.train()
    for batch, _ in zip(data.train_dataloader(), range(3), strict=False):
        task.zero_grad()
        torch.autograd.backward(task.step(batch, "train").loss)
        norms.append(gradient_norms(blocks_of(task)))
    expected = torch.stack(norms).mean(0).tolist()
    assert flow.newest["gradient_norm"] == pytest.approx(expected, rel=1e-5)
    assert {row["step"] for row in rows(tmp_path / "probes" / "gradients.csv")} == {""}


def test_memory_does_not_change_the_norms() -> None:
    found = []
    for memory in (None, Recompute()):
        torch.manual_seed(0)
        network = ResNet2d((2,), (4,), memory=memory)
        network(torch.randn(2, 3, 8, 8)).maps[-1].square().mean().backward()
        found.append(gradient_norms(blocks_of(network)))
        assert hooks(network) == 0
    torch.testing.assert_close(*found)


def test_numbers_and_networks_that_cannot_be_probed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        GradientFlow(every_n_steps=0)
    with pytest.raises(ValueError, match="batches must be at least 1, got 0"):
        GradientFlow(batches=0)
    task, data = side(lambda: nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"resdomains\.core\.Residual, and Linear has none"):
        trainer(tmp_path, [GradientFlow()]).fit(task, data)
