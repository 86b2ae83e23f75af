"""Recompute and Reverse give what Store gives."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resdomains.core import (
    GELU,
    Add,
    Bare,
    Basic,
    BatchNorm,
    Bottleneck,
    DropPath,
    FeedForward,
    GroupNorm,
    Highway,
    LayerScale,
    Memory,
    Merge,
    Norm,
    Nothing,
    PreActivationBasic,
    Recompute,
    Residual,
    ResidualEncoder,
    ResNet1d,
    ResNet2d,
    Reverse,
    Reversible,
    ReZero,
    SelfAttention,
    Site,
    Stack,
    Store,
    SynchronisedBatchNorm,
    compile_blocks,
    preact_resnet20,
    recomputing,
    resnet1d20,
    resnet20,
)
from tests.pairs import in_two_processes

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


Build = Callable[[Memory, Callable[[Site], Merge]], nn.Module]


def network2d(memory: Memory, merge: Callable[[Site], Merge]) -> nn.Module:
    block = partial(PreActivationBasic, dropout=0.2)
    return ResNet2d((3, 2), (8, 16), block=block, merge=merge, coupling=Reversible(), memory=memory)


def network1d(memory: Memory, merge: Callable[[Site], Merge]) -> nn.Module:
    # What a stack of these blocks ends with is the sum, as Reverse needs.
    return ResNet1d(
        (3, 2),
        (8, 16),
        block=partial(Bottleneck, dropout=0.2),
        norm=partial(GroupNorm, channels_per_group=1),
        after=Nothing,
        merge=merge,
        coupling=Reversible(),
        memory=memory,
    )


def branch(width: int = 6) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(0.2))


def vectors(memory: Memory, merge: Callable[[Site], Merge]) -> nn.Module:
    blocks = [Residual(branch(), Bare(), merge(Site(6, -1, number, 4))) for number in range(4)]
    return nn.Sequential(nn.Linear(6, 6), Stack(blocks, Reversible(), memory))


# The same in every session: some other draws have gradients of 1e4, whose last digits are above the tolerances here.
_drawn = partial(torch.randn, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
INPUTS: dict[Build, tuple[Tensor, ...]] = {
    network2d: (_drawn(4, 3, 8, 8),),
    network1d: (_drawn(3, 3, 20), torch.tensor([20, 11, 5])),
    vectors: (_drawn(5, 6),),
}
MERGES: dict[str, Callable[[Site], Merge]] = {
    "Add": LIVE,
    "ReZero": ReZero,
    "LayerScale": partial(LayerScale, init=0.3),
    "DropPath": partial(DropPath, p=0.5, merge=partial(LayerScale, init=0.3)),
}


def output(result: object) -> Tensor:
    maps = getattr(result, "maps", [result])[-1]
    assert isinstance(maps, Tensor)
    return maps


def loss(network: nn.Module, *inputs: Tensor) -> Tensor:
    return output(network(*inputs)).square().mean()


def learn(network: nn.Module, *inputs: Tensor) -> None:
    loss(network, *inputs).backward()  # type: ignore[no-untyped-call]


def double(
    build: Build, memory: Memory, merge: Callable[[Site], Merge]
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    network = build(memory, merge).double()
    for module in network.modules():
        if isinstance(module, ReZero):  # which lets no gradient through at first
            nn.init.constant_(module.scale, 0.4)
    return network, INPUTS[build]


def assert_same_gradients(a: nn.Module, b: nn.Module, tolerance: float) -> None:
    assert [n for n, _ in a.named_parameters()] == [n for n, _ in b.named_parameters()]
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None and q.grad is not None:
            torch.testing.assert_close(q.grad, p.grad, rtol=0, atol=tolerance, msg=name)
    for (name, x), y in zip(a.named_buffers(), b.buffers(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("build", [network2d, network1d, vectors])
@pytest.mark.parametrize("memory", [Reverse(), Recompute(2)])
def test_coupled_stacks_have_one_gradient(build: Build, merge: str, memory: Memory) -> None:
    """In float64, where inverting loses next to nothing; dropout is on, statistics count once."""
    results = []
    for kept in (Store(), memory):
        network, inputs = double(build, kept, MERGES[merge])
        torch.manual_seed(1)
        given = inputs[0].clone().requires_grad_()
        for _ in range(2):  # accumulates
            learn(network, given, *inputs[1:])
        results.append((network, given.grad, torch.get_rng_state()))
    (a, x, state), (b, y, other) = results
    assert x is not None
    assert x.abs().sum() > 0
    torch.testing.assert_close(x, y, rtol=0, atol=1e-11)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in a.parameters())
    assert_same_gradients(a, b, 1e-11)
    assert torch.equal(state, other)


@pytest.mark.parametrize("merge", ["LayerScale", "DropPath"])
def test_encoders_reverse(merge: str) -> None:
    """Over packed rows, with attention's and other dropout."""
    tokens, lengths = torch.randint(1, 9, (3, 7)), torch.tensor([7, 4, 2])
    results = []
    for memory in (Store(), Reverse()):
        torch.manual_seed(0)
        network = ResidualEncoder(
            layers=2,
            width=64,
            in_channels=9,
            layer=[
                partial(SelfAttention, dropout=0.2, attention_dropout=0.2),
                partial(FeedForward, dropout=0.2),
            ],
            merge=MERGES[merge],
            coupling=Reversible(),
            memory=memory,
        ).double()
        torch.manual_seed(1)
        learn(network, tokens, lengths)
        results.append(network)
    assert_same_gradients(results[0], results[1], 1e-11)


