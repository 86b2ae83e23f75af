from collections.abc import Callable
from functools import partial

import pytest
import torch

from resdomains.core import (
    CharacterStem,
    ImageNetStem,
    LayerNorm,
    NGramStem,
    Place,
    ResNet1d,
    SmallImageStem,
    SpectrogramStem,
    Stem,
    SumStem,
    WaveformStem,
    WordNGramStem,
)
from resdomains.core.activations import ReLU
from resdomains.core.masks import Valid
from resdomains.core.norms import BatchNorm

READINGS = (partial(NGramStem, orders=(1, 2)), partial(WordNGramStem, letters=(2, 8)))


def place(channels: int = 9, width: int = 6, dims: int = 1) -> Place:
    return Place(channels, width, BatchNorm, ReLU, dims=dims)


@pytest.mark.parametrize("count", [1, 2])
def test_a_sum_of_stems_is_the_sum_of_what_each_computes(count: int) -> None:
    torch.manual_seed(0)
    stem = SumStem(place(), READINGS[:count]).eval()
    for parameter in stem.parameters():
        torch.nn.init.normal_(parameter)
    ids = torch.randint(0, 9, (3, 7))
    valid = Valid.of(torch.tensor([7, 4, 1]), 7)
    apart = torch.zeros(3, 6, 1, 7)
    for number, reading in enumerate(READINGS[:count]):
        alone = reading(place()).eval()
        prefix = f"stem{number}."
        alone.load_state_dict(
            {k.removeprefix(prefix): v for k, v in stem.state_dict().items() if prefix in k}
        )
        apart += alone(alone.read(ids), valid)
    torch.testing.assert_close(stem(stem.read(ids), valid), apart)


def test_a_sum_of_strided_stems_shortens_as_they_do() -> None:
    spectrograms = partial(SpectrogramStem, kernel=5), partial(SpectrogramStem, kernel=9)
    net = ResNet1d((1,), (8,), 4, stem=partial(SumStem, stems=spectrograms)).eval()
    x, lengths = torch.randn(2, 4, 12), torch.tensor([12, 5])
    features = net(x, lengths)
    assert features.maps[-1].shape == (2, 8, 6)
    assert features.valid[-1] is not None
    assert features.valid[-1].lengths.tolist() == [6, 3]
    torch.testing.assert_close(net(x[1:, :, :5]).maps[-1][0], features.maps[-1][1, :, :3])


def test_a_sum_of_stems_trains_in_a_network() -> None:
    torch.manual_seed(0)
    net = ResNet1d((1,), (6,), 9, stem=partial(SumStem, stems=READINGS), norm=LayerNorm)
    net(torch.randint(0, 9, (2, 8))).maps[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.stem.parameters())


@pytest.mark.parametrize(
    ("stems", "found"),
    [
        ((CharacterStem, WaveformStem), r"CharacterStem \(stride 1\), WaveformStem \(stride 16\)"),
        ((CharacterStem, partial(SpectrogramStem, stride=1)), "CharacterStem .*SpectrogramStem"),
        (
            (SmallImageStem, ImageNetStem),
            r"SmallImageStem \(stride 1\), ImageNetStem \(stride 4\)",
        ),
    ],
)
def test_stems_that_cannot_be_summed_are_named(
    stems: tuple[Callable[[Place], Stem], ...], found: str
) -> None:
    with pytest.raises(ValueError, match=f"stems: expected stems of one stride .*{found}"):
        SumStem(place(), stems)


def test_a_sum_has_a_stem() -> None:
    with pytest.raises(ValueError, match="stems: expected at least one stem to sum, got none"):
        SumStem(place(), ())
