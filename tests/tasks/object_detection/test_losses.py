import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from resdomains_tasks.object_detection.losses import (
    ByCenterness,
    Equal,
    FocalLoss,
    centerness,
    relative_entropy,
)


@pytest.mark.parametrize("rows", [[], [2, 5]])
def test_focal_loss_is_torchvisions(rows: list[int]) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(8, 4) * 5).requires_grad_()
    position, label = torch.tensor(rows).long(), torch.tensor([1, 3][: len(rows)]).long()
    target = torch.zeros(8, 4)
    target[position, label] = 1
    expected = sigmoid_focal_loss(logits, target, 0.25, 2.0, reduction="sum")
    loss = FocalLoss()(logits, position, label)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, logits)[0]
    )


def test_focal_loss_of_huge_logits_is_finite() -> None:
    logits = torch.tensor([[-1e4, 1e4], [200.0, -200.0]], requires_grad=True)
    loss = FocalLoss()(logits, torch.tensor([0]), torch.tensor([0]))
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(0.25 * 1e4 + 0.75 * 1e4 + 0.75 * 200)
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [-0.25, 0.75]


def test_centerness_is_one_in_the_middle() -> None:
    sides = torch.tensor([[3.0, 5, 3, 5], [1, 2, 4, 8]])
    assert centerness(sides).tolist() == [1.0, 0.25]


def test_boxes_weigh_as_much_as_they_are_central_or_all_alike() -> None:
    x = torch.tensor([0.2, 0.4, 0.6])
    assert torch.equal(ByCenterness()(x), x)
    assert Equal()(x).tolist() == [1, 1, 1]


def test_focal_loss_of_bfloat16_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(4000, 20) - 4).bfloat16().requires_grad_()
    exact = logits.detach().float().requires_grad_()
    position, label = torch.arange(50), torch.arange(50) % 20
    losses = [FocalLoss()(x, position, label) for x in (logits, exact)]
    torch.testing.assert_close(losses[0], losses[1])
    torch.autograd.backward(losses)
    assert logits.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad.float(), exact.grad, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_focal_loss_takes_any_gamma(gamma: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(8, 4, dtype=torch.float32).requires_grad_()
    position, label = torch.tensor([1]), torch.tensor([2])
    target = torch.zeros(8, 4)
    target[position, label] = 1
    expected = sigmoid_focal_loss(logits, target, 0.4, gamma, reduction="sum")
    loss = FocalLoss(0.4, gamma)(logits, position, label)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, logits)[0]
    )


def test_relative_entropy_is_none_where_all_is_right_and_the_cross_entropys_in_its_gradient() -> (
    None
):
    shares = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0])
    right = torch.logit(shares, eps=1e-7)
    assert relative_entropy(right, shares).item() == pytest.approx(0.0, abs=1e-5)
    logits = torch.randn(5, requires_grad=True)
    (ours,) = torch.autograd.grad(relative_entropy(logits, shares), logits)
    cross = F.binary_cross_entropy_with_logits(logits, shares, reduction="sum")
    (theirs,) = torch.autograd.grad(cross, logits)
    assert torch.equal(ours, theirs)
    p, q = logits.detach().sigmoid(), shares
    formula = torch.special.xlogy(q, q / p) + torch.special.xlogy(1 - q, (1 - q) / (1 - p))
    torch.testing.assert_close(relative_entropy(logits, shares), formula.sum())
