"""Depthwise convolution along one axis against torch's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resdomains.core import Conv
from resdomains.core import convolution as convolution_module
from resdomains.core.depthwise import depthwise, quick, weight_gradient


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((ours.double() - theirs).detach().abs().max() / theirs.detach().abs().max())


def direct(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    kernel = weight.shape[3]
    padding = (0, dilation * (kernel - 1) // 2)
    return F.conv2d(x, weight, bias, 1, padding, (1, dilation), x.shape[1])


def inputs(
    channels: int, kernel: int, size: int, height: int = 1, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Data in channels_last, weights and biases, all to be differentiated."""
    torch.manual_seed(0)
    x = torch.randn(3, channels, height, size, dtype=dtype)
    return [
        x.contiguous(memory_format=torch.channels_last).requires_grad_(),
        torch.randn(channels, 1, 1, kernel, dtype=dtype, requires_grad=True),
        torch.randn(channels, dtype=dtype, requires_grad=True),
    ]


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 33])
@pytest.mark.parametrize(("channels", "size"), [(1, 50), (5, 40), (16, 61), (24, 7), (32, 1)])
def test_output_and_gradients_are_those_of_conv1d(
    channels: int, size: int, kernel: int, dilation: int
) -> None:
    x, weight, bias = inputs(channels, kernel, size)
    theirs = nn.Conv1d(
        channels,
        channels,
        kernel,
        padding=dilation * (kernel - 1) // 2,
        dilation=dilation,
        groups=channels,
        dtype=torch.double,
    )
    theirs.load_state_dict({"weight": weight.squeeze(2), "bias": bias})
    line = x.detach().double().squeeze(2).requires_grad_()
    parameters = list(theirs.parameters())
    expected = theirs(line)
    got = depthwise(x, weight, bias, dilation)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert error(got.squeeze(2), expected) < 1e-6
    gradient = torch.randn_like(got)
    ours = torch.autograd.grad(got, [x, weight, bias], gradient)
    reference = torch.autograd.grad(expected, [line, *parameters], gradient.double().squeeze(2))
    for a, b in zip(ours, reference, strict=True):
        assert error(a.view(b.shape), b) < 2e-6


def test_lines_of_a_plane_do_not_mix() -> None:
    x, weight, bias = inputs(8, 5, 11, height=4)
    got = depthwise(x, weight, bias, dilation=2)
    torch.testing.assert_close(got, direct(x, weight, bias, 2))
    ours = torch.autograd.grad(got.square().sum(), [x, weight, bias])
    reference = torch.autograd.grad(direct(x, weight, bias, 2).square().sum(), [x, weight, bias])
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dilation", [1, 2])
def test_gradients_and_their_gradients_are_right(dilation: int) -> None:
    arguments = inputs(2, 5, 9, dtype=torch.double)

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return depthwise(x, weight, bias, dilation)

    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.parametrize("copied", [1, 4 * 2**20])
