"""Every merge against arithmetic written out here."""

import pytest
import torch
from torch import nn

from resdomains.core import (
    Add,
    Bare,
    BatchNorm,
    BranchOnly,
    Chain,
    DeepNorm,
    DropPath,
    Highway,
    HyperConnection,
    LayerScale,
    Merge,
    NormActivated,
    Residual,
    ReZero,
    ShortcutOnly,
    Site,
    plain18,
    resnet18,
    resnet20,
)
from resdomains.core.convolution import Conv

S = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
B = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(1))
SITE = Site(6, 1, index=3, depth=16)
ALL = [Add, BranchOnly, ShortcutOnly, Highway, ReZero, LayerScale, DropPath, DeepNorm]


def test_add() -> None:
    assert torch.equal(Add(SITE)(S, B), S + B)


def test_branch_only_and_shortcut_only() -> None:
    assert torch.equal(BranchOnly(SITE)(S, B), B)
    assert torch.equal(ShortcutOnly(SITE)(S, B), S)


@pytest.mark.parametrize("dim", [1, -1])
def test_highway(dim: int) -> None:
    merge = Highway(Site(6, dim), bias=-1.5)
    s, b = (S, B) if dim == 1 else (S.movedim(1, -1), B.movedim(1, -1))
    gate = merge.gate
    assert isinstance(gate, nn.Conv2d | nn.Linear)
    assert gate.bias is not None
    assert torch.equal(gate.bias, torch.full((6,), -1.5))
    weight = gate.weight.detach().view(6, 6).double().numpy()
    last = s.movedim(dim, -1).double().numpy()
    t = torch.from_numpy(last @ weight.T - 1.5).sigmoid().movedim(-1, dim)
    torch.testing.assert_close(merge(s, b).double(), (1 - t) * s + t * b, rtol=1e-5, atol=1e-5)


def test_rezero() -> None:
    merge = ReZero(SITE)
    assert torch.equal(merge(S, B), S)
    nn.init.constant_(merge.scale, 0.5)
    assert torch.equal(merge(S, B), S + 0.5 * B)


@pytest.mark.parametrize("dim", [1, -1])
def test_layer_scale(dim: int) -> None:
    merge = LayerScale(Site(6, dim), init=0.1)
    with torch.no_grad():
        merge.scale.copy_(torch.arange(6.0).view_as(merge.scale))
    s, b = (S, B) if dim == 1 else (S.movedim(1, -1), B.movedim(1, -1))
    got = merge(s, b).movedim(dim, 0)
    for channel in range(6):
        torch.testing.assert_close(got[channel], S[:, channel] + channel * B[:, channel])
    assert merge.scale.numel() == 6


def test_deep_norm() -> None:
    # 16 sums are the paper's N = 8 encoder layers.
    merge = DeepNorm(SITE)
    torch.testing.assert_close(merge(S, B), (2 * 8) ** 0.25 * S + B)
    layer = nn.Linear(4, 4)
    before = layer.weight.clone()
    Residual(nn.Sequential(layer, nn.ReLU()), Bare(), merge, nn.LayerNorm(4))
    torch.testing.assert_close(layer.weight, before * (8 * 8) ** -0.25)


def test_deep_norm_without_norm_after_the_sum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"DeepNorm needs a norm after the sum.*after=Activated"):
        resnet20(merge=DeepNorm)
    with pytest.raises(ValueError, match="DeepNorm needs a norm after the sum"):
        resnet20(merge=lambda site: DropPath(site, merge=DeepNorm))
    resnet20(merge=DeepNorm, after=NormActivated)


@pytest.mark.parametrize("inner", [Add, Highway, lambda s: LayerScale(s, 0.5)])
def test_drop_path_keeps_the_expected_result(inner: type[Merge]) -> None:
    torch.manual_seed(0)
    merge = DropPath(Site(6), p=0.3, merge=inner, linear=False)
    n = 20000
    s, b = S[:1, :, :1, :1].expand(n, -1, -1, -1), B[:1, :, :1, :1].expand(n, -1, -1, -1)
    state = merge.read(s)[2]
    got = merge(s, b, state)
    dropped = (got - merge.merge(s, 0 * b)).abs().flatten(1).amax(1) == 0
    assert abs(dropped.float().mean() - 0.3) < 0.015  # 4.6 standard deviations
    merge.eval()
    expected = merge(s, b, merge.read(s)[2])
    torch.testing.assert_close(got.mean(0), expected.mean(0), atol=0.04, rtol=0)


