import pytest
import torch

from resdomains_tasks.image_classification import BinaryCrossEntropy, CrossEntropy

from .support import small_spec


def test_cross_entropy_takes_class_numbers_and_their_shares_alike() -> None:
    logits, targets = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    for smoothing in (0.0, 0.1):
        loss = CrossEntropy(smoothing)
        assert torch.allclose(loss(logits, targets), loss(logits, torch.eye(3)[targets]))


def test_label_smoothing_is_its_formula() -> None:
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    smooth = torch.eye(3)[targets] * 0.8 + 0.2 / 3
    expected = -(smooth * torch.log_softmax(logits, 1)).sum(1).mean()
    assert torch.allclose(CrossEntropy(0.2)(logits, targets), expected)


def test_binary_cross_entropy_is_its_formula() -> None:
    logits, targets = (
        torch.randn(4, 3),
        torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    )
    p = torch.sigmoid(logits)
    expected = -(3 * targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    assert torch.allclose(BinaryCrossEntropy(positive_weight=3.0)(logits, targets), expected)
    assert torch.allclose(
        BinaryCrossEntropy(0.1)(logits, torch.tensor([0, 1, 2, 0])),
        BinaryCrossEntropy()(logits, torch.eye(3)[[0, 1, 2, 0]] * 0.9 + 0.05),
    )


def test_losses_are_computed_in_float32() -> None:
    logits = torch.tensor([[30.0, -30.0]], dtype=torch.bfloat16)
    for loss in (CrossEntropy(), BinaryCrossEntropy()):
        assert loss(logits, torch.tensor([1])).dtype == torch.float32
        assert loss.probabilities(logits).dtype == torch.float32


def test_cross_entropy_refuses_multi_label_data_and_says_what_to_set() -> None:
    spec = small_spec(multilabel=True, prevalence=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"set --model\.loss BinaryCrossEntropy"):
        CrossEntropy().check(spec)
    BinaryCrossEntropy().check(spec)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_wrong_smoothing_is_refused(value: float) -> None:
    for loss in (CrossEntropy, BinaryCrossEntropy):
        with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\)"):
            loss(value)
    with pytest.raises(ValueError, match="positive_weight must be positive"):
        BinaryCrossEntropy(positive_weight=0)
