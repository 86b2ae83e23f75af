import pytest
import torch
import torch.nn.functional as F

from resdomains.core import Features, Valid
from resdomains_tasks.rl_policy.heads import Flattened, PolicyHead, Pooled, ValueHead


def features(*shape: int) -> Features:
    return Features((torch.randn(2, 9, 8, 8), torch.randn(2, *shape)), (None, None))


def test_pooled_is_the_mean_over_positions_that_count() -> None:
    pictures = features(4, 3, 5)
    torch.testing.assert_close(Pooled((4, 3, 5))(pictures), pictures.maps[-1].flatten(2).mean(2))
    vectors = features(6)
    assert Pooled((6,))(vectors) is vectors.maps[-1]
    sequences = torch.randn(2, 4, 7)
    valid = Valid.of(torch.tensor([7, 2]), 7)
    pooled = Pooled((4, 7))(Features((sequences,), (valid,)))
    torch.testing.assert_close(pooled[1], sequences[1, :, :2].mean(1))


def test_flattened_reads_every_number() -> None:
    pictures = features(4, 3, 5)
    embed = Flattened((4, 3, 5), hidden=None)
    assert embed.channels == 60
    assert torch.equal(embed(pictures), pictures.maps[-1].reshape(2, 60))


@pytest.mark.parametrize(("kind", "read"), [(Pooled, 4), (Flattened, 60)])
def test_a_hidden_layer_follows(kind: type[Pooled] | type[Flattened], read: int) -> None:
    embed = kind((4, 3, 5), hidden=7)
    assert embed.channels == 7
    weight, bias = (embed.get_parameter(f"hidden.0.{name}") for name in ("weight", "bias"))
    torch.nn.init.normal_(bias)
    pictures = features(4, 3, 5)
    expected = F.relu(F.linear(embed.read(pictures), weight, bias))
    assert weight.shape == (7, read)
    torch.testing.assert_close(embed(pictures), expected)


def test_a_hidden_layer_begins_orthogonal() -> None:
    weight = Flattened((4, 3, 5), hidden=7).get_parameter("hidden.0.weight")
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(7))


def test_a_policy_begins_with_nearly_equal_chances() -> None:
    head = PolicyHead(16, 5)
    torch.testing.assert_close(head.linear.weight @ head.linear.weight.T, 1e-4 * torch.eye(5))
    assert not head.linear.bias.any()
    x = torch.randn(3, 16)
    torch.testing.assert_close(head(x), F.linear(x, head.linear.weight))


def test_deviations_do_not_depend_on_the_observation() -> None:
    head = PolicyHead(16, 2, deviations=3, log_std=-0.5)
    x = torch.randn(4, 16)
    parameters = head(x)
    torch.testing.assert_close(parameters[:, :2], F.linear(x, head.linear.weight))
    assert torch.equal(parameters[:, 2:], torch.full((4, 3), -0.5))
    parameters.sum().backward()
    gradient = head.get_parameter("log_std").grad
    assert gradient is not None
    assert torch.equal(gradient, torch.full((3,), 4.0))
    assert "log_std" not in PolicyHead(16, 2).state_dict()


def test_a_value_is_one_number() -> None:
    head = ValueHead(16)
    torch.testing.assert_close(head.linear.weight.square().sum(), torch.tensor(1.0))
    x = torch.randn(4, 16)
    torch.testing.assert_close(head(x), x @ head.linear.weight[0] + head.linear.bias)
    assert not head.linear.bias.any()


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="hidden must be at least 1, or None for no layer, got 0"):
        Pooled((4,), hidden=0)
    with pytest.raises(ValueError, match="outputs must be at least 1 and deviations at least 0"):
        PolicyHead(4, 0)
    with pytest.raises(ValueError, match="got 2 and -1"):
        PolicyHead(4, 2, -1)
