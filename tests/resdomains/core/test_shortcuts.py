from collections.abc import Callable

import pytest
import torch

from resdomains.core import (
    Add,
    BatchNorm,
    ConstantScaling,
    DropoutShortcut,
    Place,
    PooledProjection,
    ReLU,
    ResNet2d,
    Shortcut,
    ZeroPad,
)


def place(stride: int, dims: int = 2) -> Place:
    return Place(3, 5, BatchNorm, ReLU, stride=stride, dims=dims)


def test_zero_pad_keeps_channels_and_adds_zeros_after_them() -> None:
    x = torch.randn(2, 3, 5, 7)
    y = ZeroPad(place(2))(x)
    assert y.shape == (2, 5, 3, 4)
    assert torch.equal(y[:, :3], x[:, :, ::2, ::2])
    assert not y[:, 3:].any()


def test_zero_pad_strides_along_the_line_only() -> None:
    x = torch.randn(2, 3, 1, 7)
    assert torch.equal(ZeroPad(place(2, dims=1))(x)[:, :3], x[:, :, :, ::2])


def test_pooled_projection_averages_what_a_window_has() -> None:
    shortcut = PooledProjection(place(2)).eval()
    x = torch.arange(27.0).view(1, 3, 3, 3)
    pooled = torch.stack(
        [
            torch.stack([x[..., i : i + 2, j : j + 2].mean((2, 3)) for j in (0, 2)], -1)
            for i in (0, 2)
        ],
        -2,
    )
    weight = shortcut.get_parameter("conv.weight")[:, :, 0, 0]
    expected = torch.einsum("oc,bchw->bohw", weight, pooled) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(shortcut(x), expected)


def test_a_scaled_shortcut_scales() -> None:
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(ConstantScaling(place(1), scale=0.25)(x), x / 4)


def test_a_dropped_shortcut_keeps_the_mean_and_nothing_in_eval() -> None:
    torch.manual_seed(0)
    shortcut, x = DropoutShortcut(place(1), p=0.25), torch.ones(1, 3, 200, 200)
    y = shortcut(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert y.mean() == pytest.approx(1, abs=0.01)
    assert torch.equal(shortcut.eval()(x), x)


def test_inner_shortcuts_are_what_a_silent_block_computes() -> None:
    """Where every branch starts at zero, ten blocks of scaling 1/2 leave a thousandth."""
    net = ResNet2d((10,), (4,), inner_shortcut=ConstantScaling, activation=ReLU, merge=Add).eval()
    x = torch.randn(1, 3, 8, 8)
    first = net.stem(x)
    torch.testing.assert_close(net(x).maps[-1], first / 2**10)


@pytest.mark.parametrize("shortcut", [ConstantScaling, ZeroPad])
def test_shortcuts_that_make_a_tensor_say_so(shortcut: Callable[[Place], Shortcut]) -> None:
    part, x = shortcut(place(1)), torch.randn(1, 3, 2, 2)
    assert part.fresh is True
    assert part(x).data_ptr() != x.data_ptr()