def test_drop_path_grows_linearly_with_depth() -> None:
    net = resnet20(merge=lambda site: DropPath(site, p=0.45))
    rates = [block.merge.p for _, block in net.blocks()]
    assert rates == pytest.approx([0.05 * number for number in range(1, 10)])
    assert DropPath(SITE, p=0.45, linear=False).p == 0.45


def test_drop_path_over_branch_only_is_refused() -> None:
    with pytest.raises(ValueError, match=r"DropPath\(BranchOnly\) would leave nothing"):
        DropPath(SITE, merge=BranchOnly)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_drop_path_checks_its_chance(p: float) -> None:
    with pytest.raises(ValueError, match=r"p: expected a chance in \[0, 1\)"):
        DropPath(SITE, p=p)


@pytest.mark.parametrize("merge", [Add, ReZero, LayerScale, ShortcutOnly, DropPath])
def test_invertible_merges_give_the_shortcut_back(merge: type[Merge]) -> None:
    m = merge(SITE)
    for parameter in m.parameters():
        nn.init.uniform_(parameter, 0.1, 1)
    assert m.invertible
    state = m.read(S)[2]
    torch.testing.assert_close(m.invert(m(S, B, state), B, state), S)


@pytest.mark.parametrize("merge", [BranchOnly, Highway, DeepNorm, HyperConnection])
def test_other_merges_refuse_to_invert(merge: type[Merge]) -> None:
    m = merge(SITE)
    assert not m.invertible
    assert merge is BranchOnly or not DropPath(SITE, merge=merge).invertible
    with pytest.raises(TypeError, match=f"merge={merge.__name__} cannot be inverted"):
        m.invert(S, B)


@pytest.mark.parametrize("merge", ALL)
def test_a_block_without_its_branch_is_its_shortcut(merge: type[Merge]) -> None:
    lesioned = merge(SITE).without_branch()
    assert not lesioned.reads_branch
    u, _, state = lesioned.read(S)
    assert torch.equal(lesioned(u, B, state), S)


@pytest.mark.parametrize("merge", ALL)
def test_every_merge_trains_in_every_block(merge: type[Merge]) -> None:
    torch.manual_seed(0)
    net = resnet20(merge=merge, after=NormActivated if merge is DeepNorm else None)
    assert {type(block.merge) for _, block in net.blocks()} == {merge}
    out = net(torch.randn(2, 3, 16, 16)).maps[-1]
    out.square().mean().backward()
    gradient = net.get_parameter("stem.conv.weight").grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert (gradient.abs().sum() > 0) or merge is ShortcutOnly


def test_layer_scale_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="ReZero starts at zero"):
        LayerScale(SITE, init=0.0)


def test_plain_network_has_no_shortcut_parameters() -> None:
    # Its twin's projections would get no gradients here, which DistributedDataParallel refuses.
    assert [n for n, _ in resnet18().named_parameters() if ".shortcut." in n]
    assert not [n for n, _ in plain18().named_parameters() if ".shortcut." in n]


def test_add_overwrites_a_branch_that_nobody_reads_again_and_never_the_shortcut() -> None:
    s, b = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    kept, expected = s.clone(), s + b
    merge = Add(Site(4))
    merge.initialise(Chain(conv=Conv(4, 4, 3), norm=BatchNorm(4)))
    given = b.clone()
    assert merge(s, given) is given
    assert torch.equal(given, expected)
    assert torch.equal(merge(s, b.double()), s + b.double())
    assert torch.equal(s, kept)


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Sigmoid(), nn.Identity()])
def test_add_leaves_a_branch_whose_output_is_read_again(last: nn.Module) -> None:
    x = torch.randn(2, 4, 3, 3, requires_grad=True)
    block = Residual(Chain(last=last), Bare(), Add(SITE))
    y = block(x * 1)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    z = x.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad((z + last(z)).sum(), z)
    assert torch.equal(y, x + last(x))
    assert torch.allclose(gradient, expected)
