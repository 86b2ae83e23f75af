import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from resdomains.core import (
    GELU,
    LayerNorm,
    LearnedPositions,
    PatchStem,
    Place,
    ReLU,
    ResidualEncoder,
    SequenceStem,
    SinusoidalPositions,
    SubsamplingStem,
    TokenStem,
    Valid,
    VectorStem,
)


def place(in_channels: int, width: int = 6) -> Place:
    return Place(in_channels, width, LayerNorm, ReLU)


def test_tokens_types_and_positions_are_added() -> None:
    stem = TokenStem(place(10), length=8, types=2)
    ids, kinds = torch.tensor([[1, 9, 3]]), torch.tensor([[0, 1, 1]])
    tokens, types, table = (
        stem.get_parameter(f"{n}.weight") for n in ("tokens", "types", "positions")
    )
    expected = torch.stack([tokens[1] + types[0], tokens[9] + types[1], tokens[3] + types[1]])
    got, _ = stem(torch.stack((ids, kinds), 1), None)
    torch.testing.assert_close(got[0], expected + table[:3])
    torch.testing.assert_close(stem(ids, None)[0][0], tokens[ids[0]] + types[0] + table[:3])


def test_rows_hold_their_own_positions() -> None:
    stem = TokenStem(place(10))
    ids = torch.tensor([[1, 2, 3], [4, -100, 99]])  # padding may be anything
    rows, valid = stem(ids, Valid.of(torch.tensor([3, 1]), 3))
    assert valid is not None
    assert valid.rows is not None
    assert torch.equal(valid.rows, torch.tensor([0, 1, 2, 3]))
    torch.testing.assert_close(rows[:3], stem(ids[:1], None)[0][0])
    torch.testing.assert_close(rows[3:], stem(ids[1:, :1], None)[0][0])


@pytest.mark.parametrize("bands", [80, 7])
def test_subsampling_is_two_strided_convolutions(bands: int) -> None:
    stem = SubsamplingStem(place(bands))
    x = torch.randn(2, bands, 21)
    maps = x.unsqueeze(1)
    for conv in (stem.conv1, stem.conv2):
        maps = F.conv2d(maps, conv.weight, conv.bias, stride=2, padding=1).relu()
    flat = torch.stack([torch.stack([m[:, :, t].T.flatten() for t in range(6)]) for m in maps])
    expected = F.linear(flat, stem.project.weight, stem.project.bias)
    torch.testing.assert_close(stem(x, None)[0], expected)


