import torch

from resdomains.core import BatchNorm, Place, PooledProjection, ReLU, ZeroPad


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
