"""A thousand layers: residual networks take a step of training; plain ones show why they cannot."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core import (
    Add,
    BranchOnly,
    Conv,
    DoublyStochastic,
    HyperConnection,
    Merge,
    PooledHead,
    ResNet,
    ResNet1d,
    Reverse,
    Reversible,
    Site,
    plain1202,
    preact_plain1001,
    preact_resnet1001,
    resnet1202,
)

IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SIGNALS = torch.randn(8, 3, 32, generator=torch.Generator().manual_seed(0))
LIVE = partial(Add, zero_init=False)  # branches that start at zero would get no gradients


def signals(merge: Callable[[Site], Merge]) -> ResNet1d:
    return ResNet1d((166, 166, 167), (8, 16, 32), merge=merge)


def backward(network: ResNet, x: Tensor) -> tuple[nn.Module, Tensor]:
    """The model and its loss, after the backward pass."""
    model = nn.Sequential(network, PooledHead(network.out_channels[-1], 10)).to(x.dtype)
    loss = F.cross_entropy(model(x), torch.arange(len(x)))
    loss.backward()  # type: ignore[no-untyped-call]
    return model, loss


DEEP: dict[str, tuple[Callable[[], ResNet], Tensor, int]] = {
    "ResNet-1202": (resnet1202, IMAGES, 1202),
    "pre-activation ResNet-1001": (preact_resnet1001, IMAGES, 1001),
    "pre-activation ResNet-1001, reversed": (
        partial(preact_resnet1001, coupling=Reversible(), memory=Reverse()),
        IMAGES,
        1001,
    ),
    "pre-activation ResNet-1001, 4 streams": (
        partial(
            preact_resnet1001, merge=partial(HyperConnection, mixing=DoublyStochastic(iterations=3))
        ),
        IMAGES,
        1001,
    ),
    "ResNet1d of 1000 layers": (lambda: signals(Add), SIGNALS, 1000),
}


@pytest.mark.parametrize("name", DEEP)
def test_a_thousand_layers_take_a_step(name: str) -> None:
    torch.manual_seed(0)
    build, x, depth = DEEP[name]
    network = build()
    assert network.depth == depth
    model, loss = backward(network, x)
    assert loss.isfinite()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    torch.optim.SGD(model.parameters(), 1e-3).step()
    later = F.cross_entropy(model(x), torch.arange(len(x)))
    assert later < loss


def growth(network: ResNet, x: Tensor) -> float:
    """The gradient of the first convolution's weights over that of the last, in norm.

    In float64, whose range holds what plain networks make of it.
    """
    backward(network.double(), x.double())
    norms = [
        float(module.weight.grad.norm())
        for module in network.modules()
        if isinstance(module, Conv) and module.kernel_size != (1, 1)
        if module.weight.grad is not None
    ]
    return norms[0] / norms[-1]


@pytest.mark.parametrize(
    ("residual", "plain", "x"),
    [
        (lambda: resnet1202(merge=LIVE), plain1202, IMAGES),
        (lambda: preact_resnet1001(merge=LIVE), preact_plain1001, IMAGES),
        (lambda: signals(LIVE), lambda: signals(BranchOnly), SIGNALS),
    ],
)
def test_gradients_of_plain_twins_explode(
    residual: Callable[[], ResNet], plain: Callable[[], ResNet], x: Tensor
) -> None:
    """Measured: 4e2, 2e5, 7e4 in residual networks, 4e79, 2e76, 3e80 in their plain twins.

    Batch normalisation makes gradients grow by a factor a layer in plain networks (Yang et al.
    2019), here 1.17 to 1.2: float32 holds 38 decimal powers, so theirs are not finite.
    """
    torch.manual_seed(0)
    passed, exploded = growth(residual(), x), growth(plain(), x)
    assert 1 < passed < 1e6
    assert exploded > 1e60


def test_gradients_of_plain_twins_leave_float32() -> None:
    torch.manual_seed(0)
    network = plain1202()
    backward(network, IMAGES)
    gradient = network.get_parameter("stem.conv.weight").grad
    assert gradient is not None
    assert not gradient.isfinite().all()
