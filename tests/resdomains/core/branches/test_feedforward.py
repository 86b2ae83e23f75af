import pytest
import torch

from resdomains.core import GELU, FeedForward, LayerNorm, SequencePlace, SwiGLU

PLACE = SequencePlace(6, LayerNorm, GELU)


def test_feed_forward() -> None:
    branch = FeedForward(PLACE, expansion=1.5, scale=0.5)
    state = branch.state_dict()
    x = torch.randn(4, 6)
    inner = x @ state["expand.weight"].T + state["expand.bias"]
    assert inner.shape == (4, 9)
    inner = inner * torch.special.ndtr(inner)  # GELU is x Phi(x)
    expected = 0.5 * (inner @ state["project.weight"].T + state["project.bias"])
    torch.testing.assert_close(branch(x), expected)


def test_what_is_absent_is_not_called() -> None:
    names = [name for name, _ in FeedForward(PLACE).named_children()]
    assert names == ["expand", "act", "project"]
    whole = FeedForward(PLACE, dropout=0.1, inner_dropout=0.1, scale=0.5)
    names = [name for name, _ in whole.named_children()]
    assert names == ["expand", "act", "inner_dropout", "project", "dropout", "scale"]


def test_swiglu() -> None:
    branch = SwiGLU(PLACE)
    state = branch.state_dict()
    x = torch.randn(2, 3, 6)
    both = x @ state["expand.weight"].T + state["expand.bias"]
    gate, value = both[..., :16], both[..., 16:]
    inner = gate * torch.sigmoid(gate) * value
    expected = inner @ state["project.weight"].T + state["project.bias"]
    torch.testing.assert_close(branch(x), expected)


def test_swiglu_is_as_large_as_a_feed_forward_of_four() -> None:
    place = SequencePlace(768, LayerNorm, GELU)
    sizes = [sum(p.numel() for p in b(place).parameters()) for b in (FeedForward, SwiGLU)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)


@pytest.mark.parametrize("branch", [FeedForward, SwiGLU])
def test_both_dropouts_act_in_training_alone(branch: type[FeedForward]) -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 6)
    inner, outer = branch(PLACE, inner_dropout=0.5), branch(PLACE, dropout=0.5)
    assert not torch.equal(inner(x), inner(x))
    assert 0.3 < float((outer(x) == 0).float().mean()) < 0.7
    assert torch.equal(inner.eval()(x), inner.eval()(x))


@pytest.mark.parametrize("expansion", [0.0, 1.3, -1.0])
def test_expansion_is_checked(expansion: float) -> None:
    with pytest.raises(
        ValueError, match=f"with the width 6 is whole and at least 1, got {expansion}"
    ):
        FeedForward(PLACE, expansion=expansion)
    if expansion <= 0:
        with pytest.raises(ValueError, match="expansion: expected a number above 0"):
            SwiGLU(PLACE, expansion=expansion)
