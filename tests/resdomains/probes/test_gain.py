import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    Add,
    HyperConnection,
    LayerScale,
    Nothing,
    Plain,
    PreActivationBasic,
    Recompute,
    ResNet1d,
    ResNet2d,
    Reverse,
    Reversible,
    ReZero,
    Stack,
    Store,
)
from resdomains.probes import CompositeGain, Watch, blocks_of, composite_gains
from tests.resdomains.probes.toy import Blocks, rows, side, trainer


def gains(network: nn.Module, *inputs: Any, draws: int = 1) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    squares, drawn = composite_gains(network, lambda: network(*inputs), draws, generator)
    found: list[float] = (squares / drawn).sqrt().tolist()
    return found


def test_gains_are_the_size_of_the_jacobian() -> None:
    torch.manual_seed(0)
    network = Blocks(3, branch=lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    x = torch.randn(1, 4)

    def rest(y: Tensor, begin: int) -> Tensor:
        for layer in list(network.layers)[begin:]:
            y = layer(y)
        out: Tensor = network.last(y)
        return out[0]

    expected = []
    for index in range(3):
        y = x
        for layer in list(network.layers)[: index + 1]:
            y = layer(y).detach()
        y.requires_grad_()
        rows_of = [
            torch.autograd.grad(value, y)[0] for value in (rest(y, index + 1)[i] for i in range(2))
        ]
        expected.append(float(torch.cat(rows_of).norm()) / math.sqrt(2))
    assert gains(network, x, draws=2000) == pytest.approx(expected, rel=0.03)


def test_passes_without_gradients_are_none_of_it() -> None:
    torch.manual_seed(0)
    network = Blocks(2, branch=lambda: nn.Linear(4, 4))
    x = torch.randn(3, 4)

    def act_then_learn() -> None:
        with torch.no_grad():
            network(torch.randn(5, 4))
        network(x)

    found = composite_gains(network, act_then_learn, 1, torch.Generator().manual_seed(0))
    (expected, drawn) = composite_gains(
        network, lambda: network(x), 1, torch.Generator().manual_seed(0)
    )
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], drawn)


def test_blocks_that_pass_their_input_on_have_gain_one() -> None:
    network = Blocks(3, ReZero, last=nn.Identity())
    assert gains(network, torch.randn(5, 4)) == pytest.approx([1.0] * 3)


def test_doubling_blocks_double_the_gain() -> None:
    network = Blocks(3, partial(LayerScale, init=1.0), nn.Identity, last=nn.Identity())
    assert gains(network, torch.randn(5, 4)) == pytest.approx([4.0, 2.0, 1.0])


def test_streams_are_asked_about_a_change_that_they_share() -> None:
    class Streams(nn.Module):
        def __init__(self, merge: Any) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stack = Stack(Blocks(3, merge).layers, Plain())  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.stack(x)
            return y

    # At first a hyper-connection of equal streams computes what Add does.
    x = torch.randn(5, 4)
    plain = gains(Streams(partial(Add, zero_init=False)), x)
    assert gains(Streams(partial(HyperConnection, streams=2)), x) == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("memory", [Recompute, Reverse])
def test_memory_does_not_change_the_gain(memory: Any) -> None:
    found = []
    for kept in (Store(), memory()):
        torch.manual_seed(0)
        network = ResNet2d(
            (3, 2), (4, 8), block=PreActivationBasic, coupling=Reversible(), memory=kept,
            merge=partial(Add, zero_init=False), after=Nothing,
        ).eval()  # fmt: skip
        found.append(gains(network, torch.randn(2, 3, 8, 8)))
        assert network.stages[0].stack.memory is kept  # type: ignore[union-attr]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert len(set(found[0])) == 5


def test_padding_is_left_out() -> None:
    torch.manual_seed(0)
    network = ResNet1d((2,), (4,), in_channels=2, merge=partial(Add, zero_init=False)).eval()
    x = torch.randn(1, 2, 12)
    padded = torch.cat([x, torch.full((1, 2, 20), 7.0)], 2)
    alone = gains(network, x, draws=400)
    assert gains(network, padded, torch.tensor([12]), draws=400) == pytest.approx(alone, rel=0.05)


def test_a_frozen_network_is_measured_and_left_as_it_is() -> None:
    network = ResNet2d((2,), (4,)).requires_grad_(False)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert all(gain > 0 for gain in gains(network, torch.randn(2, 3, 8, 8)))
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_networks_that_cannot_be_measured_are_refused() -> None:
    network = Blocks(2)
    with torch.no_grad(), pytest.raises(TypeError, match=r"outside of torch\.no_grad"):
        gains(network, torch.randn(2, 4))

    class Named(Blocks):
        def forward(self, x: Tensor) -> Any:
            return {"maps": super().forward(x)}

    with pytest.raises(TypeError, match="Named returned a dict, expected Features or a tensor"):
        gains(Named(2), torch.randn(2, 4))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        CompositeGain(draws=0)
    with pytest.raises(ValueError, match="batches must be at least 1, got 0"):
        CompositeGain(batches=0)


def test_every_validation_of_a_fit_is_measured(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 2, partial(LayerScale, init=1.0), nn.Identity))
    trainer(tmp_path, [CompositeGain(draws=2)]).fit(task, data)
    table = rows(tmp_path / "probes" / "gain.csv")
    assert [(row["step"], row["block"]) for row in table] == [
        ("5", "1"), ("5", "2"), ("10", "1"), ("10", "2")
    ]  # fmt: skip
    assert (tmp_path / "probes" / "gain.png").is_file()


def test_its_passes_do_not_count_for_other_probes() -> None:
    network = Blocks(2)
    with Watch(blocks_of(network)) as watch:
        gains(network, torch.randn(5, 4))
    assert all(deviation != deviation for deviation in watch.take(lambda sums: sums)[1])
