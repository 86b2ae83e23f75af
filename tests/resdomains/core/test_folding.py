import pytest
import torch

import resdomains.core as core
from resdomains.core import BatchNorm, Conv, FrozenBatchNorm, PooledHead, fold


def moved(network: core.ResNet) -> core.ResNet:
    """Statistics and gains off their starting values."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.3, 0.7)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet20", 0), ("resnet50d", 0), ("seresnet50", 0), ("preact_resnet20", 9), ("plain20", 0)],
)
def test_folding_keeps_the_result(name: str, left: int) -> None:
    network = moved(getattr(core, name)())
    folded = fold(network)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(network(x).maps, folded(x).maps, strict=True):
            assert (a - b).abs().max() / a.abs().max() < 1e-5
    assert sum(isinstance(m, BatchNorm) for m in folded.modules()) == left
    assert any(isinstance(m, BatchNorm) for m in network.modules()), "the original is untouched"
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(m.bias is None for m in network.modules() if isinstance(m, Conv))


def test_frozen_norms_fold_alike() -> None:
    network = core.resnet20(norm=FrozenBatchNorm)
    network.load_state_dict(moved(core.resnet20()).state_dict())
    folded = fold(network)
    assert not any(isinstance(m, BatchNorm) for m in folded.modules())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(folded(x).maps[-1], network(x).maps[-1], rtol=1e-4, atol=1e-5)


def test_folding_keeps_the_result_with_lengths() -> None:
    network = moved(core.resnet1d20(in_channels=2))
    head = PooledHead(64, 3)
    x, lengths = torch.randn(2, 2, 40), torch.tensor([40, 17])
    a, b = head(network(x, lengths)), head(fold(network)(x, lengths))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
