import pytest
import torch
from torch import nn

from resdomains.training.optimization import (
    Constant,
    Optimization,
    Steps,
    WarmupCosine,
    WarmupLinear,
)


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
