import pytest
import torch

from resdomains.classification import BinaryCrossEntropy, CrossEntropy, Labels


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
    labels = Labels(classes=["a", "b", "c"], multilabel=True, prevalence=[0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"set --model\.loss BinaryCrossEntropy"):
        CrossEntropy().bind(labels)
    BinaryCrossEntropy().bind(labels)


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_wrong_smoothing_is_refused(value: float) -> None:
    for loss in (CrossEntropy, BinaryCrossEntropy):
        with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\)"):
            loss(value)
    with pytest.raises(ValueError, match="positive_weight must be positive"):
        BinaryCrossEntropy(positive_weight=0)


def bound(weights: object, prevalence: list[float] | None = None) -> CrossEntropy:
    loss = CrossEntropy(class_weights=weights)  # type: ignore[arg-type]
    loss.bind(Labels(classes=["a", "b"], prevalence=prevalence))
    return loss


def test_a_samples_weighted_loss_does_not_depend_on_its_batch_mates() -> None:
    logits, targets = torch.randn(6, 2), torch.tensor([0, 1, 1, 1, 1, 1])
    loss = bound({"b": 3.0, "a": 0.5})
    plain = CrossEntropy()
    each = [w * plain(logits[i : i + 1], targets[i : i + 1]) for i, w in enumerate([0.5] + [3] * 5)]
    assert torch.allclose(loss(logits, targets), torch.stack(each).mean())


def test_balanced_weights_let_all_classes_count_alike() -> None:
    loss = bound("balanced", [0.8, 0.2])
    assert loss.weight is not None
    assert torch.allclose(loss.weight * torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5]))
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("weights", "prevalence", "message"),
    [
        ({"a": 1.0}, None, "class_weights must name each class once: a, b; got a"),
        ({"a": 1.0, "c": 1.0}, None, "got a, c"),
        ({"a": 1.0, "b": 0.0}, None, "class_weights must be positive"),
        ("balanced", None, "these data do not state"),
        ("balanced", [1.0, 0.0], "no training sample has b"),
    ],
)
def test_class_weights_that_cannot_be_used_are_refused(
    weights: object, prevalence: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bound(weights, prevalence)