@pytest.mark.parametrize(("kernel", "size"), [(5, 6), (31, 6), (33, 75), (47, 131)])
def test_weight_gradient_by_its_definition(
    copied: int, kernel: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no two items or channels fit in what may be copied at once."""
    monkeypatch.setattr("resdomains.core.depthwise._COPY", copied)
    torch.manual_seed(0)
    x, g = torch.randn(2, 3, 2, size), torch.randn(2, 3, 2, size)
    padded = F.pad(x, (kernel // 2, kernel // 2))
    for tap, column in enumerate(weight_gradient(x, g, kernel).unbind(3)):
        expected = (g * padded[..., tap : tap + size]).sum((0, 2, 3))
        torch.testing.assert_close(column.flatten(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wanted", [[0], [1], [2], [0, 2]])
def test_only_what_is_wanted_is_computed(
    wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [t.requires_grad_(i in wanted) for i, t in enumerate(inputs(4, 5, 8))]
    x, weight, bias = tensors
    kernels: list[int] = []

    def recorded(x: Tensor, gradient: Tensor, kernel: int) -> Tensor:
        kernels.append(kernel)
        return weight_gradient(x, gradient, kernel)

    monkeypatch.setattr("resdomains.core.depthwise.weight_gradient", recorded)
    needed = [tensors[i] for i in wanted]
    ours = torch.autograd.grad(depthwise(x, weight, bias).sum(), needed)
    reference = torch.autograd.grad(direct(x, weight, bias).sum(), needed)
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert kernels == ([5] if 1 in wanted else [])


def test_without_bias() -> None:
    x, weight, _ = inputs(4, 5, 8)
    got, expected = (f(x, weight, None, 1) for f in (depthwise, direct))
    torch.testing.assert_close(got, expected)
    (a,), (b,) = (torch.autograd.grad(y.sum(), [weight]) for y in (got, expected))
    torch.testing.assert_close(a, b)


def test_bfloat16() -> None:
    x, weight, bias = inputs(16, 9, 40, dtype=torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    got, expected = depthwise(x, weight, bias), direct(exact[0], exact[1], exact[2])
    assert got.dtype == torch.bfloat16
    assert error(got, expected) < 1e-2
    ours = torch.autograd.grad(got.float().square().sum(), [x, weight, bias])
    reference = torch.autograd.grad(expected.square().sum(), exact)
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == torch.bfloat16
        assert error(a, b) < 2e-2


def test_autocast_casts_as_for_conv2d() -> None:
    x, weight, bias = inputs(16, 9, 40)
    results = []
    for function in (depthwise, direct):
        with torch.autocast("cpu", torch.bfloat16):
            y = function(x, weight, bias, 2)
        gradients = torch.autograd.grad(y.float().square().sum(), [x, weight, bias])
        results.append([y, *gradients])
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        assert error(ours, theirs.double()) < 1e-2
    assert results[0][0].dtype == torch.bfloat16
    assert results[0][2].dtype == torch.float32


def test_a_backward_pass_under_autocast_stays_exact() -> None:
    x, weight, bias = inputs(16, 9, 40)
    y, expected = depthwise(x, weight, bias), direct(x, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        ours = torch.autograd.grad(y.square().sum(), [x, weight, bias])
    for a, b in zip(
        ours, torch.autograd.grad(expected.square().sum(), [x, weight, bias]), strict=True
    ):
        assert a.dtype == torch.float32
        assert error(a, b.double()) < 1e-5


def test_function_transforms_work() -> None:
    x, weight, bias = inputs(4, 5, 8)
    x, weight = x.detach(), weight.detach()

    def loss(w: Tensor, item: Tensor, function: Callable[..., Tensor]) -> Tensor:
        return function(item.unsqueeze(0), w, bias.detach()).square().sum()

    per_item = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, None))
    torch.testing.assert_close(per_item(weight, x, depthwise), per_item(weight, x, direct))


def large(out_channels: int = 64, kernel: int = 9, groups: int = 64, **changes: Any) -> Conv:
    return Conv(64, out_channels, kernel, groups=groups, **({"dims": 1} | changes))


def data(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(8, 64, 1, 300, dtype=dtype).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The outputs of every call that a convolution made of the fast path."""
    made: list[Tensor] = []

    def recorded(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        made.append(depthwise(x, weight, bias, dilation))
        return made[-1]

    monkeypatch.setattr(convolution_module, "depthwise", recorded)
    return made


@pytest.mark.parametrize("changes", [{}, {"dilation": 2}, {"bias": True}])
def test_convolutions_take_the_fast_path_and_compute_the_same(
    changes: dict[str, Any], calls: list[Tensor]
) -> None:
    conv, x = large(**changes), data()
    got = conv(x)
    assert len(calls) == 1
    expected = direct(x, conv.weight, conv.bias, conv.dilation[1])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    (a,), (b,) = (torch.autograd.grad(y.square().sum(), conv.weight) for y in (got, expected))
    assert error(a, b.double()) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [{"stride": 2}, {"kernel": 3}, {"groups": 32}, {"out_channels": 128}, {"dims": 2}],
)
def test_other_convolutions_are_left_to_torch(changes: dict[str, Any], calls: list[Tensor]) -> None:
    large(**changes)(data())
    assert not calls


def test_few_products_and_other_types_are_left_to_torch(calls: list[Tensor]) -> None:
    large()(data()[:1, :, :, :20])
    large().double()(data(torch.double))
    with torch.no_grad():  # only the gradient is slow for 9 taps
        large()(data())
    assert not calls
    with torch.no_grad():
        large(kernel=15, dilation=2)(data())
    assert len(calls) == 1


def test_a_compiled_graph_is_left_whole_and_serves_all_lengths(calls: list[Tensor]) -> None:
    conv, x = large(), data()
    assert quick(x, 9)
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager", dynamic=True)
    got = compiled(x)
    assert not calls
    torch.testing.assert_close(got, direct(x, conv.weight), rtol=1e-5, atol=1e-5)
    got.sum().backward()
    assert conv.weight.grad is not None
    assert not quick(x[..., :5], 9)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(x[..., :5].contiguous(memory_format=torch.channels_last))
