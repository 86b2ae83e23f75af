import pytest
import torch

from resdomains.core import Add, Chain, Dropout, Linear, Residual, Site
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
