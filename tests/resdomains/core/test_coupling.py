"""What two coupled streams compute."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    Add,
    Bare,
    BareProjection,
    BranchOnly,
    Chain,
    DropPath,
    Highway,
    HyperConnection,
    LayerScale,
    Merge,
    Place,
    PreActivationBasic,
    Residual,
    ResNet2d,
    Reversible,
    Site,
    Stack,
    Valid,
    plain20,
    resnet20,
)
from resdomains.core.activations import ReLU
from resdomains.core.masks import packed
from resdomains.core.norms import BatchNorm
from resdomains.core.shortcuts import ConstantScaling

LIVE = partial(Add, zero_init=False)


class Mean(nn.Module):
    """A branch that reads all positions of an item."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


def block(merge: Merge | None = None, width: int = 6) -> Residual:
    return Residual(nn.Linear(width, width), Bare(), merge or Add(Site(width, -1)))


@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 6)])
def test_two_streams_take_turns(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    blocks = [block() for _ in range(3)]
    x = torch.randn(shape)
    a, c = x.double().numpy(), x.double().numpy()
    for one in blocks:
        linear = one.branch.get_submodule("module")
        weight = linear.get_parameter("weight").detach().double().numpy()
        bias = linear.get_parameter("bias").detach().double().numpy()
        a, c = c, a + c @ weight.T + bias
    torch.testing.assert_close(Stack(blocks, Reversible())(x).double(), torch.from_numpy(a + c) / 2)


def test_no_blocks_return_their_input() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(Stack([], Reversible())(x), x)


def test_what_goes_in_follows_from_what_comes_out() -> None:
    torch.manual_seed(0)
    coupling = Reversible()
    for merge in (LIVE, partial(LayerScale, init=0.1), partial(DropPath, p=0.5, merge=LIVE)):
        one = block(merge(Site(6, -1)))
        streams = torch.randn(2, 5, 6).unbind()
        state = torch.get_rng_state()
        with torch.no_grad():
            left = coupling.step(one, streams, None)
        torch.set_rng_state(state)
        entered, again = coupling.unstep(one, left, None)
        for got, expected in zip((*entered, *again), (*streams, *left), strict=True):
            torch.testing.assert_close(got, expected)


def test_streams_are_float32_where_autocast_makes_branches_bfloat16() -> None:
    net = ResNet2d((3,), (8,), block=PreActivationBasic, coupling=Reversible())
    seen: dict[str, set[torch.dtype]] = {"branch": set(), "merge": set()}
    for _, one in net.blocks():
        for name, dtypes in seen.items():
            one.get_submodule(name).register_forward_hook(
                lambda *args, dtypes=dtypes: dtypes.add(args[-1].dtype)
            )
    with torch.autocast("cpu", torch.bfloat16):
        assert net.stem(torch.randn(2, 3, 8, 8)).dtype == torch.bfloat16
        net(torch.randn(2, 3, 8, 8))
    assert seen == {"branch": {torch.bfloat16}, "merge": {torch.float32}}


def test_padding_and_packing_do_not_matter() -> None:
    torch.manual_seed(0)
    stack = Stack([block(DropPath(Site(6, -1), 0.5, linear=False)) for _ in range(3)], Reversible())
    x, valid = torch.randn(2, 4, 6), Valid.of(torch.tensor([4, 2]), 4)
    rows = packed(valid)
    assert rows is not None
    assert rows.rows is not None
    outputs = []
    for given, about in ((x, valid), (x.flatten(0, 1)[rows.rows], rows)):
        torch.manual_seed(1)
        outputs.append(stack(given, about))
    torch.testing.assert_close(outputs[0].flatten(0, 1)[rows.rows], outputs[1])


def test_merges_that_cannot_be_coupled_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reads the shortcut, but merge=BranchOnly ignores it"):
        resnet20(merge=BranchOnly, coupling=Reversible())
    with pytest.raises(ValueError, match=r"merge=BranchOnly ignores it.*use Add.*coupling=Plain"):
        plain20(coupling=Reversible())
    with pytest.raises(ValueError, match=r"merge=HyperConnection has streams=4; use Add"):
        resnet20(merge=HyperConnection, coupling=Reversible())
    resnet20(merge=Highway, coupling=Reversible())


@pytest.mark.parametrize("shortcut", [ConstantScaling, BareProjection])
def test_shortcuts_that_change_a_stream_are_refused(shortcut: type[BareProjection]) -> None:
    place = Place(6, 6, BatchNorm, ReLU)
    one = Residual(Chain(), shortcut(place), Add(Site(6)))
    with pytest.raises(ValueError, match=f"are the identity, got {shortcut.__name__}; use"):
        Stack([one], Reversible())


def test_blocks_of_a_plain_stack_must_agree_on_their_streams() -> None:
    with pytest.raises(ValueError, match=r"equally many streams, got merges of \[1, 2\]"):
        Stack([block(), block(HyperConnection(Site(6, -1), streams=2))])
