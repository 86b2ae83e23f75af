import copy

import torch
from torch import nn

from resdomains_tasks.rl_policy.updates import FusedAdam


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def learn(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    for number in range(first, first + steps):
        torch.manual_seed(number)
        optimizer.zero_grad()
        net(torch.randn(7, 3)).square().sum().backward()
        optimizer.step()


def groups(net: nn.Module) -> list[dict[str, object]]:
    weights = [p for p in net.parameters() if p.ndim > 1]
    return [
        {"params": weights, "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.ndim == 1], "lr": 1e-3},
    ]


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


def test_steps_are_those_of_torch() -> None:
    one, other = network(), network()
    mine = FusedAdam(groups(one), 1e-2, (0.8, 0.95), 1e-5)
    theirs = torch.optim.Adam(groups(other), 1e-2, (0.8, 0.95), 1e-5, fused=True)
    for first in (0, 4):
        learn(one, mine, 4, first)
        learn(other, theirs, 4, first)
        assert same(one, other)
        for optimizer in (mine, theirs):  # as a schedule does
            optimizer.param_groups[0]["lr"] = 5e-3


def test_a_state_goes_on_here_and_there() -> None:
    one, other = network(), network()
    mine, theirs = FusedAdam(one.parameters(), 1e-2), torch.optim.Adam(other.parameters(), 1e-2)
    learn(one, mine, 3)
    other.load_state_dict(one.state_dict())
    theirs.load_state_dict(copy.deepcopy(mine.state_dict()))
    third = network()
    third.load_state_dict(one.state_dict())
    loaded = FusedAdam(third.parameters(), 1e-2)
    learn(third, loaded, 2)  # it holds a state of its own by now
    third.load_state_dict(one.state_dict())
    loaded.load_state_dict(copy.deepcopy(mine.state_dict()))
    for net, optimizer in ((one, mine), (other, theirs), (third, loaded)):
        learn(net, optimizer, 3, first=3)
    assert same(one, other)
    assert same(one, third)


def test_a_parameter_without_a_gradient_stays() -> None:
    net = network()
    optimizer = FusedAdam(net.parameters(), 1e-2)
    learn(net, optimizer, 2)
    first, last = net.get_parameter("0.weight"), net.get_parameter("2.weight")
    before, changed = first.clone(), last.clone()
    optimizer.zero_grad()
    last.grad = torch.ones_like(last)
    optimizer.step()
    assert torch.equal(first, before)
    assert not torch.equal(last, changed)


def test_a_closure_is_called_with_gradients() -> None:
    net = network()
    optimizer = FusedAdam(net.parameters(), 1e-2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = net(torch.ones(1, 3)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    losses = [float(optimizer.step(closure)) for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[2]
