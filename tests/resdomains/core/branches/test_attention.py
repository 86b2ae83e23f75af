"""Self-attention against loops, and against torch's own module."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    GELU,
    AttentionPositions,
    LayerNorm,
    RelativePositions,
    RotaryPositions,
    SelfAttention,
    SequencePlace,
    Valid,
)
from resdomains.core.branches.attention import attend
from resdomains.core.linear import dropout
from resdomains.core.masks import pack, packed

PLACE = SequencePlace(12, LayerNorm, GELU)
LENGTHS = torch.tensor([6, 2, 1, 4])


def shaken(branch: SelfAttention) -> SelfAttention:
    for parameter in branch.parameters():
        nn.init.normal_(parameter, 0, 0.4)
    return branch


def rows(x: Tensor) -> tuple[Tensor, Valid]:
    valid = packed(Valid.of(LENGTHS, x.shape[1]))
    assert valid is not None
    return pack(x, valid), valid


def test_it_is_torchs_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = (
        shaken(SelfAttention(PLACE, heads=3)),
        nn.MultiheadAttention(12, 3, batch_first=True),
    )
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(4, 6, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    mask = torch.arange(6) >= LENGTHS[:, None]
    expected = theirs(x, x, x, key_padding_mask=mask)[0]
    packed_rows, valid = rows(x)
    torch.testing.assert_close(ours(packed_rows, valid), expected[~mask])


@pytest.mark.parametrize("size", [5, 300])
@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("added", ["nothing", "mask", "bias"])
def test_short_and_long_sequences_are_computed_alike(size: int, p: float, added: str) -> None:
    """Written out here, dropout drawn from the same seed."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, size, 4, dtype=torch.double).unbind(0)
    mask = torch.arange(size) < torch.tensor([size, 2])[:, None, None, None]
    bias = torch.randn(2, 2, size, size, dtype=torch.double).masked_fill(~mask, -torch.inf)
    given = {"nothing": None, "mask": mask, "bias": bias}[added]
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / 2
    if added != "nothing":
        scores = scores + (bias if added == "bias" else torch.zeros(()).masked_fill(~mask, -1e9))
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    torch.manual_seed(1)
    weights = dropout(weights, p) if p else weights
    torch.manual_seed(1)
    got = attend(q, k, v, given, p)
    torch.testing.assert_close(got, torch.einsum("bhij,bhjd->bhid", weights, v))


@pytest.mark.parametrize("positions", [RotaryPositions, RelativePositions])
def test_items_of_packed_rows_do_not_meet(positions: type[AttentionPositions]) -> None:
    torch.manual_seed(0)
    branch = shaken(SelfAttention(PLACE, heads=3, positions=positions))
    x = torch.randn(4, 6, 12)
    packed_rows, valid = rows(x)
    apart = [branch(x[i : i + 1, :n])[0] for i, n in enumerate(LENGTHS.tolist())]
    torch.testing.assert_close(branch(packed_rows, valid), torch.cat(apart))


def test_dropout_of_weights_keeps_the_mean_and_spares_eval() -> None:
    torch.manual_seed(0)
    branch = shaken(SelfAttention(PLACE, heads=3, attention_dropout=0.3))
    x = torch.randn(4, 6, 12)
    packed_rows, valid = rows(x)
    mean = torch.stack([branch(packed_rows, valid) for _ in range(3000)]).mean(0)
    branch.eval()
    calm = branch(packed_rows, valid)
    assert torch.equal(calm, branch(packed_rows, valid))
    torch.testing.assert_close(mean, calm, rtol=0.1, atol=0.15)


def test_what_merges_ask_of_it() -> None:
    branch = shaken(SelfAttention(PLACE, heads=3))
    before = {key: value.clone() for key, value in branch.state_dict().items()}
    branch.attenuate(0.5)
    torch.testing.assert_close(branch.qkv.weight[:24], before["qkv.weight"][:24])
    torch.testing.assert_close(branch.qkv.weight[24:], before["qkv.weight"][24:] / 2)
    torch.testing.assert_close(branch.out.weight, before["out.weight"] / 2)
    assert branch.silence()
    assert not branch(torch.randn(2, 3, 12)).any()


def test_maps_of_queries_keys_and_values_start_by_their_own_size() -> None:
    branch = SelfAttention(SequencePlace(256, LayerNorm, GELU))
    for weight in branch.qkv.weight.chunk(3):
        assert float(weight.detach().std()) == pytest.approx((2 / (256 + 256)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_are_checked(heads: int) -> None:
    with pytest.raises(ValueError, match=f"heads: expected a divisor of the width 12, got {heads}"):
        partial(SelfAttention, heads=heads)(PLACE)