def test_lengths_are_those_of_the_item_alone() -> None:
    stem = SubsamplingStem(place(8)).eval()
    for size in range(1, 40):
        _, valid = stem(torch.randn(2, 8, 40), Valid.of(torch.tensor([40, size]), 40))
        assert valid is not None
        alone, _ = stem(torch.randn(1, 8, size), None)
        assert int(valid.lengths[1]) == alone.shape[1] == -(-size // 4)


def test_vectors_are_mapped_one_by_one_and_know_their_position() -> None:
    stem = VectorStem(place(3), length=7)
    x = torch.randn(2, 3, 5)
    table = stem.get_parameter("positions.weight")
    got, _ = stem(x, None)
    for t in range(5):
        expected = x[:, :, t] @ stem.project.weight.T + stem.project.bias + table[t]
        torch.testing.assert_close(got[:, t], expected)
    rows, _ = stem(x, Valid.of(torch.tensor([5, 2]), 5))
    torch.testing.assert_close(rows, torch.cat((got[0], got[1, :2])))


def test_patches_are_read_row_by_row_after_the_class_tokens() -> None:
    stem = PatchStem(place(2), patch=2, size=(4, 6), class_tokens=2)
    x = torch.randn(1, 2, 4, 6)
    got, _ = stem(x, None)
    assert got.shape == (1, 2 + 6, 6)
    table = stem.get_parameter("positions.weight")
    torch.testing.assert_close(got[0, :2], stem.class_token + table[:2])
    second = x[0, :, 0:2, 2:4].flatten()
    bias = stem.get_parameter("project.bias")
    expected = stem.project.weight.flatten(1) @ second + bias
    torch.testing.assert_close(got[0, 3], expected + table[3])


@pytest.mark.parametrize(
    ("stem", "x", "error", "message"),
    [
        (
            lambda p: TokenStem(p),
            torch.zeros(2, 3),
            TypeError,
            "expected integers (token ids), got",
        ),
        (
            lambda p: TokenStem(p),
            torch.zeros(3).long(),
            ValueError,
            "expected token ids (B, T), or",
        ),
        (
            lambda p: TokenStem(p),
            torch.zeros(2, 3, 4).long(),
            ValueError,
            "or (B, 2, T) with token",
        ),
        (lambda p: TokenStem(p), torch.zeros(2, 2, 4).long(), ValueError, "built with types=0"),
        (
            lambda p: TokenStem(p),
            torch.tensor([[3, 4]]),
            ValueError,
            "expected token ids from 0 to 3 (the stem was built with in_channels=4), got values "
            "from 3 to 4",
        ),
        (
            lambda p: TokenStem(p, types=2),
            torch.tensor([[[1, 1], [0, 2]]]),
            ValueError,
            "expected token types from 0 to 1 (the stem was built with types=2), got values from 0",
        ),
        (
            lambda p: TokenStem(p, length=3),
            torch.zeros(1, 4).long(),
            ValueError,
            "x: expected at most 3 positions, the length of the table",
        ),
        (
            lambda p: SubsamplingStem(p),
            torch.zeros(2, 3, 9),
            ValueError,
            "expected (B, C, T) with 4 channels on axis 1",
        ),
        (
            lambda p: VectorStem(p),
            torch.zeros(2, 3),
            ValueError,
            "expected (B, C, T) with 4 channels on axis 1",
        ),
        (
            lambda p: PatchStem(p, 4, 8),
            torch.zeros(1, 4, 8, 12),
            ValueError,
            "with (C, H, W) = (4, 8, 8), for which the stem was built, got (1, 4, 8, 12)",
        ),
    ],
)
def test_wrong_input_is_named(
    stem: Callable[[Place], SequenceStem], x: Tensor, error: type[Exception], message: str
) -> None:
    net = ResidualEncoder(1, 16, 4, stem=stem)
    with pytest.raises(error, match=re.escape(message)):
        net(x)


def test_lengths_of_images_are_refused() -> None:
    net = ResidualEncoder(1, 16, 3, stem=lambda p: PatchStem(p, 4, 8))
    with pytest.raises(TypeError, match="PatchStem reads neighbouring positions"):
        net(torch.zeros(2, 3, 8, 8), torch.tensor([8, 4]))


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        (lambda p: PatchStem(p, 16, 40), "patch: expected a divisor of the image's height and"),
        (lambda p: PatchStem(p, class_tokens=-1), "class_tokens: expected 0 or more, got -1"),
        (lambda p: TokenStem(p, types=-1), "types: expected 0 (none) or more, got -1"),
    ],
)
def test_wrong_arguments_are_named(stem: Callable[[Place], SequenceStem], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        stem(Place(3, 8, LayerNorm, GELU))


def test_a_stem_says_how_long_inputs_may_be() -> None:
    stem = TokenStem(place(10), length=8)
    assert stem.length == 8
    stem(torch.zeros(1, 8, dtype=torch.long), None)
    with pytest.raises(ValueError, match="at most 8 positions"):
        stem(torch.zeros(1, 9, dtype=torch.long), None)
    assert TokenStem(place(10), length=8, positions=SinusoidalPositions).length is None
    assert VectorStem(place(4), length=3).length == 3
    frames = SubsamplingStem(place(4), length=3, positions=LearnedPositions)
    assert frames.length == 12
    frames(torch.randn(1, 4, 12), None)
    with pytest.raises(ValueError, match="at most 3 positions"):
        frames(torch.randn(1, 4, 13), None)
    assert SubsamplingStem(place(4)).length is None
