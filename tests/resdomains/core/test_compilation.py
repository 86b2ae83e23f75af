import pytest
import torch
from torch import nn

from resdomains.core import (
    Highway,
    Recompute,
    Residual,
    ResNet2d,
    Reversible,
    compile_blocks,
    preact_resnet20,
    resnet20,
    resnet110,
)


def test_every_block_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(Residual, "compile", lambda self, mode: compiled.append(self))
    network = resnet20()
    assert compile_blocks(network) is network
    assert compiled == [block for _, block in network.blocks()]


def test_few_blocks_that_share_with_none_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(Residual, "compile", lambda self, mode: compiled.append(self))
    network = resnet110()
    compile_blocks(network)
    assert compiled == [block for name, block in network.blocks() if "transition" not in name]
    assert len(compiled) == 52


def test_branches_are_compiled_where_stacks_couple_blocks_by_their_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: compiled.append(self))
    network = preact_resnet20(coupling=Reversible())
    compile_blocks(network)
    expected = [block if "transition" in name else block.branch for name, block in network.blocks()]
    assert compiled == expected


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # torch.compile looks at the gradient of a block's input, and warns itself that it does.
    "ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning",
)
def test_a_deeper_stack_compiles_no_more_code() -> None:
    found = []
    for blocks in (2, 6):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        network = compile_blocks(ResNet2d((blocks,), (8,)))
        network(torch.randn(2, 3, 8, 8)).maps[-1].square().mean().backward()
        found.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert found == [1, 1]


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
