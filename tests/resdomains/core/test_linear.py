import pytest
import torch

from resdomains.core import Add, Chain, Dropout, Linear, Residual, Site
from resdomains.core.linear import dropout
from resdomains.core.parts import Bare


def test_weights_start_xavier_normal_map_by_map() -> None:
    torch.manual_seed(0)
    weight = Linear(300, 600, maps=2).weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (300 + 300)) ** 0.5, rel=0.02)
    whole = Linear(300, 600).weight.detach()
    assert float(whole.std()) == pytest.approx((2 / (300 + 600)) ** 0.5, rel=0.02)


def test_absent_bias() -> None:
    linear = Linear(3, 2, bias=False)
    assert list(linear.state_dict()) == ["weight"]
    assert linear.silence()
    assert not linear(torch.randn(4, 3)).any()


@pytest.mark.parametrize("training", [True, False])
def test_a_sum_may_overwrite_what_ends_in_dropout(training: bool) -> None:
    """Its gradients are those of a sum that overwrites nothing."""
    torch.manual_seed(0)
    branch = Chain(linear=Linear(6, 6), dropout=Dropout(0.5))
    block = Residual(branch, Bare(), Add(Site(6, -1), zero_init=False)).train(training)
    assert isinstance(block.merge, Add)
    assert block.merge.overwrites
    x = torch.randn(4, 6, requires_grad=True)
    found = []
    for overwrites in (True, False):
        block.merge.overwrites = overwrites
        torch.manual_seed(1)
        y = block(x)
        found.append((y, *torch.autograd.grad(y.sin().sum(), [x, *block.parameters()])))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.97])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(331, 1003, dtype=dtype, requires_grad=True)
    y = dropout(x, p)
    kept = y != 0
    count = x.numel()
    deviation = (p * (1 - p) / count) ** 0.5
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=4 * deviation)
    assert torch.unique(y[kept]).tolist() == pytest.approx([1 / (1 - p)], rel=1e-2)
    # Neighbours are drawn apart: along rows, along columns, and four by four, as bits are drawn.
    flat = kept.flatten().double() - (1 - p)
    for distance in (1, 2, 3, 4, 1003):
        covariance = float((flat[distance:] * flat[:-distance]).mean())
        assert abs(covariance) < 5 * p * (1 - p) / count**0.5
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, y.detach())


def test_dropout_follows_the_seed_and_its_ends() -> None:
    x = torch.randn(7, 5)
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(dropout(x, 0.5))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(dropout(x, 0.0), x)
    assert not dropout(x, 1.0).any()
