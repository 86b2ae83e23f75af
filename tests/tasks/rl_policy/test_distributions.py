import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributions as reference

from resdomains_tasks.rl_policy.distributions import (
    ActionDistribution,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
    distribution_of,
)

KINDS = [
    Categorical(4),
    MultiCategorical([3, 3]),
    MultiCategorical([2, 4, 3]),
    DiagonalGaussian([-1.0, None], [1.0, 2.0]),
]
DISCRETE = KINDS[:3]


def named(distribution: ActionDistribution) -> str:
    sizes = getattr(distribution, "sizes", [distribution.size])
    return f"{type(distribution).__name__}-{'-'.join(map(str, sizes))}"


def sizes_of(distribution: ActionDistribution) -> list[int]:
    return distribution.sizes if isinstance(distribution, MultiCategorical) else [distribution.size]


def parameters_of(distribution: ActionDistribution, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, distribution.size, generator=generator)


def masks_of(distribution: ActionDistribution, count: int) -> Tensor:
    """Random masks that leave each choice at least one action."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.rand(count, distribution.size, generator=generator) < 0.5
    for part in masks.split(sizes_of(distribution), 1):  # type: ignore[no-untyped-call]
        part[torch.arange(count), torch.arange(count) % part.shape[1]] = True
    return masks


def actions_of(
    distribution: ActionDistribution, parameters: Tensor, masks: Tensor | None
) -> Tensor:
    noise = distribution.noise(len(parameters), torch.Generator().manual_seed(2))
    return distribution.sample(parameters, noise, masks)


def plainly(
    distribution: ActionDistribution, row: Tensor, action: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log probability and entropy of one observation's action by torch.distributions; masked actions are left out."""
    if isinstance(distribution, DiagonalGaussian):
        mean, log_std = row.chunk(2)
        normal: Any = reference.Normal(mean, log_std.exp())
        return normal.log_prob(action).sum(), normal.entropy().sum()
    log_prob, entropy = torch.zeros(()), torch.zeros(())
    start = 0
    for size, chosen in zip(sizes_of(distribution), action.view(-1), strict=True):
        allowed = torch.arange(size)
        if mask is not None:
            allowed = allowed[mask[start : start + size]]
        choice: Any = reference.Categorical(logits=row[start : start + size][allowed])
        place = (allowed == chosen).nonzero().view(())
        log_prob = log_prob + choice.log_prob(place)
        entropy = entropy + choice.entropy()
        start += size
    return log_prob, entropy


@pytest.mark.parametrize(
    ("distribution", "masked"),
    [(kind, False) for kind in KINDS] + [(kind, True) for kind in DISCRETE],
    ids=lambda value: named(value) if isinstance(value, ActionDistribution) else str(value),
)
def test_log_probabilities_entropies_and_gradients_are_those_of_torch(
    distribution: ActionDistribution, masked: bool
) -> None:
    count = 12
    parameters = parameters_of(distribution, count).requires_grad_()
    masks = masks_of(distribution, count) if masked else None
    actions = actions_of(distribution, parameters, masks)
    rows = [
        plainly(distribution, parameters[i], actions[i], None if masks is None else masks[i])
        for i in range(count)
    ]
    log_prob = torch.stack([row[0] for row in rows])
    entropy = torch.stack([row[1] for row in rows])
    torch.testing.assert_close(distribution.log_prob(parameters, actions, masks), log_prob)
    torch.testing.assert_close(distribution.entropy(parameters, masks), entropy)
    evaluated = distribution.evaluate(parameters, actions, masks)
    torch.testing.assert_close(evaluated.log_probs, log_prob.detach())
    torch.testing.assert_close(evaluated.entropies, entropy.detach())

    weights = torch.randn(count, generator=torch.Generator().manual_seed(3))
    for of_entropy in (0.0, -0.7):
        total = (weights * log_prob).sum() + of_entropy * entropy.sum()
        (expected,) = torch.autograd.grad(total, parameters, retain_graph=True)
        torch.testing.assert_close(evaluated.gradient(weights, of_entropy), expected)
        again = weights @ distribution.log_prob(parameters, actions, masks)
        again = again + of_entropy * distribution.entropy(parameters, masks).sum()
        torch.testing.assert_close(torch.autograd.grad(again, parameters)[0], expected)


@pytest.mark.parametrize("distribution", DISCRETE, ids=named)
def test_actions_are_sampled_as_often_as_they_are_likely(distribution: ActionDistribution) -> None:
    count = 20_000
    parameters = parameters_of(distribution, 1).expand(count, -1)
    masks = masks_of(distribution, 1).expand(count, -1)
    for allowed in (None, masks):
        actions = actions_of(distribution, parameters, allowed).view(count, -1)
        start = 0
        for i, size in enumerate(sizes_of(distribution)):
            logits = parameters[0, start : start + size]
            if allowed is not None:
                logits = logits.masked_fill(~allowed[0, start : start + size], -math.inf)
            expected = logits.softmax(0)
            frequency = actions[:, i].bincount(minlength=size) / count
            assert (frequency[expected == 0] == 0).all()
            # Five standard deviations of a frequency.
            torch.testing.assert_close(frequency, expected, atol=5 * 0.5 / count**0.5, rtol=0)
            start += size


