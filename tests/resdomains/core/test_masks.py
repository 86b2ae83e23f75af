"""Variable length: an item alone is the item in a batch."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from resdomains.core import (
    Add,
    BatchNorm,
    Bottleneck,
    DeepNorm,
    GroupNorm,
    Highway,
    ImageNetStem,
    LayerNorm,
    MaxPool,
    NoNorm,
    Norm,
    NormActivated,
    Place,
    PooledHead,
    PooledProjection,
    PoolFirstStem,
    PreActivationBasic,
    ReLU,
    ResNet1d,
    Separable,
    SmallImageStem,
    SpectrogramStem,
    SqueezeExcitation,
    Stem,
    SynchronisedBatchNorm,
    Valid,
    WaveformStem,
    ZeroPad,
)

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
}


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
                size = int(valid.lengths[number])
                assert a.shape[2] == size
                error = (a[0] - b[number, :, :size]).abs().max() / a.abs().max()
                assert error < 1e-5


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
