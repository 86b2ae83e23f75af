"""Recompute gives what Store gives."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from resdomains.core import (
    Add,
    Basic,
    BatchNorm,
    DropPath,
    Memory,
    Norm,
    Recompute,
    ResNet1d,
    ResNet2d,
    Store,
    SynchronisedBatchNorm,
    recomputing,
    resnet1d20,
    resnet20,
)

LIVE = partial(Add, zero_init=False)  # branches that start at zero would get no gradients


def trained(memory: Memory | None, norm: Callable[[int], Norm]) -> ResNet2d:
    """A network after two steps' gradients, with dropout and stochastic depth on."""
    torch.manual_seed(0)
    net = resnet20(
        memory=memory,
        norm=norm,
        merge=partial(DropPath, p=0.3, merge=LIVE),
        block=partial(Basic, dropout=0.2),
    )
    for _ in range(2):
        net(torch.randn(4, 3, 12, 12)).maps[-1].square().mean().backward()
    return net


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("norm", [BatchNorm, SynchronisedBatchNorm])
def test_recompute_equals_store(every: int, norm: type[BatchNorm]) -> None:
    stored, recomputed = trained(Store(), norm), trained(Recompute(every), norm)
    for (name, a), b in zip(stored.named_parameters(), recomputed.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad), name
    for (name, x), y in zip(stored.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(x, y), name


def test_recompute_equals_store_with_lengths() -> None:
    nets: list[ResNet1d] = []
    for memory in (Store(), Recompute(2)):
        torch.manual_seed(0)
        nets.append(resnet1d20(memory=memory, in_channels=2, merge=LIVE))
        x, lengths = torch.randn(3, 2, 40), torch.tensor([40, 25, 9])
        nets[-1](x, lengths).maps[-1].square().mean().backward()
    for (name, a), (_, b) in zip(
        nets[0].state_dict().items(), nets[1].state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


def test_recompute_keeps_less() -> None:
    def kept(memory: Memory) -> int:
        total = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        net = resnet20(memory=memory)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(torch.randn(4, 3, 16, 16))
        return total

    assert kept(Recompute()) < kept(Store()) / 3


def test_second_passes_are_announced() -> None:
    seen: list[bool] = []
    net = resnet20(memory=Recompute())
    block = next(block for _, block in net.blocks())
    block.branch.register_forward_hook(lambda *_: seen.append(recomputing()))
    net(torch.randn(2, 3, 8, 8)).maps[-1].sum().backward()
    assert seen == [False, True]
    assert not recomputing()


def test_an_error_while_recomputing_does_not_leave_the_mark() -> None:
    net = resnet20(memory=Recompute())
    block = next(block for _, block in net.blocks())

    def fail(*_: object) -> None:
        if recomputing():
            raise RuntimeError("probe failed")

    loss = net(torch.randn(2, 3, 8, 8)).maps[-1].sum()
    block.branch.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="probe failed"):
        loss.backward()
    assert not recomputing()


def test_recompute_without_gradients_runs_once() -> None:
    net = resnet20(memory=Recompute()).eval()
    with torch.no_grad():
        assert not net(torch.randn(1, 3, 8, 8)).maps[-1].requires_grad


def test_every_is_checked() -> None:
    with pytest.raises(ValueError, match="every: expected at least 1 block, got 0"):
        Recompute(every=0)