def test_reverse_leaves_frozen_parameters_alone() -> None:
    results = []
    for memory in (Store(), Reverse()):
        network, inputs = double(network2d, memory, LIVE)
        for number, parameter in enumerate(network.parameters()):
            parameter.requires_grad_(number % 3 == 0)
        torch.manual_seed(1)
        learn(network, *inputs)
        results.append(network)
    assert_same_gradients(results[0], results[1], 1e-11)


def test_reverse_adds_up_what_shared_blocks_get() -> None:
    gradients = []
    for memory in (Store(), Reverse()):
        torch.manual_seed(0)
        one = Residual(branch(), Bare(), Add(Site(6, -1))).double()
        Stack([one] * 3, Reversible(), memory)(INPUTS[vectors][0]).square().mean().backward()
        gradients.append([p.grad for p in one.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_reverse_allows_a_lesion() -> None:
    results = []
    for memory in (Store(), Reverse()):
        network, inputs = double(network2d, memory, LIVE)
        one = network.get_submodule("stages.0.stack.blocks.1")
        assert isinstance(one, Residual)
        one.merge = one.merge.without_branch()
        torch.manual_seed(1)
        learn(network, *inputs)
        results.append(network)
    assert_same_gradients(results[0], results[1], 1e-11)


def test_reverse_without_gradients_keeps_nothing() -> None:
    network, inputs = double(network2d, Reverse(), LIVE)
    stored, _ = double(network2d, Store(), LIVE)
    network.eval()
    stored.eval()
    with torch.no_grad():
        got = output(network(*inputs))
    assert not got.requires_grad
    assert torch.equal(got, output(stored(*inputs)))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert not output(network(*inputs)).requires_grad


def test_reverse_refuses_second_gradients() -> None:
    network, inputs = double(network2d, Reverse(), LIVE)
    total = loss(network, *inputs)
    with pytest.raises(RuntimeError, match=r"first gradients only.*use memory=Store"):
        torch.autograd.grad(total, list(network.parameters()), create_graph=True)
    assert not recomputing()


def test_reverse_allows_a_second_walk() -> None:
    network, inputs = double(network2d, Reverse(), LIVE)
    total = loss(network, *inputs)
    parameters = list(network.parameters())
    first = torch.autograd.grad(total, parameters, retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(total, parameters), strict=True):
        assert torch.equal(a, b)


def test_reverse_notices_parameters_changed_before_the_backward_pass() -> None:
    network, inputs = double(network2d, Reverse(), LIVE)
    total = loss(network, *inputs)
    with torch.no_grad():
        network.get_parameter("stages.0.stack.blocks.0.branch.conv2.weight").mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()  # type: ignore[no-untyped-call]


def test_reverse_under_autocast() -> None:
    """Branches are computed twice in bfloat16, to the same bits: streams come back in float32."""
    gradients = []
    for memory in (Store(), Reverse()):
        torch.manual_seed(0)
        network = network2d(memory, LIVE)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            # The backward pass too, since casts of weights are cached until the end.
            learn(network, INPUTS[network2d][0].float())
        gradients.append([p.grad for p in network.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert a is not None
        assert b is not None
        assert a.abs().sum() > 0
        assert (a - b).norm() <= 2e-2 * a.norm()


def test_networks_in_bfloat16_predict_but_do_not_reverse() -> None:
    network = network2d(Reverse(), LIVE).to(torch.bfloat16)
    x = INPUTS[network2d][0].to(torch.bfloat16)
    with torch.no_grad():
        assert output(network(x)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"at least float32, got torch.bfloat16.*autocast"):
        network(x)


def kept_by(depth: int, memory: Memory, dropout: float = 0.0) -> int:
    """Bytes that the graph of a forward pass refers to, parameters and buffers left out."""
    block = partial(PreActivationBasic, dropout=dropout)
    network = ResNet2d(
        (depth,), (8,), block=block, merge=LIVE, coupling=Reversible(), memory=memory
    )
    own = {t.untyped_storage().data_ptr() for t in [*network.parameters(), *network.buffers()]}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = network(torch.randn(2, 3, 16, 16)).maps[-1].sum()
    assert total.requires_grad
    return sum(sizes.values())


def test_what_reverse_keeps_does_not_grow_with_depth() -> None:
    assert kept_by(20, Reverse()) == kept_by(5, Reverse())
    assert kept_by(20, Store()) > 3.5 * kept_by(5, Store())


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (lambda: resnet20(memory=Reverse()), "coupling=Reversible, got Plain"),
        (
            lambda: resnet20(memory=Reverse(), coupling=Reversible()),
            r"end with the sum, got after=Activated.*block=PreActivationBasic or after=Nothing",
        ),
        (
            lambda: preact_resnet20(memory=Reverse(), coupling=Reversible(), merge=Highway),
            r"can be inverted, got Highway.*use Add, ReZero, LayerScale or DropPath of one",
        ),
        (
            lambda: preact_resnet20(
                memory=Reverse(),
                coupling=Reversible(),
                merge=partial(DropPath, merge=Highway),
            ),
            r"can be inverted, got DropPath",
        ),
    ],
)
def test_what_cannot_be_reversed_is_refused(network: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(ValueError, match=f"memory=Reverse needs.*{reason}.*memory=Recompute"):
        network()


def test_transitions_of_a_reversed_network_store() -> None:
    net = preact_resnet20(memory=Reverse(), coupling=Reversible())
    stack = net.get_submodule("stages.0.stack")
    assert isinstance(stack, Stack)
    assert isinstance(stack.memory.outside, Store)
    assert isinstance(Recompute(3).outside, Recompute)


# Relative to the norm of all gradients; resdomains/core/README.md has what was measured.
DEPTHS = [
    (6, LIVE, 1e-6),
    (6, partial(LayerScale, init=0.1), 1e-6),
    (110, LIVE, 3e-4),
    (110, partial(LayerScale, init=0.1), 1e-6),
    (1000, LIVE, 1e-2),
    (1000, partial(LayerScale, init=0.1), 1e-5),
]


@pytest.mark.parametrize(("depth", "merge", "tolerance"), DEPTHS)
def test_rounding_of_reverse_by_depth(
    depth: int, merge: Callable[[Site], Merge], tolerance: float
) -> None:
    assert rounding(depth, merge) < tolerance


def rounding(depth: int, merge: Callable[[Site], Merge]) -> float:
    """How far gradients of Reverse are off those of Store, of their norm, in float32.

    The activation is smooth: a ReLU whose input rounds to the other side of zero makes them jump.
    """
    found = []
    for memory in (Store(), Reverse()):
        torch.manual_seed(0)
        network = ResNet2d(
            (depth,),
            (8,),
            block=PreActivationBasic,
            merge=merge,
            activation=GELU,
            coupling=Reversible(),
            memory=memory,
        )
        network(torch.randn(8, 3, 8, 8)).maps[-1].square().mean().backward()
        found.append(
            torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        )
    stored, reversed_ = found
    return float((stored - reversed_).norm() / stored.norm())


def work(rank: int) -> dict[str, Tensor]:
    network = Summed()
    # The wrapper must be gone before the group: torch 2.11 joins the group's threads in the wrapper's destructor, with
    # the lock of Python held, and a thread may wait for that lock.
    step(DistributedDataParallel(network), batch()[2 * rank : 2 * rank + 2])
    return network.state_dict()


class Summed(nn.Module):
    """A reversed network with statistics over both processes, and a number for each item."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = preact_resnet20(
            norm=SynchronisedBatchNorm, merge=LIVE, coupling=Reversible(), memory=Reverse()
        )

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.network(x).maps[-1]
        return maps.square().mean((1, 2, 3))


def batch() -> Tensor:
    return torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def step(network: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        network(x).mean().backward()
        optimizer.step()


@pytest.mark.slow
def test_two_processes_of_reverse_equal_one(tmp_path: Path) -> None:
    two, _ = in_two_processes(work, tmp_path)
    alone = Summed()
    step(alone, batch())
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    # torch.compile looks at the gradient of a block's input, and warns itself that it does.
    "ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning",
)
def test_compiled_branches_reverse() -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network = ResNet2d(
            (3,),
            (8,),
            block=PreActivationBasic,
            merge=LIVE,
            coupling=Reversible(),
            memory=Reverse(),
        )
        if compiled:
            compile_blocks(network)
        torch.manual_seed(1)
        for _ in range(2):
            network(torch.randn(2, 3, 8, 8)).maps[-1].square().mean().backward()
        found.append([*(p.grad for p in network.parameters()), *network.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
