"""Networks over something else than pictures are refused."""

from functools import partial

import pytest
from torch import nn

from resdomains.core import FeedForward, PatchStem, ResidualEncoder, ResNet1d, resnet20, vdcnn9
from resdomains.vision import check_reads


@pytest.mark.parametrize(
    "network",
    [vdcnn9(), ResNet1d(in_channels=3), ResidualEncoder(layers=1, width=16, in_channels=8)],
)
def test_a_network_over_signals_or_ids_is_refused(network: nn.Module) -> None:
    with pytest.raises(
        ValueError, match=r"backbone's stem \w+ cannot read these pictures \(x: expected .*ResNet2d"
    ):
        check_reads(network, (3, 8, 8))


def patches(size: int) -> ResidualEncoder:
    return ResidualEncoder(
        layers=1,
        width=16,
        in_channels=3,
        stem=partial(PatchStem, patch=4, size=size),
        layer=[FeedForward],
    )


def test_a_network_over_pictures_of_another_size_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"PatchStem .*\(3, 16, 16\).*got \(1, 3, 8, 8\)\); give it what it expects",
    ):
        check_reads(patches(16), (3, 8, 8))


class Foreign(nn.Module):
    """A network of some other library."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)


@pytest.mark.parametrize("network", [resnet20(), patches(8), nn.Conv2d(3, 4, 1), Foreign()])
def test_a_network_over_pictures_is_taken(network: nn.Module) -> None:
    check_reads(network, (3, 8, 8))
