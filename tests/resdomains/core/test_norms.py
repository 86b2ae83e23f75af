from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from resdomains.core import (
    BatchNorm,
    FrozenBatchNorm,
    GroupNorm,
    LayerNorm,
    Norm,
    ReLU,
    ResNet2d,
    RMSNorm,
    Valid,
)
from resdomains.core.masks import pack, packed


def test_batch_norm_is_torchs() -> None:
    ours, theirs = BatchNorm(5), nn.BatchNorm2d(5)
    for _ in range(3):
        x = torch.randn(4, 5, 3, 3)
        torch.testing.assert_close(ours(x), theirs(x))
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_frozen_batch_norm_is_batch_norm_in_eval_whose_state_it_takes() -> None:
    torch.manual_seed(0)
    trained = BatchNorm(5)
    for tensor in trained.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    frozen = FrozenBatchNorm(5)
    frozen.load_state_dict(trained.state_dict())
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    assert not list(frozen.requires_grad_().parameters())
    x = torch.randn(4, 5, 3, 3, requires_grad=True)
    torch.testing.assert_close(frozen.train()(x), trained.eval()(x))
    frozen(x).sum().backward()
    expected = trained.weight * torch.rsqrt(trained.running_var + trained.eps)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, expected.view(1, 5, 1, 1).expand_as(x))
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    trained.load_state_dict(frozen.state_dict())


