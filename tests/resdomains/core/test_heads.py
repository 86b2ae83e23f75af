import pytest
import torch

from resdomains.core import (
    Features,
    FirstTokenHead,
    FrameHead,
    KMaxHead,
    PooledHead,
    ReluPooler,
    TanhPooler,
    Valid,
)


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


def test_a_head_of_frames_begins_as_small_as_it_is_told() -> None:
    features = Features((torch.randn(2, 4, 7),), (None,))
    torch.manual_seed(0)
    usual = FrameHead(4, 3)
    torch.manual_seed(0)
    tenth = FrameHead(4, 3, init_scale=0.1)
    torch.testing.assert_close(tenth(features), (usual(features) - usual.linear.bias) / 10)
    equal = FrameHead(4, 3, init_scale=0.0)(features)
    assert equal.requires_grad
    assert not equal.any()


@pytest.mark.parametrize("scale", [-0.1, 1.5])
def test_the_size_a_head_begins_with_is_checked(scale: float) -> None:
    with pytest.raises(ValueError, match=f"init_scale: expected 0 to 1, got {scale}"):
        FrameHead(4, 3, init_scale=scale)


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


def test_the_largest_values_keep_their_order() -> None:
    head = KMaxHead(2, 3, k=3, hidden=4)
    x = torch.tensor([[[1.0, 5, 2, 4, 3], [9, -1, -2, 8, -3]]])
    h = torch.tensor([[5.0, 4, 3, 9, -1, 8]])
    features = Features((x,), (None,))
    assert torch.equal(KMaxHead(2, 3, k=3, layers=0).embed(features), h)
    for name in ("hidden.0", "hidden.2"):
        h = (h @ head.get_parameter(f"{name}.weight").T + head.get_parameter(f"{name}.bias")).relu()
    torch.testing.assert_close(head.embed(features), h)
    torch.testing.assert_close(head(features), h @ head.linear.weight.T + head.linear.bias)


@pytest.mark.parametrize("length", [1, 4, 9])
def test_the_largest_values_of_an_item_do_not_depend_on_its_padding(length: int) -> None:
    torch.manual_seed(0)
    # Many equal values, as a ReLU leaves them, and some of them negative.
    x = torch.randint(-2, 2, (2, 6, 40)).float()
    valid = Valid.of(torch.tensor([40, length]), 40)
    x[1, :, length:] = 100
    head = KMaxHead(6, 2, k=4, layers=0)
    together = head.embed(Features((x,), (valid,)))[1:]
    alone = head.embed(Features((x[1:, :, :length],), (None,)))
    assert torch.equal(together, alone)
    values = alone.view(6, 4)
    assert torch.equal(
        values[:, : min(length, 4)].sort(1).values,
        x[1, :, :length].topk(min(length, 4), 1, sorted=True).values.flip(1),
    )
    assert not values[:, length:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes: expected at least 1, got 0"),
        ({"k": 0}, "k: expected at least 1, got 0"),
        ({"hidden": 0}, "hidden: expected at least 1, got 0"),
        ({"layers": -1}, "layers: expected 0 or more hidden layers, got -1"),
    ],
)
def test_a_k_max_head_of_wrong_size_is_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KMaxHead(**{"features_channels": 4, "classes": 2, **options})


def test_images_have_no_order_of_positions() -> None:
    with pytest.raises(ValueError, match=r"KMaxHead expected sequences \(B, C, T\), got"):
        KMaxHead(4, 3)(Features((torch.ones(1, 4, 2, 2),), (None,)))
