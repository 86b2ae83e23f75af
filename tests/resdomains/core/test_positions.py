"""Positions against formulas written out, and what they promise."""

import math

import pytest
import torch
from torch import nn

from resdomains.core import (
    AddedPositions,
    AttentionPositions,
    LearnedPositions,
    NoPositions,
    PositionFree,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
)


def sinusoid(position: int, width: int) -> list[float]:
    angles = [position / 10000 ** (2 * i / width) for i in range(width // 2)]
    return [f(angle) for angle in angles for f in (math.sin, math.cos)]


def test_sinusoids_are_those_of_the_paper() -> None:
    places = torch.tensor([0, 3, 700])
    got = SinusoidalPositions(6, 1)(torch.ones(3, 6), places, 701) - 1
    expected = torch.tensor([sinusoid(p, 6) for p in places.tolist()])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_learned_positions_skip_the_offset() -> None:
    positions = LearnedPositions(4, 5, offset=2)
    assert positions.weight.shape == (7, 4)
    x = torch.randn(2, 3, 4)
    expected = x + positions.weight[2:5]
    assert torch.equal(positions(x, torch.arange(3), 3), expected)
    with pytest.raises(ValueError, match=r"x: expected at most 5 positions.*got 6"):
        positions(torch.randn(2, 6, 4), torch.arange(6), 6)


def test_absent_positions_change_nothing() -> None:
    x = torch.randn(2, 3, 4)
    assert NoPositions(4, 1)(x, torch.arange(3), 3) is x
    q, k, bias = PositionFree(2, 4)(x, x)
    assert q is x
    assert k is x
    assert bias is None


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    vector, other = torch.randn(8, dtype=torch.double), torch.randn(8, dtype=torch.double)
    q, k, bias = RotaryPositions(1, 8)(
        vector.expand(1, 1, 20, 8).double(), other.expand(1, 1, 20, 8)
    )
    assert bias is None
    scores = (q @ k.mT)[0, 0]
    for distance in range(-19, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert scores[0].std() > 0.1
    torch.testing.assert_close(q[0, 0, 0], vector)
    torch.testing.assert_close(q.norm(dim=-1), vector.norm().expand(1, 1, 20), rtol=1e-5, atol=1e-5)


def test_rotary_angles_are_those_of_the_paper() -> None:
    q = torch.zeros(1, 1, 4, 4)
    q[..., 1] = 1.0  # the first of the second pair (1, 3), whose angle is place / base^(2/4)
    rotated = RotaryPositions(1, 4, base=100.0)(q, q)[0][0, 0, 3]
    expected = torch.tensor([0.0, math.cos(0.3), 0.0, math.sin(0.3)])
    torch.testing.assert_close(rotated, expected)


def test_relative_scores_are_those_of_transformer_xl() -> None:
    torch.manual_seed(0)
    heads, width, size = 2, 4, 5
    positions = RelativePositions(heads, width)
    for parameter in positions.parameters():
        nn.init.normal_(parameter)
    q, k = torch.randn(2, heads, size, width), torch.randn(2, heads, size, width)
    new_q, new_k, bias = positions(q, k)
    assert bias is not None
    got = new_q @ new_k.mT / math.sqrt(width) + bias
    for i in range(size):
        for j in range(size):
            r = positions.distance(torch.tensor(sinusoid(i - j, heads * width)))
            r = r.view(heads, width)
            for head in range(heads):
                content = (q[:, head, i] + positions.u[head, 0]) * k[:, head, j]
                position = (q[:, head, i] + positions.v[head, 0]) * r[head]
                expected = (content + position).sum(1) / math.sqrt(width)
                torch.testing.assert_close(got[:, head, i, j], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (SinusoidalPositions, "width: SinusoidalPositions needs an even number, got 3"),
        (RotaryPositions, "RotaryPositions needs heads of even width, got 3"),
        (RelativePositions, "RelativePositions needs an even network width, got 9"),
    ],
)
def test_odd_widths_are_refused(
    kind: type[AddedPositions | AttentionPositions], message: str
) -> None:
    arguments = (3, 3)
    with pytest.raises(ValueError, match=message):
        kind(*arguments)