def test_a_branch_that_ends_in_frozen_batch_norm_can_leave_zero() -> None:
    """The zero that a branch starts with must stand where something learns."""
    network = ResNet2d(layers=[2], channels=[4], norm=FrozenBatchNorm)
    assert all(part.weight.all() for part in network.modules() if isinstance(part, FrozenBatchNorm))
    network(torch.randn(2, 3, 8, 8)).maps[-1].square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_layer_norm_treats_positions_alone() -> None:
    x = torch.randn(2, 6, 3, 4)
    got = LayerNorm(6)(x)
    position = x[1, :, 2, 3]
    expected = (position - position.mean()) / (position.var(correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(got[1, :, 2, 3], expected)


def test_group_norm_is_torchs() -> None:
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(GroupNorm(8, 4)(x), nn.GroupNorm(2, 8)(x))


@pytest.mark.parametrize("size", [(9, 7), (1, 5), (1, 1)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_group_norm_of_bfloat16_has_the_gradients_of_float32(
    layout: torch.memory_format, size: tuple[int, int]
) -> None:
    """What comes back from downstream need not have the layout of the map."""
    torch.manual_seed(0)
    x = torch.randn(2, 32, *size).bfloat16().contiguous(memory_format=layout)
    downstream = torch.randn(2, 32, *size).bfloat16()
    exact, rounded = GroupNorm(32, 8), GroupNorm(32, 8)
    nn.init.normal_(exact.weight)
    rounded.load_state_dict(exact.state_dict())
    a, b = x.float().requires_grad_(), x.clone(memory_format=layout).requires_grad_()
    expected, got = exact(a), rounded(b)
    torch.autograd.backward([expected, got], [downstream.float(), downstream])
    assert got.dtype == torch.bfloat16
    assert got.is_contiguous(memory_format=layout)
    torch.testing.assert_close(got.float(), expected, rtol=1e-2, atol=1e-2)
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(b.grad, a.grad.bfloat16(), rtol=1e-2, atol=1e-3)
    for ours, theirs in zip(rounded.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_group_norm_names_a_divisor() -> None:
    with pytest.raises(ValueError, match=r"channels_per_group=16 does not divide 20.*such as 20"):
        GroupNorm(20)


def test_rms_norm_is_its_formula() -> None:
    norm = RMSNorm(6)
    nn.init.normal_(norm.weight)
    assert norm.bias is None
    x = torch.randn(2, 6, 3, 4)
    expected = x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() * norm.weight.view(6, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    assert norm.silence()
    assert not norm(x).any()


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm, RMSNorm, GroupNorm])
def test_sequences_rows_and_maps_are_normalised_alike(norm: Callable[[int], Norm]) -> None:
    """One item as a map of height one, as a sequence, as packed rows and, alone, as a vector."""
    torch.manual_seed(0)
    part, x = norm(16), torch.randn(3, 7, 16)
    nn.init.normal_(part.weight)
    maps = x.transpose(1, 2).unsqueeze(2)
    expected = part(maps).squeeze(2).transpose(1, 2)
    torch.testing.assert_close(part(x), expected)
    valid = packed(Valid.of(torch.tensor([7, 7, 7]), 7))
    torch.testing.assert_close(part(x.flatten(0, 1), valid), expected.flatten(0, 1))
    vectors = part(x[:, :1].transpose(1, 2).unsqueeze(2))[:, :, 0, 0]
    torch.testing.assert_close(part(x[:, 0]), vectors)


def test_packed_rows_of_an_item_share_statistics_with_no_other() -> None:
    x, lengths = torch.randn(3, 7, 16), torch.tensor([7, 2, 4])
    valid = packed(Valid.of(lengths, 7))
    got = torch.split(GroupNorm(16)(pack(x, valid), valid), lengths.tolist())
    for number, (rows, length) in enumerate(zip(got, lengths.tolist(), strict=True)):
        expected = nn.functional.group_norm(x[number : number + 1, :length].transpose(1, 2), 1)
        torch.testing.assert_close(rows, expected[0].T, rtol=1e-4, atol=1e-5)


def test_packed_batch_statistics_are_those_of_the_rows() -> None:
    ours, theirs = BatchNorm(16), nn.BatchNorm1d(16)
    x = torch.randn(3, 7, 16)
    valid = packed(Valid.of(torch.tensor([7, 2, 4]), 7))
    rows = pack(x, valid)
    torch.testing.assert_close(ours(rows, valid), theirs(rows))
    torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("height", [1, 2])
def test_masked_batch_statistics_are_those_of_the_valid_positions(
    layout: torch.memory_format, height: int
) -> None:
    """Output, running statistics and all gradients, in every way that padding is left out."""
    torch.manual_seed(0)
    ours, theirs = BatchNorm(16), nn.BatchNorm1d(16)
    for part in (ours, theirs):
        nn.init.normal_(part.weight, generator=torch.Generator().manual_seed(1))
    maps = torch.randn(3, 16, height, 7).contiguous(memory_format=layout).requires_grad_()
    valid = Valid.of(torch.tensor([7, 2, 4]), 7)
    places = valid.mask[:, None].expand(-1, height, -1).flatten()
    rows = maps.detach().permute(0, 2, 3, 1).reshape(-1, 16)[places].requires_grad_()

    def chosen(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).reshape(-1, 16)[places]

    for _ in range(2):
        got, expected = ours(maps, valid), theirs(rows)
        torch.testing.assert_close(chosen(got), expected)
    assert got.shape == maps.shape
    weights = torch.randn(expected.shape)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    found = torch.autograd.grad((chosen(got) * weights).sum(), [maps, ours.weight, ours.bias])
    wanted = torch.autograd.grad((expected * weights).sum(), [rows, theirs.weight, theirs.bias])
    torch.testing.assert_close((chosen(found[0]), *found[1:]), wanted)
    assert not found[0].permute(0, 2, 3, 1).reshape(-1, 16)[~places].any()


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its hook untyped
    """Names of the operations that ran."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_an_activation_overwrites_masked_batch_norm_at_no_cost() -> None:
    """Autograd copies value and gradient of a view that is overwritten; the norm's output is none."""
    torch.manual_seed(0)
    x = torch.randn(3, 16, 1, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    valid = Valid.of(torch.tensor([7, 2, 4]), 7)
    found, operations = [], []
    for inplace in (True, False):
        activation = ReLU()
        activation.inplace = inplace
        y = activation(BatchNorm(16)(x, valid), valid)
        with Operations() as seen:
            found.append((y, *torch.autograd.grad(y.square().sum(), x)))
        operations.append(seen.names)
    torch.testing.assert_close(*found)
    assert operations[0] == operations[1]


def test_masked_batch_norm_is_differentiable_twice() -> None:
    torch.manual_seed(0)
    norm = BatchNorm(2).double()
    valid = Valid.of(torch.tensor([3, 1]), 3)
    x = torch.randn(2, 2, 1, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: norm(x, valid), [x])
