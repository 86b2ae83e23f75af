import pytest
import torch
from torch import nn

from resdomains.core import Highway, Recompute, Residual, ResNet2d, compile_blocks, resnet20


def test_every_block_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(Residual, "compile", lambda self, mode: compiled.append(self))
    network = resnet20()
    assert compile_blocks(network) is network
    assert compiled == [block for _, block in network.blocks()]


def test_networks_without_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="expected Residual blocks in Linear, found none"):
        compile_blocks(nn.Linear(2, 2))


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # torch.compile looks at the gradient of a block's input, and warns itself that it does.
    "ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning",
)
def test_compiled_blocks_compute_the_same_also_when_recomputed() -> None:
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network = ResNet2d((2,), (8,), memory=Recompute(), merge=Highway)
        if compiled:
            compile_blocks(network)
        torch.manual_seed(1)
        for _ in range(2):
            network(torch.randn(2, 3, 8, 8)).maps[-1].square().mean().backward()
        gradient = network.get_parameter("stem.conv.weight").grad
        results.append([gradient, *network.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
