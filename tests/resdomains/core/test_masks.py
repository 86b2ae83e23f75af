"""Variable length: an item alone is the item in a batch."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import resdomains.core as core
from resdomains.core import (
    ActivationFirst,
    Add,
    AveragePool,
    BatchNorm,
    Bottleneck,
    Chain,
    CharacterStem,
    Conv,
    ConvPoolEntry,
    ConvPoolStem,
    DeepNorm,
    GroupNorm,
    Highway,
    ImageNetStem,
    LayerNorm,
    MaxPool,
    NoNorm,
    Norm,
    NormActivated,
    Part,
    Place,
    PooledHead,
    PooledProjection,
    PoolEntry,
    PoolFirstStem,
    PreActivationBasic,
    Projection,
    ReLU,
    Residual,
    ResNet1d,
    RMSNorm,
    Separable,
    SeparableStem,
    SeparableTail,
    SingleSeparableTail,
    SmallImageStem,
    SpectrogramStem,
    SqueezeExcitation,
    Stack,
    Stage,
    Stem,
    SynchronisedBatchNorm,
    Valid,
    WaveformStem,
    ZeroPad,
)
from resdomains.core.masks import hide
from resdomains.core.named import images, signals

TAIL = partial(SeparableTail, channels=32, kernel=9)
LENGTHS = [203, 150, 97, 64, 33, 21]
NETS = {
    "basic": {},
    "zero pad": {"shortcut": ZeroPad, "merge": Highway},
    "group": {"norm": partial(GroupNorm, channels_per_group=4), "stem": ImageNetStem},
    "post-norm": {
        "norm": partial(GroupNorm, channels_per_group=4),
        "after": NormActivated,
        "merge": DeepNorm,
    },
    "pool first": {"stem": PoolFirstStem},
    "layer": {"norm": LayerNorm, "block": PreActivationBasic},
    "none": {"norm": NoNorm},
    "dilated": {"dilations": [1, 2, 3], "shortcut": PooledProjection},
    "squeeze": {"block": partial(Bottleneck, attention=SqueezeExcitation), "stem": WaveformStem},
    "separable": {"block": partial(Separable, kernel=11, repeats=3), "stem": SpectrogramStem},
    "rms": {"norm": RMSNorm, "block": ActivationFirst, "stem": ConvPoolStem},
    "synchronised": {"norm": SynchronisedBatchNorm, "entry": PoolEntry},
    "led": {"entry": ConvPoolEntry, "inner_shortcut": Projection, "tail": TAIL},
}
LINES = [
    name
    for module in (images, signals)
    for name, value in vars(module).items()
    if inspect.isfunction(value)
    and value.__module__ == module.__name__
    and value.__annotations__["return"] == "ResNet1d"
]


def alike(got: torch.Tensor, expected: torch.Tensor, least: float = 0.0) -> bool:
    """Whether the largest difference is below 1e-5 of the largest value, or of ``least``."""
    largest = max(float(expected.detach().abs().max()), least)
    return got.shape == expected.shape and bool((got - expected).abs().max() <= 1e-5 * largest)


def network(layers: tuple[int, ...], options: dict[str, object]) -> ResNet1d:
    """Branches that start at zero would hide whatever they do."""
    options = {"merge": partial(Add, zero_init=False)} | options
    return ResNet1d(layers, (16, 32, 32), **options)  # type: ignore[arg-type]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(len(LENGTHS), 3, max(LENGTHS))
    for item, length in zip(x, LENGTHS, strict=True):
        item[:, length:] = 1e4  # rubbish, so that reading it shows
    return x, torch.tensor(LENGTHS)


@pytest.mark.parametrize("options", NETS.values(), ids=NETS.keys())
def test_an_item_alone_is_the_item_in_a_batch(options: dict[str, object]) -> None:
    x, lengths = batch()
    net = network((2, 2, 2), options)
    head = PooledHead(32, 5)
    net(x, lengths)  # statistics off their starting values
    net.eval(), head.eval()
    with torch.no_grad():
        together = net(x, lengths)
        logits = head(together)
        for number, length in enumerate(LENGTHS):
            alone = net(x[number : number + 1, :, :length])
            torch.testing.assert_close(head(alone)[0], logits[number], rtol=1e-4, atol=1e-5)
            for a, b, valid in zip(alone.maps, together.maps, together.valid, strict=True):
                assert valid is not None
                assert alike(b[number, :, : int(valid.lengths[number])], a[0])


@pytest.mark.parametrize("name", LINES)
def test_an_item_alone_is_the_item_in_a_batch_for_every_name(name: str) -> None:
    torch.manual_seed(0)
    live = {} if "plain" in name else {"merge": partial(Add, zero_init=False)}
    net: ResNet1d = getattr(core, name)(in_channels=8, **live)
    sizes = [70, 41]
    text = isinstance(net.stem, CharacterStem)
    x = torch.randint(0, 8, (2, 70)) if text else torch.randn(2, 8, 70)
    x[1, ..., 41:] = 7 if text else 1e4
    with torch.no_grad():
        net(x, torch.tensor(sizes))  # statistics off their starting values
        together = net.eval()(x, torch.tensor(sizes))
        alone = net(x[1:, ..., :41])
    for a, b, valid in zip(alone.maps, together.maps, together.valid, strict=True):
        assert valid is not None
        assert a.abs().max() > 0
        assert alike(b[1, :, : int(valid.lengths[1])], a[0])


def by_items(module: nn.Module, items: list[torch.Tensor]) -> list[torch.Tensor]:
    """What a network computes of items ``(1, C, 1, L)`` without padding, with torch's functions.

    Each item by itself, but for batch norms, which see all positions of all items and no others.
    """
    if isinstance(module, Residual):
        branch, shortcut = by_items(module.branch, items), by_items(module.shortcut, items)
        return by_items(module.after, [s + b for s, b in zip(shortcut, branch, strict=True)])
    if isinstance(module, ResNet1d | Stage | Stack | Chain | nn.ModuleList):
        for part in module.children():
            items = by_items(part, items)
        return items
    if isinstance(module, nn.Embedding):
        return [F.embedding(x[:, 0, 0], module.weight).mT.unsqueeze(2) for x in items]
    if isinstance(module, Conv):
        return [nn.Conv2d.forward(module, x) for x in items]
    if isinstance(module, MaxPool):
        return [F.max_pool2d(x, module.kernel, module.stride, module.padding) for x in items]
    if isinstance(module, ReLU):
        return [x.relu() for x in items]
    if isinstance(module, BatchNorm):
        sizes = torch.tensor([x.shape[3] for x in items])
        running = (module.running_mean, module.running_var, module.weight, module.bias)
        together = F.batch_norm(torch.cat(items, 3), *running, True, module.momentum, module.eps)
        return list(together.tensor_split(sizes.cumsum(0)[:-1], 3))
    if isinstance(module, GroupNorm):
        affine = (module.weight, module.bias, module.eps)
        return [F.group_norm(x, module.groups, *affine) for x in items]
    if isinstance(module, LayerNorm | RMSNorm):
        moved = [x.movedim(1, 3) for x in items]
        if isinstance(module, LayerNorm):
            moved = [x - x.mean(3, keepdim=True) for x in moved]
        scaled = [x * (x.square().mean(3, keepdim=True) + module.eps).rsqrt() for x in moved]
        bias = torch.zeros(()) if module.bias is None else module.bias
        return [(x * module.weight + bias).movedim(3, 1) for x in scaled]
    if isinstance(module, SqueezeExcitation):
        gates = [module.excite(module.squeeze(x.mean((2, 3))).relu()).sigmoid() for x in items]
        return [x * gate[:, :, None, None] for x, gate in zip(items, gates, strict=True)]
    assert isinstance(module, NoNorm), f"{type(module).__name__} is not known here"
    return items


TRAINED: dict[str, dict[str, object]] = {
    "batch": {},
    "synchronised": {"norm": SynchronisedBatchNorm},
    "group": {"norm": partial(GroupNorm, channels_per_group=4)},
    "layer": {"norm": LayerNorm},
    "rms": {"norm": RMSNorm},
    "none": {"norm": NoNorm},
    "bottleneck": {"block": Bottleneck, "stem": ImageNetStem},
    "pre-activation": {"block": PreActivationBasic, "dilations": (1, 2)},
    "speech": {
        "stem": partial(SeparableStem, kernel=5),
        "block": [partial(Separable, kernel=k) for k in (5, 7)],
        "inner_shortcut": Projection,
        "tail": partial(SeparableTail, channels=12, kernel=7),
    },
    "excited": {
        "stem": partial(SeparableStem, kernel=5, attention=SqueezeExcitation),
        "block": partial(Separable, attention=SqueezeExcitation),
        "inner_shortcut": Projection,
        "tail": partial(SingleSeparableTail, channels=12, kernel=7, attention=SqueezeExcitation),
    },
    "text": {"stem": CharacterStem, "entry": PoolEntry},
    "control": {"stem": ConvPoolStem, "entry": ConvPoolEntry, "block": ActivationFirst},
}


@pytest.mark.parametrize("options", TRAINED.values(), ids=TRAINED.keys())
def test_training_on_a_padded_batch_is_training_on_its_items(options: dict[str, object]) -> None:
    """The same output, gradients and statistics."""
    torch.manual_seed(0)
    sizes = [50, 31, 8]
    parts = {"merge": partial(Add, zero_init=False)} | options
    padded = ResNet1d((2, 1), (8, 16), in_channels=5, **parts).double()  # type: ignore[arg-type]
    items = deepcopy(padded)
    x = torch.randn(3, 5, 50, dtype=torch.double)
    if isinstance(padded.stem, CharacterStem):
        x = torch.randint(0, 5, (3, 50))
    expected = by_items(
        items, [padded.stem.read(x[i : i + 1, ..., :n].clone()) for i, n in enumerate(sizes)]
    )
    for item, size in zip(x, sizes, strict=True):
        item[..., size:] = 4 if isinstance(padded.stem, CharacterStem) else 1e4
    features = padded(x, torch.tensor(sizes))
    assert features.valid[-1] is not None
    lengths = features.valid[-1].lengths.tolist()
    got = [y[:, None, :n] for y, n in zip(features.maps[-1], lengths, strict=True)]
    for a, b in zip(got, expected, strict=True):
        assert alike(a, b[0])
    for outputs in (got, expected):
        # Weighed, since the sum of what a norm returns has no gradient.
        sum((y * torch.linspace(-1, 2, y.numel()).view_as(y)).sum() for y in outputs).backward()  # type: ignore[union-attr]
    for (name, ours), theirs in zip(padded.named_parameters(), items.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        # Of a bias before a norm the gradient is zero but for rounding.
        assert alike(ours.grad, theirs.grad, least=1e-3), name
    for (name, ours_), theirs_ in zip(padded.named_buffers(), items.buffers(), strict=True):
        if "running" in name:
            assert alike(ours_, theirs_), name
            assert not torch.equal(theirs_, torch.ones_like(theirs_))


@pytest.mark.parametrize("options", NETS.values(), ids=NETS.keys())
def test_full_lengths_change_nothing(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = network((1, 1, 1), options).double()
    x = torch.randn(3, 3, 80, dtype=torch.double)
    with_lengths = net(x, torch.tensor([80, 80, 80])).maps[-1]
    torch.testing.assert_close(with_lengths, net(x).maps[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", [BatchNorm, SynchronisedBatchNorm])
def test_batch_statistics_count_valid_positions_only(norm: type[BatchNorm]) -> None:
    x, lengths = batch()
    ours, theirs = norm(3), torch.nn.BatchNorm1d(3)
    got = ours(x.unsqueeze(2), Valid.of(lengths, x.shape[2])).squeeze(2)
    flat = torch.cat([item[:, :n] for item, n in zip(x, LENGTHS, strict=True)], 1)
    expected = theirs(flat.unsqueeze(0))[0]
    ours_flat = torch.cat([item[:, :n] for item, n in zip(got, LENGTHS, strict=True)], 1)
    torch.testing.assert_close(ours_flat, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.num_batches_tracked == 1


def test_group_statistics_count_valid_positions_only() -> None:
    x, lengths = batch()
    x = x.repeat(1, 2, 1).unsqueeze(2)
    norm: Norm = GroupNorm(6, channels_per_group=3)
    got = norm(x, Valid.of(lengths, x.shape[3]))
    for number, n in enumerate(LENGTHS):
        expected = F.group_norm(x[number : number + 1, :, :, :n], 2)
        torch.testing.assert_close(
            got[number : number + 1, :, :, :n], expected, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("stem", [SmallImageStem, ImageNetStem, WaveformStem, SpectrogramStem])
def test_lengths_follow_the_map(stem: Callable[[Place], Stem]) -> None:
    part = stem(Place(1, 4, BatchNorm, ReLU, dims=1))
    for size in range(5, 120, 3):
        valid = part.advance(Valid.of(torch.tensor([size]), size))
        assert valid is not None
        y = part.eval()(torch.randn(1, 1, 1, size))
        assert int(valid.lengths) == valid.mask.shape[1] == y.shape[3]


def made(part: type[Part] | partial[Part], stride: int) -> Part:
    """A shortcut, at its place."""
    return part(Place(4, 6, BatchNorm, ReLU, stride=stride, dims=1))


@pytest.mark.parametrize(
    "part",
    [
        *(
            Conv(4, 6, kernel, dims=1, stride=stride, dilation=dilation)
            for kernel in (1, 3, 5)
            for stride in (1, 2, 3, 4)
            for dilation in (1, 2, 3)
        ),
        *(MaxPool(1, kernel, stride) for kernel, stride in [(3, 2), (3, 3), (5, 2), (5, 4)]),
        *(AveragePool(1, stride) for stride in (2, 3, 5)),
        *(made(part, stride) for part in (ZeroPad, Projection) for stride in (1, 2, 3)),
        made(PooledProjection, 3),
    ],
    ids=repr,
)
def test_stride_and_dilation_change_a_length_as_they_change_a_tensor(part: Part) -> None:
    part.eval()
    sizes = torch.arange(1, 30)
    found = part.advance(Valid.of(sizes, 29))
    assert found is not None
    alone = [part(torch.randn(1, 4, 1, size)).shape[3] for size in sizes.tolist()]
    assert found.lengths.tolist() == alone
    assert found.mask.shape[1] == alone[-1]


def test_a_maximum_of_negative_values_is_not_the_zero_of_padding() -> None:
    x = torch.full((1, 2, 1, 8), -1.0)
    pooled = MaxPool(dims=1)(x, Valid.of(torch.tensor([5]), 8))
    assert torch.equal(pooled[..., :3], torch.full((1, 2, 1, 3), -1.0))


def test_gradients_of_padding_are_zero() -> None:
    x, lengths = batch()
    x.requires_grad_()
    net = ResNet1d((1, 1), (16, 16))
    PooledHead(16, 2)(net(x, lengths)).square().sum().backward()
    assert x.grad is not None
    for gradient, length in zip(x.grad, LENGTHS, strict=True):
        assert not gradient[:, length:].any()
        assert gradient[:, :length].any()


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.tensor([9, 3]), ValueError, "lengths: expected values from 1 to 8"),
        (torch.tensor([0, 3]), ValueError, "got values from 0 to 3"),
        (torch.tensor([[8, 3]]), ValueError, r"expected shape \(B,\)"),
        (torch.tensor([8, 3, 2]), ValueError, r"lengths: expected 2 values \(axis B"),
        (torch.tensor([0.5, 1.0]), TypeError, "expected integers"),
    ],
)
def test_wrong_lengths_are_named(
    lengths: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ResNet1d((1,), (4,))(torch.randn(2, 3, 8), lengths)
    with pytest.raises(error, match=message):
        ResNet1d((1,), (4,), stem=CharacterStem)(torch.zeros(2, 8, dtype=torch.long), lengths)


@pytest.mark.parametrize("length", [1, 2, 5, 17])
def test_an_item_shorter_than_a_window_is_the_item_in_a_batch(length: int) -> None:
    net = ResNet1d((1,), (8,), in_channels=1, stem=WaveformStem).eval()
    x = torch.randn(2, 1, 64)
    (map_,), (valid,) = net(x, torch.tensor([64, length]))
    alone = net(x[1:, :, :length]).maps[0]
    assert valid is not None
    assert valid.lengths[1] == alone.shape[2]
    torch.testing.assert_close(alone[0], map_[1, :, : alone.shape[2]])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("height", [1, 2])
@pytest.mark.parametrize("value", [0.0, -torch.inf])
def test_hidden_positions_have_the_value_and_no_gradient(
    layout: torch.memory_format, height: int, value: float
) -> None:
    maps = torch.randn(3, 16, height, 7)
    maps[1, :, :, 4:] = torch.nan
    x = maps.contiguous(memory_format=layout).requires_grad_()
    y = hide(x, Valid.of(torch.tensor([7, 4, 1]), 7), value)
    for number, length in enumerate((7, 4, 1)):
        assert torch.equal(y[number, ..., :length], x[number, ..., :length])
        assert (y[number, ..., length:] == value).all()
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, (y.detach() == x).float())
