import pytest
import torch
from torch import nn

from resdomains.core import BatchNorm, GroupNorm, LayerNorm


def test_batch_norm_is_torchs() -> None:
    ours, theirs = BatchNorm(5), nn.BatchNorm2d(5)
    for _ in range(3):
        x = torch.randn(4, 5, 3, 3)
        torch.testing.assert_close(ours(x), theirs(x))
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_layer_norm_treats_positions_alone() -> None:
    x = torch.randn(2, 6, 3, 4)
    got = LayerNorm(6)(x)
    position = x[1, :, 2, 3]
    expected = (position - position.mean()) / (position.var(correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(got[1, :, 2, 3], expected)


def test_group_norm_is_torchs() -> None:
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(GroupNorm(8, 4)(x), nn.GroupNorm(2, 8)(x))


def test_group_norm_names_a_divisor() -> None:
    with pytest.raises(ValueError, match=r"channels_per_group=16 does not divide 20.*such as 20"):
        GroupNorm(20)
