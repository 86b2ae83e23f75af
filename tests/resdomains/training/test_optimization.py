from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from resdomains.core import (
    HyperConnection,
    PatchStem,
    PooledHead,
    PreNorm,
    Recompute,
    Reverse,
    Reversible,
    bert_tiny,
    resnet20,
    vdcnn9,
    vit_tiny,
)
from resdomains.training.optimization import (
    Constant,
    Optimization,
    Steps,
    WarmupCosine,
    WarmupLinear,
)
from tests.resdomains.training.toy import Clouds, Side


def test_schedules_at_known_points() -> None:
    cosine = WarmupCosine(warmup=0.2)
    assert cosine.factor(0.1) == pytest.approx(0.5)
    assert cosine.factor(0.2) == pytest.approx(1.0)
    assert cosine.factor(0.6) == pytest.approx(0.5)
    assert cosine.factor(1.0) == pytest.approx(0.0)
    assert WarmupLinear(0.0, final=0.2).factor(0.5) == pytest.approx(0.6)
    steps = Steps((0.5, 0.75))
    assert [round(steps.factor(p), 6) for p in (0.49, 0.5, 0.75, 1.0)] == [1.0, 0.1, 0.01, 0.01]
    assert Constant().factor(0.3) == 1.0


@pytest.mark.parametrize("bad", [-0.1, 1.0, 500])
def test_warmup_is_a_fraction(bad: float) -> None:
    with pytest.raises(
        ValueError, match=r"warmup is a fraction of training and must lie in \[0, 1\), got"
    ):
        WarmupCosine(bad)


def test_milestones_are_rising_fractions() -> None:
    with pytest.raises(ValueError, match=r"milestones are rising fractions .* got \(30.0, 60.0\)"):
        Steps((30.0, 60.0))


@pytest.mark.parametrize(
    ("argument", "value"), [("lr", 0.0), ("layer_decay", 1.5), ("layer_decay", 0.0)]
)
def test_bad_numbers_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{argument} must"):
        Optimization(**{argument: value})  # type: ignore[arg-type]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                "stem": nn.Linear(2, 2),
                "blocks": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)),
                "norm": nn.LayerNorm(2),
            }
        )
        self.head = nn.Linear(2, 2)

    def blocks(self) -> list[tuple[str, nn.Module]]:
        blocks = self.backbone["blocks"]
        assert isinstance(blocks, nn.Sequential)
        return [(f"blocks.{i}", blocks[i]) for i in (0, 2)]  # what lies between them is none


def rates(net: Net, optimization: Optimization) -> dict[str, tuple[float, float]]:
    optimizer = optimization.build(net, "backbone", iter(net.blocks()))
    of = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    return {name: of[id(p)] for name, p in net.named_parameters()}


def test_norms_and_biases_are_not_decayed() -> None:
    found = rates(Net(), Optimization(lr=1.0, optimizer=torch.optim.AdamW))
    for name, (lr, decay) in found.items():
        assert lr == 1.0
        assert (decay == 0) == (name.endswith("bias") or "norm" in name)


def test_layers_learn_slower_towards_the_input() -> None:
    found = rates(Net(), Optimization(lr=1.0, layer_decay=0.5))
    assert found["head.weight"][0] == 1.0
    assert found["backbone.norm.weight"][0] == 0.5
    assert found["backbone.blocks.2.weight"][0] == 0.5
    assert found["backbone.blocks.1.weight"][0] == 0.25
    assert found["backbone.blocks.0.weight"][0] == 0.25
    assert found["backbone.stem.weight"][0] == 0.125


def test_frozen_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter is trainable"):
        Optimization().build(Net().requires_grad_(False), "backbone", iter(()))


def test_schedule_reaches_peak_and_end() -> None:
    optimization = Optimization(lr=2.0, schedule=WarmupCosine(warmup=0.5))
    optimizer = optimization.build(Net(), "backbone", iter(()))
    scheduler = optimization.scheduler(optimizer, 10)
    seen = []
    for _ in range(10):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen[0] == pytest.approx(0.4)
    assert max(seen) == seen[4] == pytest.approx(2.0)
    assert seen[-1] == pytest.approx(0.0)


