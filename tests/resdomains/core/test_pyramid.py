from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    BatchNorm,
    CoarserLevels,
    Conv,
    FeaturePyramid,
    GroupNorm,
    StridedFromNetwork,
    StridedFromPyramid,
    fold,
)

ops = pytest.importorskip("torchvision.ops")
WIDTHS = (6, 10, 14)


def maps(height: int = 16, width: int = 24) -> list[Tensor]:
    return [
        torch.randn(2, c, -(-height // s), -(-width // s))
        for c, s in zip(WIDTHS, (1, 2, 4), strict=True)
    ]


def transfer(ours: FeaturePyramid, theirs: Any) -> None:
    for i in range(len(ours.laterals)):
        for mine, other in (
            (ours.laterals[i], theirs.inner_blocks[i]),
            (ours.outputs[i], theirs.layer_blocks[i]),
        ):
            convs = [m for m in other.modules() if isinstance(m, nn.Conv2d)]
            mine.get_submodule("conv").load_state_dict(convs[0].state_dict())
    if ours.coarser is not None:
        for mine, other in zip(
            ours.coarser.get_submodule("convs").children(),
            theirs.extra_blocks.children(),
            strict=True,
        ):
            mine.load_state_dict(other.state_dict())


@pytest.mark.parametrize("height", [16, 13])
@pytest.mark.parametrize(
    ("coarser", "source"), [(None, 0), (StridedFromPyramid, 8), (StridedFromNetwork, 14)]
)
def test_levels_are_torchvisions(
    coarser: Callable[[int, int, int], CoarserLevels] | None, source: int, height: int
) -> None:
    """13 rows make 7 and 4: upsampling must end at the lateral's size, not at twice its own."""
    torch.manual_seed(0)
    block = ops.feature_pyramid_network
    theirs = ops.FeaturePyramidNetwork(
        list(WIDTHS), 8, extra_blocks=block.LastLevelP6P7(source, 8) if coarser else None
    )
    parts: dict[str, Any] = {"extra": 2, "coarser": coarser} if coarser else {}
    ours = FeaturePyramid(WIDTHS, 8, **parts)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    transfer(ours, theirs)
    x = maps(height)
    expected = theirs(OrderedDict((str(i), value) for i, value in enumerate(x)))
    got = ours(x)
    assert len(got) == (5 if coarser else 3)
    for a, b in zip(got, expected.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_norm_follows_every_convolution_and_takes_its_bias() -> None:
    torch.manual_seed(0)
    theirs = ops.FeaturePyramidNetwork(
        list(WIDTHS), 8, norm_layer=lambda channels: nn.GroupNorm(2, channels)
    )
    ours = FeaturePyramid(WIDTHS, 8, norm=lambda channels: GroupNorm(channels, 4))
    transfer(ours, theirs)
    assert not any(name.endswith("conv.bias") for name, _ in ours.named_parameters())
    x = maps()
    expected = theirs(OrderedDict((str(i), value) for i, value in enumerate(x)))
    for a, b in zip(ours(x), expected.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_deepest_map_reaches_the_finest_level_and_gradients_reach_all_weights() -> None:
    pyramid = FeaturePyramid(WIDTHS, 8, extra=2)
    x = [value.requires_grad_() for value in maps()]
    pyramid(x)[0].square().sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in x)
    pyramid.zero_grad()
    sum(level.square().sum() for level in pyramid(x)).backward()
    assert all(p.grad is not None and p.grad.any() for p in pyramid.parameters())


def test_levels_halve_and_keep_channels_last() -> None:
    x = [value.contiguous(memory_format=torch.channels_last) for value in maps(32, 64)]
    levels = FeaturePyramid(WIDTHS, 8, extra=2)(x)
    assert [tuple(v.shape[2:]) for v in levels] == [(32, 64), (16, 32), (8, 16), (4, 8), (2, 4)]
    assert all(v.is_contiguous(memory_format=torch.channels_last) for v in levels)


def test_batch_norms_fold() -> None:
    torch.manual_seed(0)
    pyramid = FeaturePyramid(WIDTHS, 8, norm=BatchNorm)
    x = maps()
    pyramid(x)
    pyramid.eval()
    folded = fold(pyramid)
    assert not any(isinstance(m, BatchNorm) for m in folded.modules())
    for a, b in zip(folded(x), pyramid(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_one_map_is_a_pyramid_of_one_level() -> None:
    pyramid = FeaturePyramid([6], 8)
    assert [tuple(v.shape) for v in pyramid([torch.randn(1, 6, 5, 5)])] == [(1, 8, 5, 5)]
    assert all(isinstance(m, Conv) for m in pyramid.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 8), "in_channels: expected the channels of at least one map, got none"),
        (([4], 0), "channels: expected at least 1, got 0"),
        (([4], 8, -1), "extra: expected 0 or more levels, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeaturePyramid(*arguments)
