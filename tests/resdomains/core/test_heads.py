import pytest
import torch

from resdomains.core import Features, FirstTokenHead, PooledHead, ReluPooler, TanhPooler, Valid


def test_logits_read_the_mean_of_the_deepest_map() -> None:
    head = PooledHead(4, 3)
    maps = (torch.randn(2, 9, 6, 6), torch.randn(2, 4, 3, 5))
    features = Features(maps, (None, None))
    embedded = torch.stack([maps[1][:, :, i, j] for i in range(3) for j in range(5)]).mean(0)
    torch.testing.assert_close(head.embed(features), embedded)
    expected = embedded @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features), expected)


def test_the_mean_counts_valid_positions() -> None:
    m = torch.randn(2, 4, 7)
    features = Features((m,), (Valid.of(torch.tensor([7, 2]), 7),))
    torch.testing.assert_close(PooledHead(4, 1).embed(features)[1], m[1, :, :2].mean(1))


def test_dropout_works_in_training_only() -> None:
    head = PooledHead(64, 2, dropout=0.5)
    features = Features((torch.ones(1, 64, 1, 1),), (None,))
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_classes_are_checked() -> None:
    with pytest.raises(ValueError, match="classes: expected at least 1, got 0"):
        PooledHead(4, 0)


def test_vectors_are_read_as_they_are() -> None:
    x = torch.randn(3, 4)
    assert PooledHead(4, 2).embed(Features((x,), (None,))) is x


def test_the_first_token_is_read_and_pooled() -> None:
    sequences = torch.randn(2, 4, 7)
    features = Features((torch.randn(2, 4, 9), sequences), (None, None))
    head = FirstTokenHead(4, 3)
    expected = sequences[:, :, 0] @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features), expected)
    for pooler, function in ((TanhPooler, torch.tanh), (ReluPooler, torch.relu)):
        pooled = FirstTokenHead(4, 3, pooler=pooler)
        weight, bias = (pooled.get_parameter(f"pooler.linear.{n}") for n in ("weight", "bias"))
        torch.testing.assert_close(
            pooled.embed(features), function(sequences[:, :, 0] @ weight.T + bias)
        )


def test_images_have_no_first_token() -> None:
    features = Features((torch.ones(1, 4, 2, 2),), (None,))
    with pytest.raises(ValueError, match=r"FirstTokenHead expected sequences \(B, C, T\), got"):
        FirstTokenHead(4, 3)(features)
