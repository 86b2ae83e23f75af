"""Several streams, mixed, read and written by learned weights."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from resdomains.core import (
    Activated,
    Add,
    Bare,
    DoublyStochastic,
    DropPath,
    Dynamic,
    Free,
    HyperConnection,
    Merge,
    Mixing,
    NormActivated,
    PreActivationBasic,
    Recompute,
    Residual,
    ResNet,
    ResNet1d,
    ResNet2d,
    Site,
    Stack,
    Static,
    Valid,
    Weights,
    resnet20,
)

LIVE = partial(Add, zero_init=False)
KINDS: list[type[Weights]] = [Static, Dynamic]
MIXINGS: list[Mixing] = [Free(), DoublyStochastic()]


def shaken(merge: HyperConnection, size: float = 0.5) -> HyperConnection:
    """The merge with parameters as training might leave them."""
    with torch.no_grad():
        for parameter in merge.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return merge


def image(merge: Callable[[Site], Merge]) -> tuple[ResNet, tuple[Tensor, ...]]:
    network = ResNet2d((3, 2), (8, 16), block=PreActivationBasic, merge=merge)
    return network, (torch.randn(4, 3, 8, 8),)


def signal(merge: Callable[[Site], Merge]) -> tuple[ResNet, tuple[Tensor, ...]]:
    network = ResNet1d((3, 2), (8, 16), merge=merge)
    return network, (torch.randn(3, 3, 20), torch.tensor([20, 11, 5]))


def vectors(merge: Callable[[Site], Merge]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    def block(index: int) -> Residual:
        site = Site(6, -1, index, 4)
        return Residual(nn.Sequential(nn.Linear(6, 6), nn.Tanh()), Bare(), merge(site))

    return Stack([block(index) for index in range(4)]), (torch.randn(5, 6),)


def output(result: object) -> Tensor:
    maps = getattr(result, "maps", [result])[-1]
    assert isinstance(maps, Tensor)
    return maps


Build = Callable[[Callable[[Site], Merge]], tuple[nn.Module, tuple[Tensor, ...]]]


@pytest.mark.parametrize("build", [image, signal, vectors])
def test_one_stream_that_stays_as_it_is_equals_add(build: Build) -> None:
    outputs, gradients = [], []
    for merge in (Add, partial(HyperConnection, streams=1)):
        torch.manual_seed(0)
        network, inputs = build(merge)
        for parameter in (p for n, p in network.named_parameters() if "branch" in n):
            nn.init.normal_(parameter, std=0.3)
        torch.manual_seed(1)
        y = output(network(*inputs))
        y.square().mean().backward()  # type: ignore[no-untyped-call]
        outputs.append(y)
        gradients.append([p.grad for n, p in network.named_parameters() if "merge" not in n])
    assert torch.equal(*outputs)
    for a, b in zip(*gradients, strict=True):
        assert a is not None
        torch.testing.assert_close(b, a)  # to rounding: sums over positions in another order


@pytest.mark.parametrize("mixing", [Free(), DoublyStochastic()])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 5, 6), (7, 6)])
def test_weights_against_loops(kind: type[Weights], mixing: Mixing, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dim = 1 if len(shape) == 4 else -1
    n = 3
    merge = shaken(HyperConnection(Site(6, dim, index=4), n, kind, mixing))
    x, b = torch.randn(n, *shape), torch.randn(shape)
    u, v, state = merge.read(x)
    y = merge(u, b, state)

    start = merge.weights.get_parameter("start").detach().double().numpy()
    h = x.movedim(dim + 1 if dim > 0 else -1, -1).double().numpy()
    branch = b.movedim(dim, -1).double().numpy()
    got_v = v.movedim(dim, -1).double().detach().numpy()
    got_y = y.movedim(dim + 1 if dim > 0 else -1, -1).double().detach().numpy()
    for place in np.ndindex(h.shape[1:-1]):
        raw = start
        if kind is Dynamic:
            weight = merge.weights.get_parameter("weight").detach().double().numpy()
            scale = merge.weights.get_parameter("scale").detach().double().numpy()
            rows = []
            for i in range(n):
                value = h[(i, *place)]
                value = (value - value.mean()) / np.sqrt(value.var() + 1e-5)
                factors = np.array([scale[0], *[scale[1]] * n, scale[2]])
                rows.append(factors * np.tanh(weight @ value))
            raw = start + np.stack(rows)
        read, mix, write = raw[:, 0], raw[:, 1:-1], raw[:, -1]
        if isinstance(mixing, DoublyStochastic):
            read, write = 1 / (1 + np.exp(-read)), 2 / (1 + np.exp(-write))
            mix = np.exp(mix)
            mix = mix / mix.sum(1, keepdims=True)
            for _ in range(20):
                mix = mix / mix.sum(0, keepdims=True)
                mix = mix / mix.sum(1, keepdims=True)
        signals = np.stack([h[(i, *place)] for i in range(n)])
        np.testing.assert_allclose(got_v[place], read @ signals, atol=1e-5)
        for j in range(n):
            expected = sum(mix[i, j] * signals[i] for i in range(n)) + write[j] * branch[place]
            np.testing.assert_allclose(got_y[(j, *place)], expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [image, signal, vectors])
def test_free_streams_start_as_add(build: Build, kind: type[Weights]) -> None:
    outputs = []
    for merge in (Add, partial(HyperConnection, streams=4, weights=kind)):
        torch.manual_seed(0)
        network, inputs = build(merge)
        for parameter in (p for n, p in network.named_parameters() if "branch" in n):
            nn.init.normal_(parameter, std=0.3)
        torch.manual_seed(1)
        outputs.append(output(network(*inputs)))
    torch.testing.assert_close(*outputs)


def test_the_first_table_is_the_papers() -> None:
    table = Free().start(6, 4)
    assert torch.equal(table[:, 0], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert torch.equal(table[:, 1:-1], torch.eye(4))
    assert torch.equal(table[:, -1], torch.ones(4))
    constrained = DoublyStochastic().table(DoublyStochastic().start(6, 4))
    torch.testing.assert_close(constrained[:, 1:], table[:, 1:], atol=1.1e-3, rtol=0)
    torch.testing.assert_close(constrained[:, :1], table[:, :1], atol=0.019, rtol=0)


def test_a_position_is_weighed_by_itself() -> None:
    torch.manual_seed(0)
    merge = shaken(HyperConnection(Site(6), 3, Dynamic))
    x = torch.randn(3, 2, 6, 1, 5)
    other = x.clone()
    other[..., 2:] = torch.randn(3, 2, 6, 1, 3)
    for a, b in zip(merge.read(x), merge.read(other), strict=True):
        assert torch.equal(a[..., :2], b[..., :2])
        assert not torch.equal(a[..., 2:], b[..., 2:])


def test_extreme_weights_stay_finite() -> None:
    raw = torch.zeros(3, 5)
    raw[:, 2] = -1e4  # no stream wants to give to the second
    raw.requires_grad_()
    table = DoublyStochastic().table(raw)
    table.square().sum().backward()  # type: ignore[no-untyped-call]
    assert table.isfinite().all()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_constrained_mixing_is_doubly_stochastic(size: float) -> None:
    torch.manual_seed(0)
    raw = size * torch.randn(4, 50, 6)
    table = DoublyStochastic(iterations=200).table(raw)
    mix = table[..., 1:-1]
    assert (table >= 0).all()
    torch.testing.assert_close(mix.sum(0), torch.ones(50, 4), atol=2e-3, rtol=0)
    torch.testing.assert_close(mix.sum(-1), torch.ones(4, 50), atol=1e-5, rtol=0)
    # A few iterations do not balance columns yet, but rows are exact: those keep the mean.
    rows = DoublyStochastic(iterations=2).table(raw)[..., 1:-1].sum(-1)
    torch.testing.assert_close(rows, torch.ones(4, 50), atol=1e-5, rtol=0)


def mixed(mixing: Mixing, depth: int, size: float) -> Tensor:
    """``(n, n)``: what ``depth`` mixings with shaken weights make of the streams."""
    torch.manual_seed(0)
    x = torch.eye(4).unsqueeze(1)  # (streams, items, features), a feature for each stream
    for index in range(depth):
        merge = HyperConnection(Site(4, -1, index), 4, mixing=mixing)
        x = shaken(merge, size).read(x)[0].detach()
    return x[:, 0]


def test_composite_gain_is_bounded_where_mixing_is_constrained() -> None:
    product = mixed(DoublyStochastic(), 1000, 1.0)
    assert (product >= 0).all()
    # What each stream becomes, summed; what each stream gets, summed.
    torch.testing.assert_close(product.sum(0), torch.ones(4), atol=1e-4, rtol=0)
    assert product.sum(1).amax() < 1.5
    assert mixed(Free(), 1000, 0.1).abs().sum(1).amax() > 1e3


def test_the_mean_of_constrained_streams_passes_many_blocks_under_autocast() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6)
    mean = x.mean(0)
    for index in range(200):
        merge = shaken(HyperConnection(Site(6, -1, index), 4, mixing=DoublyStochastic()), 1.0)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            x = merge.read(x)[0]
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean(0), mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mixing", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [image, signal, vectors])
def test_every_weight_learns(build: Build, kind: type[Weights], mixing: int) -> None:
    torch.manual_seed(0)
    merge = partial(HyperConnection, streams=3, weights=kind, mixing=MIXINGS[mixing])
    network, inputs = build(merge)
    for module in network.modules():
        if isinstance(module, HyperConnection):
            shaken(module, 0.2)
    for parameter in (p for n, p in network.named_parameters() if "branch" in n):
        nn.init.normal_(parameter, std=0.3)
    output(network(*inputs)).square().mean().backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert "merge" not in name or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_and_dropped_hyper_connections_equal_stored_ones(kind: type[Weights]) -> None:
    found = []
    for memory in (None, Recompute(2)):
        torch.manual_seed(0)
        merge = partial(DropPath, p=0.5, merge=partial(HyperConnection, streams=2, weights=kind))
        network = resnet20(merge=merge, memory=memory)
        torch.manual_seed(1)
        network(torch.randn(2, 3, 8, 8)).maps[-1].square().mean().backward()
        found.append([p.grad for p in network.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_an_item_does_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    network = ResNet1d((3,), (8,), merge=partial(HyperConnection, streams=3, weights=Dynamic))
    for module in network.modules():
        if isinstance(module, HyperConnection):
            shaken(module, 0.2)
    network.eval()
    x, lengths = torch.randn(2, 3, 20), torch.tensor([20, 7])
    together = network(x, lengths).maps[-1][1:, :, :7]
    torch.testing.assert_close(together, network(x[1:, :, :7]).maps[-1])


def test_dropped_paths_of_streams_are_drawn_per_item() -> None:
    torch.manual_seed(0)
    merge = DropPath(Site(6, -1), 0.5, partial(HyperConnection, streams=2), linear=False)
    x, b = torch.randn(2, 64, 3, 6), torch.randn(64, 3, 6)
    u, _, state = merge.read(x, Valid.of(torch.full((64,), 3), 3))
    added = merge(u, b, state) - x
    kept = (added.abs() > 1e-6).flatten(2).all(-1)
    assert torch.equal(kept, (added.abs() > 1e-6).flatten(2).any(-1))
    assert torch.equal(kept[0], kept[1])
    assert 16 < kept[0].sum() < 48


def test_without_its_branch_streams_are_mixed_as_before() -> None:
    torch.manual_seed(0)
    for streams in (1, 3):
        merge = shaken(HyperConnection(Site(6, -1), streams))
        x = torch.randn(3, 5, 6) if streams == 3 else torch.randn(5, 6)
        lesioned = merge.without_branch()
        assert lesioned.streams == streams
        u, _, state = merge.read(x)
        expected = merge(u, torch.zeros(5, 6), state)
        u, _, state = lesioned.read(x)
        assert torch.equal(lesioned(u, torch.randn(5, 6), state), expected)


def test_maps_stay_channels_last() -> None:
    merge = HyperConnection(Site(6), 3)
    x = (
        torch.randn(2, 6, 4, 5)
        .contiguous(memory_format=torch.channels_last)
        .expand(3, -1, -1, -1, -1)
    )
    u, v, state = merge.read(x)
    assert v.is_contiguous(memory_format=torch.channels_last)
    y = merge(u, torch.randn_like(v), state)
    assert all(stream.is_contiguous(memory_format=torch.channels_last) for stream in y)


def test_blocks_that_change_the_shape_add() -> None:
    network = resnet20(merge=lambda s: DropPath(s, 0.1, HyperConnection))
    changing = {type(b.merge) for name, b in network.blocks() if "transition" in name}
    keeping = {type(b.merge) for name, b in network.blocks() if "stack" in name}
    assert changing == {Add}
    assert keeping == {DropPath}


def test_norms_after_the_sum_are_refused() -> None:
    with pytest.raises(ValueError, match=r"streams \(n, ...\) past the sum, where BatchNorm would"):
        resnet20(merge=HyperConnection, after=NormActivated)
    with pytest.raises(ValueError, match=r"where BatchNorm would.*block=PreActivationBasic or"):
        resnet20(merge=lambda s: DropPath(s, 0.1, HyperConnection), after=NormActivated)
    with pytest.raises(ValueError, match=r"where LayerNorm would.*in an encoder, pre-norm"):
        Residual(nn.Linear(6, 6), Bare(), HyperConnection(Site(6, -1)), nn.LayerNorm(6))
    resnet20(merge=HyperConnection, after=Activated)


@pytest.mark.parametrize("kind", KINDS)
def test_networks_in_bfloat16_compute(kind: type[Weights]) -> None:
    network = resnet20(merge=partial(HyperConnection, weights=kind, mixing=DoublyStochastic()))
    network.eval().to(torch.bfloat16)
    maps = network(torch.randn(1, 3, 8, 8, dtype=torch.bfloat16)).maps[-1]
    assert maps.dtype == torch.bfloat16


def test_numbers_are_checked() -> None:
    with pytest.raises(ValueError, match="streams: expected at least 1, got 0"):
        HyperConnection(Site(6), 0)
    with pytest.raises(ValueError, match="iterations: expected at least 1, got 0"):
        DoublyStochastic(0)


def test_parts_have_names_in_yaml() -> None:
    class Model:
        def __init__(self, backbone: nn.Module) -> None:
            self.backbone = backbone

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Model, "model")
    merge = yaml.safe_load(
        """
        class_path: HyperConnection
        init_args:
          streams: 2
          weights: {class_path: Dynamic, init_args: {scale: 0.02}}
          mixing: {class_path: DoublyStochastic, init_args: {iterations: 5}}
        """
    )
    backbone = {"class_path": "resdomains.core.resnet20", "init_args": {"merge": merge}}
    config = parser.parse_object({"model": {"backbone": backbone}})
    built = parser.instantiate(config).model.backbone
    found = built.get_submodule("stages.0.stack.blocks.1.merge")
    assert isinstance(found, HyperConnection)
    assert found.streams == 2
    assert isinstance(found.mixing, DoublyStochastic)
    assert found.mixing.iterations == 5
    assert torch.equal(found.weights.get_parameter("scale"), torch.full((3,), 0.02))
