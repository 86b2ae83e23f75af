"""Published sizes."""

import inspect

import pytest
import torch

import resdomains.core as core
from resdomains.core import BranchOnly, PooledHead, ResNet
from resdomains.core.named import images


def size(network: ResNet, classes: int) -> float:
    """Millions of parameters with a linear classifier."""
    head = PooledHead(network.out_channels[-1], classes)
    return sum(p.numel() for m in (network, head) for p in m.parameters()) / 1e6


def names() -> list[str]:
    return [
        name
        for name, value in vars(images).items()
        if inspect.isfunction(value) and value.__module__ == images.__name__
    ]


def build(name: str) -> ResNet:
    network: ResNet = getattr(core, name)()
    return network


@pytest.mark.parametrize(
    ("name", "millions"),
    # He et al. 2015, table 6.
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7), (1202, 19.4)],
)
def test_cifar_networks_have_the_published_size_and_so_have_their_plain_twins(
    name: int, millions: float
) -> None:
    with torch.device("meta"):
        residual, plain = build(f"resnet{name}"), build(f"plain{name}")
    digits = 1 if millions > 1 else 2
    assert round(size(residual, 10), digits) == millions
    assert size(plain, 10) == size(residual, 10)
    assert residual.depth == plain.depth == name


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("preact_resnet164", 10, 1.7),  # He et al. 2016, table 4
        ("preact_resnet1001", 10, 10.3),  # 10.2 there; 10.33 by the paper's own architecture
        ("wide_resnet28_10", 10, 36.5),  # Zagoruyko & Komodakis 2016, table 5
        ("resnet18", 1000, 11.7),
        ("resnet50", 1000, 25.6),
        ("resnext50_32x4d", 1000, 25.0),
        ("seresnet50", 1000, 28.1),
    ],
)
def test_other_networks_have_the_published_size(name: str, classes: int, millions: float) -> None:
    with torch.device("meta"):
        assert round(size(build(name), classes), 1) == millions


@pytest.mark.parametrize("name", names())
def test_every_name_builds_with_options_and_has_a_twin(name: str) -> None:
    with torch.device("meta"):
        network = getattr(core, name)(in_channels=1, norm=core.NoNorm)
    assert network.in_channels == 1
    assert network.dims == (1 if "1d" in name else 2)
    plain = all(isinstance(block.merge, BranchOnly) for _, block in network.blocks())
    assert plain == ("plain" in name)
    assert plain or name.replace("resnext", "plainnext").replace("resnet", "plain") in names()


@pytest.mark.parametrize(
    ("name", "depth"), [("resnet18", 18), ("resnet152", 152), ("preact_resnet164", 164)]
)
def test_depth_counts_weighted_layers(name: str, depth: int) -> None:
    with torch.device("meta"):
        assert build(name).depth == depth


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="mergee"):
        core.resnet20(mergee=BranchOnly)  # type: ignore[call-arg]
