"""Published sizes and layer tables of the networks over one axis."""

import inspect

import pytest
import torch
import torch.nn.functional as F

import resdomains.core as core
from resdomains.core import (
    BranchOnly,
    Conv,
    FrameHead,
    MaxPool,
    PooledHead,
    ReLU,
    ResNet1d,
    Separable,
    SqueezeExcitation,
)
from resdomains.core.named import signals

# Kriman et al. 2020, table 1: repetitions of each block, kernel, channels.
QUARTZ = [(33, 256), (39, 256), (51, 512), (63, 512), (75, 512)]
# Majumdar et al. 2021, layout K4: the prologue, three mega blocks, the epilogue.
CITRINET = [
    [5],
    [11, 13, 15, 17, 19, 21],
    [13, 15, 17, 19, 21, 23, 25],
    [25, 27, 29, 31, 33, 35, 37, 39],
    [41],
]
# Conneau et al. 2017, table 2: convolutions at 64, 128, 256 and 512 channels.
VDCNN = {9: [2, 2, 2, 2], 17: [4, 4, 4, 4], 29: [10, 10, 4, 4], 49: [16, 16, 10, 6]}


def names() -> list[str]:
    return [
        name
        for name, value in vars(signals).items()
        if inspect.isfunction(value)
        and value.__module__ == signals.__name__
        and not name.startswith("_")
    ]


def build(name: str, **options: object) -> ResNet1d:
    with torch.device("meta"):
        network: ResNet1d = getattr(core, name)(**options)
    return network


