"""Encoders: padding changes nothing, whatever the parts; deep ones train."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    Add,
    BatchNorm,
    BranchOnly,
    ConformerNorm,
    ConvolutionModule,
    DeepNorm,
    DropPath,
    Dynamic,
    FeedForward,
    FirstTokenHead,
    GroupNorm,
    Highway,
    HyperConnection,
    LayerNorm,
    LayerScale,
    Merge,
    NoNorm,
    NoPositions,
    Norm,
    PooledHead,
    PostNorm,
    PreNorm,
    Recompute,
    RelativePositions,
    ResidualEncoder,
    Reverse,
    Reversible,
    ReZero,
    RMSNorm,
    RotaryPositions,
    SelfAttention,
    SinusoidalPositions,
    Site,
    SubsamplingStem,
    SwiGLU,
    TokenStem,
)

LENGTHS = torch.tensor([23, 5, 1, 16, 9])
LIVE = partial(Add, zero_init=False)  # branches that start at zero would hide whatever they do
KINDS: dict[str, dict[str, Any]] = {
    "bert": {"norm_position": PostNorm(), "stem": partial(TokenStem, types=2)},
    "rotary": {
        "stem": partial(TokenStem, positions=NoPositions),
        "layer": (partial(SelfAttention, heads=4, positions=RotaryPositions), SwiGLU),
    },
    "sinusoidal": {"stem": partial(TokenStem, positions=SinusoidalPositions)},
    "conformer": {
        "in_channels": 6,
        "stem": SubsamplingStem,
        "layer": (
            partial(FeedForward, scale=0.5),
            partial(SelfAttention, heads=4, positions=RelativePositions),
            partial(ConvolutionModule, kernel=5),
            partial(FeedForward, scale=0.5),
        ),
        "norm_position": ConformerNorm(),
    },
}
NORMS: dict[str, Callable[[int], Norm]] = {
    "layer": LayerNorm,
    "rms": RMSNorm,
    "group": partial(GroupNorm, channels_per_group=4),
    "batch": BatchNorm,
    "none": NoNorm,
}


def encoder(kind: str, **options: Any) -> ResidualEncoder:
    torch.manual_seed(0)
    parts: dict[str, Any] = {"in_channels": 40, "merge": LIVE} | KINDS[kind] | options
    net = ResidualEncoder(parts.pop("layers", 2), 16, **parts)
    for parameter in net.parameters():  # no weight may hide behind a start at 0 or 1
        if parameter.dim() == 1:
            nn.init.normal_(parameter, float(parameter.detach().mean()), 0.2)
    return net


def batch(kind: str) -> tuple[Tensor, Tensor]:
    """Items of different lengths; padding is rubbish, so that reading it shows."""
    torch.manual_seed(1)
    if kind == "conformer":
        lengths, x = 4 * LENGTHS - 1, torch.randn(len(LENGTHS), 6, 4 * int(LENGTHS.max()) + 3)
        rubbish = 1e4
    else:
        lengths, x = LENGTHS, torch.randint(0, 40, (len(LENGTHS), int(LENGTHS.max()) + 2))
        rubbish = -7
        if kind == "bert":
            x = torch.stack((x, x % 2), 1)
    for item, length in zip(x, lengths.tolist(), strict=True):
        item[..., length:] = rubbish
    return x, lengths


def alone(x: Tensor, lengths: Tensor, number: int) -> Tensor:
    return x[number : number + 1, ..., : int(lengths[number])]


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_alone_is_the_item_in_a_batch(kind: str, norm: Callable[[int], Norm]) -> None:
    net, (x, lengths) = encoder(kind, norm=norm), batch(kind)
    head = PooledHead(16, 3)
    net(x, lengths)  # statistics off their starting values
    net.eval()
    with torch.no_grad():
        together = net(x, lengths)
        logits = head(together)
        (maps,), (valid,) = together
        assert valid is not None
        assert valid.rows is None
        for number in range(len(lengths)):
            features = net(alone(x, lengths, number))
            size = int(valid.lengths[number])
            assert features.maps[0].shape == (1, 16, size)
            error = (features.maps[0][0] - maps[number, :, :size]).abs().max()
            assert error / features.maps[0].abs().max() < 1e-5
            assert not maps[number, :, size:].any()
            torch.testing.assert_close(head(features)[0], logits[number], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "merge",
    [
        partial(LayerScale, init=0.5),
        Highway,
        BranchOnly,
        partial(HyperConnection, weights=Dynamic, zero_init=False),
        partial(DropPath, merge=LIVE),
        DeepNorm,
    ],
)
def test_whatever_the_merge_an_item_alone_is_the_item_in_a_batch(
    merge: Callable[[Site], Merge],
) -> None:
    position = PostNorm() if merge is DeepNorm else PreNorm()
    net = encoder("bert", merge=merge, norm_position=position).eval()
    x, lengths = batch("bert")
    with torch.no_grad():
        maps = net(x, lengths).maps[0]
        for number, length in enumerate(lengths.tolist()):
            item = net(alone(x, lengths, number)).maps[0][0]
            error = (item - maps[number, :, :length]).abs().max()
            assert error / item.abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_full_lengths_change_nothing(kind: str) -> None:
    net, (x, _) = encoder(kind).double(), batch(kind)
    x = x[:1, ..., : int(LENGTHS[0])].repeat(3, *[1] * (x.dim() - 1))
    x = x.double() if x.is_floating_point() else x
    full = torch.full((3,), x.shape[-1])
    torch.testing.assert_close(net(x, full).maps[0], net(x).maps[0])


@pytest.mark.parametrize("norm", ["layer", "rms", "group", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_a_batch_are_the_sum_of_its_items(kind: str, norm: str) -> None:
    """In training; all but batch statistics, which items share."""
    parts: dict[str, Any] = {"norm": NORMS[norm]}
    if kind == "conformer":
        *rest, last = KINDS[kind]["layer"]
        quiet = partial(ConvolutionModule, kernel=5, norm=NORMS[norm])
        parts["layer"] = (rest[0], rest[1], quiet, last)
    net, (x, lengths) = encoder(kind, **parts).double(), batch(kind)
    x = x.double() if x.is_floating_point() else x
    weight = torch.randn(16, 1, dtype=torch.double)

    def gradients(outputs: list[Tensor]) -> list[Tensor]:
        total = sum(((m * weight).sin().sum() for m in outputs), torch.zeros(()))
        return list(torch.autograd.grad(total, list(net.parameters())))

    together = gradients([net(x, lengths).maps[0]])
    apart = gradients([net(alone(x, lengths, n)).maps[0] for n in range(len(lengths))])
    assert any(g.abs().max() > 1e-3 for g in together)
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_items_have_no_order(kind: str, norm: str) -> None:
    net, (x, lengths) = encoder(kind, norm=NORMS[norm]).double(), batch(kind)
    x = x.double() if x.is_floating_point() else x
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(
        net(x, lengths).maps[0][order], net(x[order], lengths[order]).maps[0]
    )


def test_padding_gets_no_gradient() -> None:
    net, (x, lengths) = encoder("conformer"), batch("conformer")
    x.requires_grad_()
    net(x, lengths).maps[0].sin().sum().backward()
    assert x.grad is not None
    for gradient, length in zip(x.grad, lengths.tolist(), strict=True):
        assert not gradient[:, length:].any()
        assert gradient[:, :length].any()


@pytest.mark.parametrize(
    "merge",
    [LIVE, ReZero, LayerScale, Highway, BranchOnly, partial(DropPath, p=0.2)],
)
@pytest.mark.parametrize("position", [PreNorm(), PostNorm()])
def test_merges_train(merge: Callable[[Site], Merge], position: PreNorm | PostNorm) -> None:
    _learns(merge, position)


def test_deep_norm_trains_after_the_sum_and_hyper_connections_before() -> None:
    _learns(DeepNorm, PostNorm())
    _learns(HyperConnection, PreNorm())


def _learns(merge: Callable[[Site], Merge], position: PreNorm | PostNorm) -> None:
    """Tells whether the first token comes again."""
    net = encoder("bert", merge=merge, norm_position=position)
    x, lengths = batch("bert")
    head = FirstTokenHead(16, 5)
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 3e-3)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(head(net(x, lengths)), torch.arange(5))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert min(losses) < 0.6 * losses[0]
    assert all(p.grad is not None for p in net.parameters())


def test_deep_norm_without_a_norm_after_the_sum_is_refused() -> None:
    for position in (PreNorm(), ConformerNorm()):
        with pytest.raises(
            ValueError, match=r"DeepNorm needs a norm after the sum.*norm_position=PostNorm"
        ):
            encoder("bert", merge=DeepNorm, norm_position=position)


def test_deep_norm_leaves_queries_and_keys_as_they_are() -> None:
    torch.manual_seed(0)
    plain = ResidualEncoder(2, 16, 40, merge=LIVE, norm_position=PostNorm()).state_dict()
    torch.manual_seed(0)
    deep = ResidualEncoder(2, 16, 40, merge=DeepNorm, norm_position=PostNorm()).state_dict()
    gain = (8 * 2) ** -0.25  # Wang et al. 2022, encoder only, N = 2
    for key, value in plain.items():
        if "branch.qkv.weight" in key:
            torch.testing.assert_close(deep[key][:32], value[:32])
            torch.testing.assert_close(deep[key][32:], value[32:] * gain)
        elif "branch" in key and "weight" in key:
            torch.testing.assert_close(deep[key], value * gain)
        else:
            assert torch.equal(deep[key], value)


def test_stochastic_depth_drops_whole_items_of_packed_rows() -> None:
    net = encoder(
        "bert",
        layers=1,
        layer=(FeedForward,),
        norm_position=PreNorm(),
        norm=NoNorm,
        merge=partial(DropPath, p=0.5, merge=LIVE, linear=False),
    )
    x, lengths = batch("bert")
    kept = set()
    for _ in range(8):
        pairs: list[tuple[Tensor, Tensor]] = []
        hook = net.stack.register_forward_hook(
            lambda _, inputs, y, pairs=pairs: pairs.append((inputs[0], y))
        )
        net(x, lengths)
        hook.remove()
        ((before, after),) = pairs
        moved = torch.split((after - before).abs().sum(1) > 0, lengths.tolist())
        assert all(item.all() or not item.any() for item in moved)
        kept |= {bool(item[0]) for item in moved}
    assert kept == {True, False}


def test_padding_costs_nothing_outside_attention() -> None:
    """What blocks see are the valid positions, one row each."""
    net, (x, lengths) = encoder("bert"), batch("bert")
    shapes = set()
    for _, block in net.blocks():
        block.register_forward_hook(lambda _, inputs, y: shapes.add((inputs[0].shape, y.shape)))
    net(x, lengths)
    rows = torch.Size([int(lengths.sum()), 16])
    assert shapes == {(rows, rows)}


@pytest.mark.parametrize("kind", ["bert", "conformer"])
def test_memories_agree(kind: str) -> None:
    """Dropout is replayed and rows stay packed, whatever is kept."""
    layer = (
        partial(SelfAttention, heads=4, dropout=0.2, attention_dropout=0.2),
        partial(FeedForward, dropout=0.2),
    )
    options: dict[str, Any] = {"layer": layer, "norm_position": PreNorm()}
    x, lengths = batch(kind)
    x = x.double() if x.is_floating_point() else x
    found = []
    for memory, coupling in (
        (None, None),
        (Recompute(2), None),
        (None, Reversible()),
        (Reverse(), Reversible()),
    ):
        net = encoder(kind, memory=memory, coupling=coupling, **options).double()
        torch.manual_seed(2)
        net(x, lengths).maps[0].sin().sum().backward()
        found.append([p.grad for p in net.parameters()])
    for one, two in ((0, 1), (2, 3)):
        for a, b in zip(found[one], found[two], strict=True):
            assert a is not None
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_agrees_roughly(kind: str) -> None:
    net, (x, lengths) = encoder(kind).eval(), batch(kind)
    with torch.no_grad():
        exact = net(x, lengths).maps[0]
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x, lengths).maps[0].float()
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


def test_what_the_network_states() -> None:
    net = encoder("conformer", layers=3)
    assert (net.in_channels, net.out_channels, net.stride, net.depth) == (6, (16,), (4,), 3)
    names = [name for name, _ in net.blocks()]
    assert names == [f"stack.blocks.{n}" for n in range(12)]
    assert encoder("bert").stride == (1,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, "layers: expected at least 1, got 0"),
        ({"width": 0}, "width: expected at least 1, got 0"),
        ({"in_channels": 0}, "in_channels: expected at least 1, got 0"),
        ({"layer": ()}, "layer: expected at least one factory of branches"),
        ({"width": 12}, "heads: expected a divisor of the width 12, got 8"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualEncoder(**({"layers": 1, "width": 16, "in_channels": 40} | arguments))


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([9, 3], ValueError, "lengths: expected values from 1 to 8"),
        ([0, 3], ValueError, "got values from 0 to 3"),
        ([8, 3, 2], ValueError, r"lengths: expected 2 values \(axis B"),
        ([0.5, 1.0], TypeError, "expected integers"),
    ],
)
def test_wrong_lengths_are_named(
    lengths: list[float], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encoder("bert")(torch.zeros(2, 8, dtype=torch.long), torch.tensor(lengths))


def test_a_thousand_layers_of_deep_norm_train() -> None:
    """2000 sums; at the start, gradients of the first layer are as large as those of the last."""
    torch.manual_seed(0)
    net = ResidualEncoder(1000, 16, 40, norm_position=PostNorm(), merge=DeepNorm, norm=LayerNorm)
    head = PooledHead(16, 3)
    x, lengths = torch.randint(0, 40, (4, 8)), torch.tensor([8, 3, 5, 8])
    optimizer = torch.optim.Adam([*net.parameters(), *head.parameters()], 1e-4)
    loss = nn.functional.cross_entropy(head(net(x, lengths)), torch.tensor([0, 1, 2, 0]))
    assert loss.isfinite()
    loss.backward()  # type: ignore[no-untyped-call]
    norms = [
        torch.stack([p.grad.norm() for p in block.branch.parameters() if p.grad is not None]).norm()
        for _, block in net.blocks()
    ]
    assert len(norms) == 2000
    assert all(n.isfinite() for n in norms)
    ratio = float(torch.stack(norms[:20]).mean() / torch.stack(norms[-20:]).mean())
    assert 0.1 < ratio < 10
    optimizer.step()
    with torch.no_grad():
        assert head(net(x, lengths)).isfinite().all()
