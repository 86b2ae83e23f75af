import pytest
import torch
from torch import nn

from resdomains.core import Conv


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_is_torchs(dims: int, channels: int, stride: int, kernel: int) -> None:
    ours = Conv(channels, 8, kernel, dims=dims, stride=stride)
    theirs: nn.Conv1d | nn.Conv2d
    x = torch.randn(2, channels, 64 if dims == 2 else 1, 64, requires_grad=True)
    if dims == 2:
        theirs = nn.Conv2d(channels, 8, kernel, stride, kernel // 2, bias=False)
        theirs.load_state_dict(ours.state_dict())
        expected = theirs(x)
    else:
        theirs = nn.Conv1d(channels, 8, kernel, stride, kernel // 2, bias=False)
        theirs.load_state_dict({"weight": ours.weight.squeeze(2)})
        expected = theirs(x.squeeze(2)).unsqueeze(2)
    # In this layout torch itself crashes for 1x1, stride 2, 4 channels (oneDNN issue 6035).
    got = ours(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    (a,) = torch.autograd.grad(got.square().sum(), [ours.weight])
    (b,) = torch.autograd.grad(expected.square().sum(), [theirs.weight])
    torch.testing.assert_close(a, b.view_as(a), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 1},
        {"kernel": 5},
        {"kernel": 5, "groups": 32},
        {"kernel": 5, "groups": 64},
        {"kernel": 5, "groups": 64, "stride": 2},
        {"kernel": 3, "groups": 64, "dims": 2},
    ],
)
@pytest.mark.parametrize("size", [8, 2000])
def test_gradients_come_in_the_strides_of_the_weights(options: dict[str, int], size: int) -> None:
    """Else DistributedDataParallel warns, and copies."""
    conv = Conv(64, 64, **({"dims": 1} | options))  # type: ignore[arg-type]
    x = torch.randn(2, 64, 1, size).contiguous(memory_format=torch.channels_last)
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()


def test_groups_are_checked() -> None:
    with pytest.raises(ValueError, match="groups: expected a divisor of in_channels=4"):
        Conv(4, 6, 3, groups=3)