def size(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(("blocks", "millions"), [(5, 6.7), (10, 12.8), (15, 18.9)])
def test_quartznet_has_the_published_size_also_with_the_head_for_29_letters(
    blocks: int, millions: float
) -> None:
    """Kriman et al. 2020, table 2."""
    network = build(f"quartznet{blocks}x5")
    assert round(size(network) / 1e6, 1) == millions
    with torch.device("meta"):
        head = PooledHead(network.out_channels[-1], 29)
    assert round(size(network, head) / 1e6, 1) == millions
    # Separable convolutions counted once: first, 5 a block, two last; and the classifier.
    assert network.depth == 5 * blocks + 4


def test_quartznet_by_its_layer_table() -> None:
    network = build("quartznet15x5")
    layers = [
        (m.in_channels, m.out_channels, m.kernel_size[1], m.stride[1], m.dilation[1], m.groups)
        for m in network.modules()
        if isinstance(m, Conv)
    ]
    expected = [(64, 64, 33, 2, 1, 64), (64, 256, 1, 1, 1, 1)]
    width = 256
    for kernel, channels in QUARTZ:
        for _ in range(3):
            entering = width
            for _ in range(5):
                expected += [(width, width, kernel, 1, 1, width), (width, channels, 1, 1, 1, 1)]
                width = channels
            expected.append((entering, channels, 1, 1, 1, 1))  # the shortcut of every block
    expected += [(512, 512, 87, 1, 2, 512), (512, 512, 1, 1, 1, 1), (512, 1024, 1, 1, 1, 1)]
    assert layers == expected
    assert network.out_channels == (256, 256, 512, 512, 1024)
    assert network.stride == (2, 2, 2, 2, 2)


@pytest.mark.parametrize("block", [0, 7])
def test_quartznets_block_by_hand(block: int) -> None:
    """Five modules, a projected shortcut with its own norm, the last activation after the sum."""
    joined = [b for _, b in build("quartznet15x5").blocks()][block]
    assert isinstance(joined.branch, Separable)
    kinds = [type(m).__name__ for m in joined.branch.children()]
    assert kinds == [*["Conv", "Conv", "BatchNorm", "ReLU"] * 4, "Conv", "Conv", "BatchNorm"]
    assert [type(m).__name__ for m in joined.shortcut.children()] == ["Conv", "BatchNorm"]
    assert isinstance(joined.after.act, ReLU)


@pytest.mark.parametrize(("name", "millions"), [("tiny", 0.17), ("mini", 0.88)])
def test_small_quartznets_are_small(name: str, millions: float) -> None:
    network = build(f"quartznet_{name}")
    assert round(size(network) / 1e6, 2) == millions
    assert network.stride == (2,) * 5


def test_a_quartznet_of_any_size() -> None:
    network = build("quartznet", blocks=2, repeats=3, width=24, kernels=(3, 5, 7), tail_kernel=9)
    assert network.out_channels == (24, 24, 96)
    assert network.depth == 1 + 3 * 2 * 3 + 2 + 1
    kernels = [m.kernel_size[1] for m in network.modules() if isinstance(m, Conv) and m.groups > 1]
    assert kernels == [33, *[3] * 6, *[5] * 6, *[7] * 6, 9]


@pytest.mark.parametrize(
    ("width", "tokens", "millions"),
    [(256, 256, "9.8"), (384, 256, "21.0"), (512, 256, "36.5"), (1024, 1024, "142")],
)
def test_citrinet_has_the_published_size_with_the_head_for_word_pieces(
    width: int, tokens: int, millions: str
) -> None:
    """Majumdar et al. 2021, table 1, and NVIDIA's model cards; the blank is a token too."""
    network = build(f"citrinet_{width}")
    with torch.device("meta"):
        head = FrameHead(network.out_channels[-1], tokens + 1)
    digits = len(millions.partition(".")[2])
    assert f"{size(network, head) / 1e6:.{digits}f}" == millions


def test_citrinet_by_its_layer_table() -> None:
    network = build("citrinet_384")
    layers = [
        (m.in_channels, m.out_channels, m.kernel_size[1], m.stride[1], m.groups)
        for m in network.modules()
        if isinstance(m, Conv)
    ]
    expected = [(80, 80, 5, 1, 80), (80, 384, 1, 1, 1)]
    for kernels in CITRINET[1:-1]:
        for place, kernel in enumerate(kernels):
            stride = 2 if place == 0 else 1
            for repeat in range(5):
                step = stride if repeat == 0 else 1
                expected += [(384, 384, kernel, step, 384), (384, 384, 1, 1, 1)]
            expected.append((384, 384, 1, stride, 1))  # the shortcut of every block
    expected += [(384, 384, 41, 1, 384), (384, 640, 1, 1, 1)]
    assert layers == expected
    assert network.stride == (2, 4, 8)
    assert network.out_channels == (384, 384, 640)
    # 23 blocks, the first and the last of one convolution, and the head.
    assert network.depth == 1 + 21 * 5 + 1 + 1


def test_every_block_of_citrinet_ends_with_squeeze_excitation() -> None:
    network = build("citrinet_256")
    chains = [network.stem, *(block.branch for _, block in network.blocks()), network.tail]
    gates = [m for m in network.modules() if isinstance(m, SqueezeExcitation)]
    assert len(chains) == len(gates) == sum(map(len, CITRINET))
    for chain, gate in zip(chains, gates, strict=True):
        kinds = [type(m).__name__ for m in chain.children()]
        assert kinds[kinds.index("SqueezeExcitation") - 1] == "BatchNorm"
        assert gate.squeeze.out_features == gate.squeeze.in_features // 8
    assert [type(m).__name__ for m in chains[0].children()][-1] == "ReLU"
    assert [type(m).__name__ for m in chains[-1].children()][-1] == "ReLU"


@pytest.mark.parametrize("depth", VDCNN)
def test_vdcnn_has_the_published_convolutions(depth: int) -> None:
    network = build(f"plain_vdcnn{depth}")
    convolutions = [m for m in network.modules() if isinstance(m, Conv)]
    assert len(convolutions) == depth
    assert {m.kernel_size for m in convolutions} == {(1, 3)}
    assert {m.stride for m in convolutions} == {(1, 1)}
    counts = [sum(m.out_channels == c for m in convolutions) for c in (64, 128, 256, 512)]
    assert counts == [VDCNN[depth][0] + 1, *VDCNN[depth][1:]]
    assert network.depth == depth + 1  # the head


@pytest.mark.parametrize("depth", VDCNN)
def test_vdcnn_has_the_size_of_its_layers(depth: int) -> None:
    """By hand: the table's totals are some 0.6 M above what its convolutions hold."""
    expected = 69 * 16 + (16 * 3 + 1) * 64
    width = 64
    for channels, count in zip((64, 128, 256, 512), VDCNN[depth], strict=True):
        for _ in range(count):
            expected += width * channels * 3 + 2 * channels
            width = channels
    assert size(build(f"plain_vdcnn{depth}")) == expected
    shortcuts = sum(a * b + 2 * b for a, b in [(64, 128), (128, 256), (256, 512)])
    assert size(build(f"vdcnn{depth}")) == expected + shortcuts


def test_vdcnn_pools_between_levels() -> None:
    network = build("vdcnn9")
    pools = [[type(m) for m in stage.entry.children()] for stage in network.stages]  # type: ignore[union-attr]
    assert pools == [[], [MaxPool], [MaxPool], [MaxPool]]
    assert network.stride == (1, 2, 4, 8)
    assert network.out_channels == (64, 128, 256, 512)


@pytest.mark.parametrize("name", names())
def test_every_name_builds_with_options(name: str) -> None:
    network = build(name, in_channels=7, norm=core.NoNorm)
    assert network.in_channels == 7
    assert network.dims == 1
    if name.startswith("plain"):
        assert name.removeprefix("plain_") in names()
    else:
        network = build(name, merge=BranchOnly)
    assert all(isinstance(block.merge, BranchOnly) for _, block in network.blocks())


def test_characters_enter_as_ids() -> None:
    network = core.vdcnn9()
    x = torch.randint(0, 69, (2, 40))
    maps = network(x).maps
    assert [tuple(m.shape) for m in maps] == [(2, 64, 40), (2, 128, 20), (2, 256, 10), (2, 512, 5)]
    # Independently: the stem's table and convolution as torch has them.
    table, kernel, bias = (
        network.stem.get_parameter(name)
        for name in ("embedding.weight", "conv.weight", "conv.bias")
    )
    expected = F.conv1d(table[x].mT, kernel.squeeze(2), bias, padding=1)
    torch.testing.assert_close(network.stem(network.stem.read(x)).squeeze(2), expected)
    network(x.int()).maps[-1].sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 1, 9), ValueError, r"x: expected 2 axes \(B, L\) of ids"),
        (
            torch.zeros(2, 9),
            TypeError,
            r"x: expected integers \(ids\), got torch.float32",
        ),
        (torch.zeros(2, 9, dtype=torch.bool), TypeError, "got torch.bool"),
        (torch.tensor([[3, 5]]), ValueError, r"ids from 0 to 4 \(the network.*in_channels=5"),
        (torch.tensor([[-1, 2]]), ValueError, "got values from -1 to 2"),
    ],
)
def test_wrong_ids_are_named(x: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        core.vdcnn9(in_channels=5)(x)


def test_characters_have_one_axis() -> None:
    with pytest.raises(ValueError, match="stem=CharacterStem reads one axis of text"):
        core.ResNet2d(stem=core.CharacterStem)
