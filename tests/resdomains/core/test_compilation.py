from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    Highway,
    PreActivationBasic,
    Recompute,
    ReLU,
    Residual,
    ResNet1d,
    ResNet2d,
    Reverse,
    Reversible,
    Valid,
    compile_blocks,
    eager,
    preact_resnet20,
    resnet20,
    resnet110,
)


def test_every_block_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(Residual, "compile", lambda self, **options: compiled.append(self))
    network = resnet20()
    assert compile_blocks(network) is network
    assert compiled == [block for _, block in network.blocks()]


def test_few_blocks_that_share_with_none_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(Residual, "compile", lambda self, **options: compiled.append(self))
    network = resnet110()
    compile_blocks(network)
    assert compiled == [block for name, block in network.blocks() if "transition" not in name]
    assert len(compiled) == 52


def test_branches_are_compiled_where_stacks_couple_blocks_by_their_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append(self))
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


def test_every_kind_of_block_may_be_compiled_for_all_that_one_may() -> None:
    limit = 8  # torch's own
    with torch._dynamo.config.patch(recompile_limit=limit):
        compile_blocks(ResNet2d((3, 3), (8, 16)))  # the second stage's first block is a third kind
        assert torch._dynamo.config.recompile_limit == 3 * limit
        compile_blocks(ResNet2d((3,), (8,)))
        assert torch._dynamo.config.recompile_limit == 3 * limit


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # torch.compile looks at the gradient of a block's input, and warns itself that it does.
    "ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning",
)
def test_maps_are_compiled_for_all_lengths() -> None:
    torch.manual_seed(0)
    twin = ResNet1d((1,), (8,), in_channels=2)
    network = compile_blocks(deepcopy(twin))
    for batch, length in ((4, 20), (5, 28), (3, 24)):
        x = torch.randn(batch, 2, length)
        lengths = torch.arange(length - batch + 1, length + 1)
        results = [net(x, lengths).maps[-1] for net in (network, twin)]
        torch.testing.assert_close(*results)
        for result in results:
            result.square().mean().backward()
    gradients = [[p.grad for p in net.parameters()] for net in (network, twin)]
    torch.testing.assert_close(*gradients)


@pytest.mark.filterwarnings(
    # torch.compile looks at the gradient of a block's input, and warns itself that it does.
    "ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning",
)
@pytest.mark.parametrize(
    "kept", [{"memory": Recompute()}, {"memory": Reverse(), "coupling": Reversible()}]
)
def test_what_ran_as_written_is_computed_again_as_written(kept: dict[str, Any]) -> None:
    compiled: list[bool] = []

    class Watched(ReLU):
        def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
            compiled.append(torch.compiler.is_compiling())
            return super().forward(x, valid)

    network = ResNet2d((2,), (8,), activation=Watched, block=PreActivationBasic, **kept)
    compile_blocks(network, backend="aot_eager")
    x = torch.randn(2, 3, 8, 8)
    with eager():
        loss = network(x).maps[-1].square().mean()
    loss.backward()
    assert len(compiled) > 2 * len(list(network.blocks()))
    assert not any(compiled)
    compiled.clear()
    network(x).maps[-1].square().mean().backward()
    assert any(compiled)


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
