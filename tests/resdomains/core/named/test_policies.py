"""Published shapes and sizes of the networks for control."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from resdomains.core import Add, BatchNorm, BranchOnly, Conv, impala

# Espeholt et al. 2018, figure 3: three sections of one 3x3 convolution, a max pool of 3 with stride 2
# and two residual blocks of two 3x3 convolutions, with 16, 32 and 32 channels, all with biases.
PARAMETERS = {
    # in * out * 9 + out, by section: entry, then four within.
    1: (4 * 16 * 9 + 16) + 4 * (16 * 16 * 9 + 16)
    + (16 * 32 * 9 + 32) + 4 * (32 * 32 * 9 + 32)
    + 5 * (32 * 32 * 9 + 32),
    2: (4 * 32 * 9 + 32) + 4 * (32 * 32 * 9 + 32)
    + (32 * 64 * 9 + 64) + 4 * (64 * 64 * 9 + 64)
    + 5 * (64 * 64 * 9 + 64),
    4: (4 * 64 * 9 + 64) + 4 * (64 * 64 * 9 + 64)
    + (64 * 128 * 9 + 128) + 4 * (128 * 128 * 9 + 128)
    + 5 * (128 * 128 * 9 + 128),
}  # fmt: skip


@pytest.mark.parametrize("width", PARAMETERS)
def test_impala_has_the_papers_shapes_and_size(width: int) -> None:
    network = impala(width_multiplier=width).eval()
    with torch.no_grad():
        maps = network(torch.randn(2, 4, 84, 84)).maps
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16 * width, 42, 42),
        (32 * width, 21, 21),
        (32 * width, 11, 11),
    ]
    assert tuple(m.shape[1] for m in maps) == network.out_channels
    assert network.stride == (2, 4, 8)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[width]
    # The paper counts 15 convolutions; a head makes 16.
    assert sum(isinstance(m, Conv) for m in network.modules()) == 15
    assert network.depth == 16


def by_hand(x: Tensor, convolutions: list[Conv]) -> Tensor:
    """The paper's figure 3, with torch's functions."""
    convs = iter(convolutions)

    def conv(x: Tensor) -> Tensor:
        layer = next(convs)
        return F.conv2d(x, layer.weight, layer.bias, padding=1)

    for _ in range(3):
        x = F.max_pool2d(conv(x), 3, 2, padding=1)
        for _ in range(2):
            x = x + conv(F.relu(conv(F.relu(x))))
    return F.relu(x)


def test_impala_is_the_papers_function() -> None:
    torch.manual_seed(0)
    network = impala(in_channels=3, merge=lambda site: Add(site, zero_init=False))
    x = torch.randn(2, 3, 20, 20)
    convolutions = [m for m in network.modules() if isinstance(m, Conv)]
    got, expected = network(x).maps[-1], by_hand(x, convolutions)
    torch.testing.assert_close(got, expected)
    parameters = list(network.parameters())
    for a, b in zip(
        torch.autograd.grad(got.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_impala_takes_other_parts() -> None:
    plain = impala(merge=BranchOnly)
    assert sum(p.numel() for p in plain.parameters()) == PARAMETERS[1]
    normed = impala(norm=BatchNorm)
    assert sum(isinstance(m, BatchNorm) for m in normed.modules()) == 15
    normed(torch.randn(2, 4, 20, 20)).maps[-1].sum().backward()
    assert not [n for n, p in normed.named_parameters() if p.grad is None]


def test_a_width_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="width_multiplier: expected at least 1, got 0"):
        impala(width_multiplier=0)