def test_normal_samples_have_their_mean_and_deviation() -> None:
    distribution = KINDS[3]
    parameters = torch.tensor([[1.0, -2.0, math.log(0.5), math.log(3.0)]]).expand(20_000, -1)
    actions = actions_of(distribution, parameters, None)
    torch.testing.assert_close(actions.mean(0), torch.tensor([1.0, -2.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(actions.std(0), torch.tensor([0.5, 3.0]), atol=0.0, rtol=0.05)


@pytest.mark.parametrize("distribution", KINDS, ids=named)
def test_the_mode_is_likelier_than_any_sample(distribution: ActionDistribution) -> None:
    parameters = parameters_of(distribution, 50)
    masks = None if isinstance(distribution, DiagonalGaussian) else masks_of(distribution, 50)
    mode = distribution.mode(parameters, masks)
    sample = actions_of(distribution, parameters, masks)
    assert mode.shape == sample.shape == (50, *distribution.action_shape)
    assert mode.dtype == sample.dtype == distribution.action_dtype
    likeliest = distribution.log_prob(parameters, mode, masks)
    assert (likeliest >= distribution.log_prob(parameters, sample, masks)).all()
    assert (likeliest > -1e20).all()  # and allowed


@pytest.mark.parametrize("distribution", DISCRETE, ids=named)
def test_the_largest_noise_and_the_worst_logits_lift_no_masked_action(
    distribution: ActionDistribution,
) -> None:
    masks = masks_of(distribution, 30)
    parameters = torch.where(masks, -1e4, 1e4)
    # The least number that an exponential draw is kept at.
    largest = -math.log(torch.finfo(torch.float32).tiny)
    assert distribution.noise(1000, torch.Generator().manual_seed(0)).max() <= largest
    noise = torch.where(masks, -largest, largest)
    actions = distribution.sample(parameters, noise, masks).view(30, -1)
    start = 0
    for i, size in enumerate(sizes_of(distribution)):
        assert masks[torch.arange(30), start + actions[:, i]].all()
        start += size


@pytest.mark.parametrize("distribution", KINDS, ids=named)
def test_noise_is_drawn_from_the_generator_alone(distribution: ActionDistribution) -> None:
    draws = [distribution.noise(5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.isfinite(draws[0]).all()


@pytest.mark.parametrize("distribution", KINDS, ids=named)
def test_half_precision_is_computed_with_in_float32(distribution: ActionDistribution) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        parameters = parameters_of(distribution, 20).to(dtype)
        masks = None if isinstance(distribution, DiagonalGaussian) else masks_of(distribution, 20)
        actions = actions_of(distribution, parameters, masks)
        assert torch.equal(actions, actions_of(distribution, parameters.float(), masks))
        found = distribution.evaluate(parameters, actions, masks)
        exact = distribution.evaluate(parameters.float(), actions, masks)
        assert torch.equal(found.log_probs, exact.log_probs)
        assert torch.equal(found.entropies, exact.entropies)


def test_an_environment_gets_continuous_actions_within_its_bounds() -> None:
    actions = torch.tensor([[-3.0, -3.0], [3.0, 3.0], [0.5, 0.5]])
    clipped = KINDS[3].for_environment(actions)
    np.testing.assert_array_equal(clipped, [[-1.0, -3.0], [1.0, 2.0], [0.5, 0.5]])
    assert clipped.dtype == np.float32
    assert actions[0, 0] == -3.0  # what is learned from stays as it was sampled


def test_an_environment_gets_choices_as_they_are() -> None:
    for distribution in DISCRETE:
        actions = actions_of(distribution, parameters_of(distribution, 7), None)
        np.testing.assert_array_equal(distribution.for_environment(actions), actions.numpy())


def test_a_distribution_is_found_for_every_kind_of_action() -> None:
    assert distribution_of({"kind": "discrete", "sizes": [5], "masked": True}).size == 5
    multi = distribution_of({"kind": "multi_discrete", "sizes": [2, 3], "masked": False})
    assert (multi.size, multi.action_shape) == (5, (2,))
    bounds: dict[str, Any] = {"low": [None, -1.0], "high": [None, 1.0], "shape": [2, 1]}
    gaussian = distribution_of({"kind": "continuous", "masked": False, **bounds})
    assert (gaussian.size, gaussian.action_shape) == (4, (2,))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Categorical(0), "choices must be at least 1, got 0"),
        (lambda: MultiCategorical([2, 0]), r"at least 1 action, got \[2, 0\]"),
        (lambda: MultiCategorical([]), r"at least 1 action, got \[\]"),
        (lambda: DiagonalGaussian([], []), "one bound for each number of an action, got 0 and 0"),
        (lambda: DiagonalGaussian([0.0], [1.0, 2.0]), "got 1 and 2"),
        (lambda: DiagonalGaussian([1.0], [0.0]), r"low \[1.0\] and high \[0.0\]"),
        (lambda: distribution_of({"kind": "text"}), "continuous, got 'text'"),
    ],
)
def test_bad_arguments_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
