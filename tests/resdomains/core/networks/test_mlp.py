from typing import Any

import pytest
import torch
from torch import nn

from resdomains.core import (
    BatchNorm,
    DeepNorm,
    FeedForward,
    PooledHead,
    PostNorm,
    ResidualMLP,
    SelfAttention,
    SwiGLU,
)


def test_simba_is_its_formula() -> None:
    """Linear, x + W2 relu(W1 layer_norm(x)), layer norm (Lee et al. 2024)."""
    torch.manual_seed(0)
    net = ResidualMLP(2, 8, 5)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    state = net.state_dict()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        y: torch.Tensor = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        return y

    def normal(x: torch.Tensor, name: str) -> torch.Tensor:
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
        y: torch.Tensor = x * state[f"{name}.weight"] + state[f"{name}.bias"]
        return y

    x = torch.randn(7, 5)
    y = linear(x, "stem")
    for block in ("stack.blocks.0.branch", "stack.blocks.1.branch"):
        inner = linear(normal(y, f"{block}.norm"), f"{block}.body.expand").clamp_min(0)
        assert inner.shape == (7, 32)
        y = y + linear(inner, f"{block}.body.project")
    torch.testing.assert_close(net(x).maps[0], normal(y, "end.norm"), rtol=1e-4, atol=1e-5)


def test_heads_read_vectors() -> None:
    net, head = ResidualMLP(1, 8, 5), PooledHead(8, 3)
    features = net(torch.randn(4, 5))
    assert torch.equal(head.embed(features), features.maps[0])
    assert head(features).shape == (4, 3)
    assert (net.out_channels, net.stride, net.depth, net.in_channels) == ((8,), (1,), 1, 5)
    assert [name for name, _ in net.blocks()] == ["stack.blocks.0"]


def test_other_branches_norms_and_merges_fit() -> None:
    net = ResidualMLP(
        2,
        8,
        5,
        layer=(FeedForward, SwiGLU),
        norm=BatchNorm,
        norm_position=PostNorm(),
        merge=DeepNorm,
    )
    net(torch.randn(16, 5)).maps[0].sin().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    assert [b.merge.scale for _, b in net.blocks()] == [4**0.25] * 4


def test_attention_over_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match="vectors have no positions, use FeedForward"):
        ResidualMLP(1, 8, 5, layer=(SelfAttention,))(torch.randn(4, 5))


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 5)])
def test_wrong_input_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: expected vectors \(B, C\) with 5 channels on axis 1"):
        ResidualMLP(1, 8, 5)(torch.randn(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, "layers: expected at least 1, got 0"),
        ({"layer": ()}, "layer: expected at least one factory"),
        ({"merge": DeepNorm}, "DeepNorm needs a norm after the sum"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualMLP(**arguments)


def test_1024_blocks_train() -> None:
    torch.manual_seed(0)
    net, head = ResidualMLP(1024, 16, 5), PooledHead(16, 3)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 1e-4)
    x, target = torch.randn(8, 5), torch.arange(8) % 3
    for _ in range(2):  # branches start at zero; the second step's gradients reach all of them
        loss = nn.functional.cross_entropy(head(net(x)), target)
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms = []
        for _, block in net.blocks():
            last = block.branch.get_parameter("body.project.weight").grad
            assert last is not None
            norms.append(last.norm())
        assert all(n.isfinite() for n in norms)
        ratio = float(torch.stack(norms[:20]).mean() / torch.stack(norms[-20:]).mean())
        assert 0.1 < ratio < 10
        optimizer.step()
    assert head(net(x)).isfinite().all()
