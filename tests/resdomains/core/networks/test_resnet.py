from functools import partial

import pytest
import torch
from torch import nn

from resdomains.core import (
    ActivatedTail,
    Add,
    BareProjection,
    Basic,
    Bottleneck,
    BranchOnly,
    ConvPoolEntry,
    ConvPoolStem,
    Entry,
    GroupNorm,
    Identity,
    LayerNorm,
    Merge,
    NoNorm,
    NormActivated,
    Place,
    PoolEntry,
    PreActivationBasic,
    Projection,
    ReLU,
    Residual,
    ResNet1d,
    ResNet2d,
    SeparableTail,
    ZeroPad,
    resnet1d20,
    resnet20,
    resnet50,
)


def test_maps_are_what_the_network_states() -> None:
    net = ResNet2d((1, 2, 1), (8, 16, 32), strides=(1, 2, 3), in_channels=2)
    maps = net(torch.randn(2, 2, 36, 36)).maps
    assert tuple(m.shape[1] for m in maps) == net.out_channels == (8, 16, 32)
    assert tuple(36 // m.shape[2] for m in maps) == net.stride == (1, 2, 6)


def test_one_dimension_is_two_at_height_one() -> None:
    torch.manual_seed(0)
    live = partial(Add, zero_init=False)
    line = resnet1d20(in_channels=4, merge=live).eval()
    plane = resnet20(in_channels=4, merge=live).eval()
    state = plane.state_dict()
    for key, value in line.state_dict().items():
        # A plane one high sees zeros above and below: its kernels' middle rows are the line's.
        if value.dim() == 4:
            state[key] = torch.zeros_like(state[key])
            state[key][:, :, state[key].shape[2] // 2] = value[:, :, 0]
        else:
            state[key] = value
    plane.load_state_dict(state)
    x = torch.randn(2, 4, 50)
    for a, b in zip(line(x).maps, plane(x.unsqueeze(2)).maps, strict=True):
        torch.testing.assert_close(a, b.squeeze(2))


def test_blocks_come_in_order() -> None:
    net = resnet20()
    names = [name for name, _ in net.blocks()]
    assert names[2:5] == [
        "stages.0.stack.blocks.2",
        "stages.1.transition.0",
        "stages.1.stack.blocks.0",
    ]
    seen: list[Residual] = []
    for _, block in net.blocks():
        block.register_forward_hook(lambda module, *_: seen.append(module))
    net(torch.randn(1, 3, 8, 8))
    assert seen == [block for _, block in net.blocks()]
    assert [(b.merge, b.branch, b.shortcut) for b in seen]


def test_pre_activation_stages_end_normalised_and_activated() -> None:
    net = ResNet2d((1, 1), (8, 16), block=PreActivationBasic)
    assert all(isinstance(stage.finish, NormActivated) for stage in net.stages)
    assert all((m >= 0).all() for m in net(torch.randn(2, 3, 8, 8)).maps)
    first, later = (b for _, b in ResNet2d((2,), (8,), block=PreActivationBasic).blocks())
    assert not hasattr(first.branch, "norm1")
    assert hasattr(later.branch, "norm1")


def test_convolutions_have_a_bias_only_without_norm() -> None:
    biased = {m.bias is not None for m in resnet20().modules() if isinstance(m, nn.Conv2d)}
    assert biased == {False}
    bare = resnet20(norm=NoNorm)
    assert {m.bias is not None for m in bare.modules() if isinstance(m, nn.Conv2d)} == {True}


@pytest.mark.parametrize("norm", [GroupNorm, LayerNorm, NoNorm])
def test_other_norms_train(norm: type[GroupNorm]) -> None:
    net = resnet20(norm=norm)
    net(torch.randn(2, 3, 8, 8)).maps[-1].square().mean().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


def test_all_parameters_get_gradients() -> None:
    """What DistributedDataParallel demands."""
    for net in (resnet50(), ResNet2d((1, 1), (8, 16), block=PreActivationBasic)):
        net(torch.randn(2, 3, 64, 64)).maps[-1].sum().backward()
        assert not [name for name, p in net.named_parameters() if p.grad is None]


def test_stages_may_differ_in_their_blocks() -> None:
    kernels = (3, 5, 7)
    net = ResNet1d((1, 2, 1), (8, 16, 16), block=[partial(Basic, kernel=k) for k in kernels])
    found = [b.branch.get_parameter("conv2.weight").shape[3] for _, b in net.blocks()]
    assert found == [3, 5, 5, 7]


@pytest.mark.parametrize(
    ("entry", "parts", "changed", "depth"),
    [
        # The pool strides, the first block widens: no transition where the width stays.
        (PoolEntry, ["MaxPool"], [0, 1, 0], 10),
        (ConvPoolEntry, ["Conv", "BatchNorm", "MaxPool"], [0, 0, 0], 12),
    ],
)
def test_an_entry_leads_the_stages_that_change_the_shape(
    entry: type[PoolEntry], parts: list[str], changed: list[int], depth: int
) -> None:
    net = ResNet2d((1, 2, 1), (8, 16, 16), strides=(1, 2, 4), entry=entry)
    maps = net(torch.randn(2, 3, 32, 32)).maps
    assert tuple(32 // m.shape[2] for m in maps) == net.stride == (1, 2, 8)
    assert tuple(m.shape[1] for m in maps) == net.out_channels == (8, 16, 16)
    assert net.depth == depth
    entries = [
        [type(part).__name__ for part in stage.get_submodule("entry").children()]
        for stage in net.stages
    ]
    assert entries == [[], parts, parts]
    transitions = [len(list(stage.get_submodule("transition").children())) for stage in net.stages]
    assert transitions == changed


class StrideThree(Entry):
    def __init__(self, place: Place) -> None:
        super().__init__(place.in_channels, 3)


def test_a_tail_makes_the_deepest_map() -> None:
    tail = partial(SeparableTail, channels=24, kernel=5)
    net = ResNet1d((1, 1), (8, 16), tail=tail)
    assert net.out_channels == (8, 24)
    assert net.depth == ResNet1d((1, 1), (8, 16)).depth + 2
    x = torch.randn(2, 3, 20)
    maps = net(x).maps
    assert [m.shape[1:] for m in maps] == [(8, 20), (24, 10)]
    assert len(ResNet1d((1, 1), (8, 16))(x).maps) == len(maps)


def test_a_tail_leaves_what_gradients_need() -> None:
    """The last stage ends with an activation, whose gradient reads what it returned."""
    net = ResNet2d((1,), (8,), block=PreActivationBasic, tail=ActivatedTail)
    net(torch.randn(2, 3, 8, 8)).maps[-1].sum().backward()


def test_inner_shortcuts_stand_where_the_shape_stays() -> None:
    net = ResNet2d((2, 2), (8, 16), shortcut=ZeroPad, inner_shortcut=BareProjection)
    kinds = [type(block.shortcut) for _, block in net.blocks()]
    assert kinds == [BareProjection, BareProjection, ZeroPad, BareProjection]
    kinds = [type(block.shortcut) for _, block in ResNet2d((2, 2), (8, 16)).blocks()]
    assert kinds == [Identity, Identity, Projection, Identity]


def test_a_plain_network_builds_no_inner_shortcut() -> None:
    """Its weights would never get a gradient."""
    net = ResNet2d((2, 2), (8, 16), inner_shortcut=Projection, merge=BranchOnly)
    assert {type(block.shortcut) for _, block in net.blocks()} == {Identity}


@pytest.mark.parametrize("options", [{"stem": ConvPoolStem}, {"entry": ConvPoolEntry}])
def test_pre_activation_leads_where_nothing_activated_before(options: dict[str, object]) -> None:
    net = ResNet2d((1, 1), (8, 16), block=PreActivationBasic, **options)  # type: ignore[arg-type]
    leads = [hasattr(block.branch, "norm1") for _, block in net.blocks()]
    assert leads == ["stem" in options, "entry" in options]


class Wrong(Merge):
    def __init__(self, site: object) -> None:
        super().__init__()


def test_unfinished_merge_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="Wrong must define forward"):
        resnet20(merge=Wrong)(torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ()}, "layers: expected one number of blocks per stage"),
        ({"layers": (1, 0, 1)}, "layers: expected values of at least 1"),
        ({"channels": (8, 16)}, r"channels: expected 3 values, one per stage as in layers=\[3, 3"),
        ({"strides": (1, 2, 0)}, "strides: expected values of at least 1"),
        ({"dilations": (1,)}, "dilations: expected 3 values"),
        ({"in_channels": 0}, "in_channels: expected at least 1, got 0"),
        ({"stem_channels": 0}, "stem_channels: expected at least 1, got 0"),
        ({"channels": (18, 36, 72), "norm": GroupNorm}, "does not divide 18 channels.*such as 18"),
        ({"channels": (32, 16, 8), "shortcut": ZeroPad}, "maps 32 to 16 channels; use Projection"),
        ({"block": [Basic, Basic]}, r"block: expected one factory, or 3, one per stage.*got 2"),
        ({"entry": StrideThree}, r"entry=StrideThree has stride 3, which does not divide the 2"),
        ({"block": partial(Bottleneck, width_per_group=3)}, "must be a whole number, got 16"),
        ({"block": partial(PreActivationBasic, kernel=4)}, "kernel: expected an odd number"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNet2d(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (ResNet2d((1,), (4,)), (2, 1, 8, 8), r"x: expected 3 channels on axis 1 .*got 1"),
        (ResNet2d((1,), (4,)), (3, 8, 8), r"x: expected 4 axes \(B, C, H, W\), got \(3, 8, 8\)"),
        (ResNet1d((1,), (4,)), (2, 3, 1, 8), r"x: expected 3 axes \(B, C, L\)"),
    ],
)
def test_wrong_input_is_named(
    net: ResNet2d | ResNet1d, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        net(torch.randn(shape))


def test_activations_may_overwrite_where_nobody_reads() -> None:
    relu = ReLU()
    x = torch.tensor([-1.0])
    assert relu(x) is x
    assert x == 0
