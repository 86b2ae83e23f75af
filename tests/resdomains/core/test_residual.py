"""Laws of the block."""

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    Add,
    Bare,
    Basic,
    BatchNorm,
    Bottleneck,
    NoNorm,
    Place,
    PreActivationBasic,
    PreActivationBottleneck,
    Projection,
    ReLU,
    Residual,
    Separable,
    ShortcutOnly,
    Site,
    Valid,
    resnet20,
)

BRANCHES = [Basic, Bottleneck, PreActivationBasic, PreActivationBottleneck, Separable]


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def place(dims: int = 2, stride: int = 1, out_channels: int = 8) -> Place:
    return Place(8, out_channels, BatchNorm, ReLU, stride=stride, dims=dims)


def test_zero_branch_returns_shortcut() -> None:
    x = torch.randn(2, 8, 5, 5)
    shortcut = nn.Conv2d(8, 8, 1)
    block = Residual(Zero(), shortcut, Add(Site(8)))
    assert torch.equal(block(x), shortcut(x))


@pytest.mark.parametrize("branch", BRANCHES)
def test_blocks_start_as_their_shortcut(branch: type[Basic]) -> None:
    x = torch.randn(2, 8, 5, 5)
    block = Residual(branch(place()), Bare(), Add(Site(8)))
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("stride", [1, 2])
def test_one_dimensional_branch_is_two_dimensional_at_height_one(
    branch: type[Basic], stride: int
) -> None:
    line, plane = branch(place(1, stride)), branch(place(2, stride))
    state = {
        # Beyond height one a plane's kernel meets zeros: only its middle row counts.
        key: value[:, :, value.shape[2] // 2][:, :, None] if value.dim() == 4 else value
        for key, value in plane.state_dict().items()
    }
    line.load_state_dict(state)
    x = torch.randn(3, 8, 1, 11)
    torch.testing.assert_close(line(x), plane(x))


@pytest.mark.parametrize("branch", BRANCHES)
def test_gradients_reach_both_paths(branch: type[Basic]) -> None:
    where = place(stride=2, out_channels=16)
    block = Residual(branch(where), Projection(where), Add(Site(16), zero_init=False))
    block(torch.randn(2, 8, 6, 6)).square().mean().backward()
    for path in (block.branch, block.shortcut):
        gradients = [p.grad for p in path.parameters()]
        assert gradients
        assert all(g is not None and g.abs().sum() > 0 for g in gradients[:-1])


def test_state_reloads_exactly() -> None:
    torch.manual_seed(0)
    first, second = resnet20(), resnet20()
    x = torch.randn(4, 3, 16, 16)
    first(x)  # moves the statistics
    second.load_state_dict(first.state_dict())
    for a, b in zip(first.eval()(x).maps, second.eval()(x).maps, strict=True):
        assert torch.equal(a, b)


def test_lesion_swaps_the_merge_and_leaves_its_input_alone() -> None:
    block = Residual(nn.Conv2d(4, 4, 1), Bare(), Add(Site(4)), ReLU())
    x = torch.randn(2, 4, 3, 3)
    before = x.clone()
    block.merge = ShortcutOnly(Site(4))
    assert torch.equal(block(x), before.relu())
    assert torch.equal(x, before)


def test_leading_activation_leaves_the_shortcut_alone_without_norm() -> None:
    net = resnet20(block=PreActivationBasic, norm=NoNorm)
    block = list(net.blocks())[1][1]
    x = torch.randn(2, 16, 4, 4)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


def test_plain_modules_that_mix_positions_refuse_lengths() -> None:
    block = Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), Bare(), Add(Site(4)))
    x = torch.randn(1, 4, 1, 6)
    block(x)
    with pytest.raises(TypeError, match="Conv2d reads neighbouring positions"):
        block(x, Valid.of(torch.tensor([3]), 6))