class Blocks(nn.Module):
    """Points to logits through blocks that draw numbers and keep statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.layers = nn.Sequential(*[self.block() for _ in range(3)])
        self.out = nn.Linear(8, 2)

    @staticmethod
    def block() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))

    def blocks(self) -> Iterator[tuple[str, nn.Module]]:
        return ((f"layers.{i}", layer) for i, layer in enumerate(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        logits: Tensor = self.out(x)
        return logits


class Modes(Callback):
    """Remembers the mode of each module in every training batch."""

    def __init__(self) -> None:
        self.seen: dict[str, set[bool]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        for name, module in pl_module.named_modules():
            self.seen.setdefault(name, set()).add(module.training)


def fitted(
    frozen: int | None, folder: Path, epochs: int, ckpt_path: Path | None = None
) -> tuple[Side, dict[str, Tensor], Modes, Trainer]:
    """A task after training, its state before, and the modes it was in."""
    torch.manual_seed(0)
    data = Clouds()
    data.prepare()
    task = Side(
        backbone=Blocks(),
        spec=data.spec,
        optimization=Optimization(lr=0.1, schedule=Constant(), layer_decay=0.9, frozen=frozen),
    )
    before = {key: value.clone() for key, value in task.state_dict().items()}
    modes = Modes()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[modes],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=2,
        default_root_dir=folder,
    )
    trainer.fit(task, datamodule=data, ckpt_path=ckpt_path)
    return task, before, modes, trainer


@pytest.mark.parametrize("frozen", [None, 0, 2])
def test_frozen_blocks_keep_weights_and_statistics(frozen: int | None, tmp_path: Path) -> None:
    task, before, modes, trainer = fitted(frozen, tmp_path, 2)
    levels = {"stem": 0, "layers.0": 1, "layers.1": 2, "layers.2": 3, "out": 3}
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    parameters = dict(task.named_parameters())
    for key, value in task.state_dict().items():
        level = next(n for part, n in levels.items() if key.startswith(f"backbone.{part}."))
        keeps = frozen is not None and level <= frozen
        assert torch.equal(value, before[key]) == keeps, key
        if key in parameters:
            assert (id(parameters[key]) in trained) == (not keeps)
            assert parameters[key].requires_grad == (not keeps)
    for name, seen in modes.seen.items():
        for part, level in levels.items():
            if f"{name}.".startswith(f"backbone.{part}."):
                assert seen == {frozen is None or level > frozen}, name
    # What holds something that learns is in training mode itself.
    assert modes.seen["backbone"] == modes.seen["backbone.layers"] == {True}


def test_a_frozen_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    _, before, _, trainer = fitted(1, tmp_path, 1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    task, _, modes, again = fitted(1, tmp_path, 2, tmp_path / "one.ckpt")
    assert again.global_step == 2 * trainer.global_step
    assert modes.seen["backbone.layers.0"] == {False}
    for key, value in task.state_dict().items():
        if key.startswith(("backbone.stem.", "backbone.layers.0.")):
            assert torch.equal(value, before[key])
    states = again.optimizers[0].state
    assert len(states) == sum(p.requires_grad for p in task.parameters())
    assert {int(state["step"]) for state in states.values()} == {again.global_step}


@pytest.mark.parametrize(
    "build",
    [
        resnet20,
        partial(vit_tiny, in_channels=3, stem=partial(PatchStem, size=32), dropout=0.2),
        partial(vdcnn9, in_channels=10),
        partial(bert_tiny, in_channels=10, memory=Recompute()),
        partial(
            bert_tiny,
            in_channels=10,
            norm_position=PreNorm(),
            coupling=Reversible(),
            memory=Reverse(),
        ),
        partial(
            bert_tiny,
            in_channels=10,
            norm_position=PreNorm(),
            merge=partial(HyperConnection, streams=2),
        ),
    ],
    ids=["resnet", "vit", "vdcnn", "recompute", "reverse", "streams"],
)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_network_can_be_frozen_from_below(build: Any, share: float) -> None:
    """Above it learns as before; below no gradient is computed and nothing is drawn or counted."""
    torch.manual_seed(0)
    task = nn.Module()
    task.backbone = network = build()
    channels = network.out_channels[-1]
    task.head = head = PooledHead(channels, 3)
    blocks = list(network.blocks())
    frozen = round(share * len(blocks))
    optimization = Optimization(frozen=frozen)
    optimization.freeze(task, "backbone", iter(blocks))
    task.train()
    optimization.hold(task, "backbone", iter(blocks))
    images = network.in_channels == 3
    x = torch.randn(2, 3, 32, 32) if images else torch.randint(0, 10, (2, 24))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    asks = []
    for _, block in blocks[:frozen]:
        block.register_forward_hook(lambda *a: asks.append(a[2].requires_grad))
    head(network(x)).sum().backward()
    assert not any(asks)
    optimizer = optimization.build(task, "backbone", iter(blocks))
    learning = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = [name for name, _ in blocks]
    for name, parameter in network.named_parameters():
        above = [i for i, b in enumerate(names, 1) if name.startswith(f"{b}.")]
        if above:
            assert (parameter.grad is not None) == (above[0] > frozen), name
            assert (id(parameter) in learning) == (above[0] > frozen), name
    assert head.linear.weight.grad is not None
    assert not next(network.parameters()).requires_grad
    for name, buffer in network.named_buffers():
        above = [i for i, b in enumerate(names, 1) if name.startswith(f"{b}.")]
        if above:
            assert torch.equal(buffer, before[name]) == (above[0] <= frozen), name


def test_the_whole_backbone_can_be_frozen_and_no_more() -> None:
    net = Net()
    optimization = Optimization(frozen=2)
    optimization.freeze(net, "backbone", iter(net.blocks()))
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    with pytest.raises(ValueError, match=r"frozen must be at most 2, the number of .*, got 3"):
        Optimization(frozen=3).freeze(net, "backbone", iter(net.blocks()))
    with pytest.raises(ValueError, match=r"frozen must be at least 0 .*, got -1"):
        Optimization(frozen=-1)
    with pytest.raises(ValueError, match=r"frozen must be at most 3, the number"):
        Side(
            backbone=Blocks(),
            spec={"features": 4, "classes": ["left", "right"]},
            optimization=Optimization(frozen=4),
        )


def test_evaluation_mode_is_not_lost_by_training_again() -> None:
    data = Clouds()
    data.prepare()
    task = Side(backbone=Blocks(), spec=data.spec, optimization=Optimization(frozen=1))
    backbone = task.backbone
    assert isinstance(backbone, Blocks)
    assert not task.eval().training
    assert task.train().training
    assert [layer.training for layer in backbone.layers] == [False, True, True]
