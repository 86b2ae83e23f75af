from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn

from resdomains.training import WarmupLinear
from resdomains_tasks.rl_policy.distributions import (
    ActionDistribution,
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
)
from resdomains_tasks.rl_policy.gae import generalized_advantages
from resdomains_tasks.rl_policy.ppo import PPO, Terms, Transitions, minibatches, normalise

COUNT = 24
CLIP = 0.2
KINDS = [
    Categorical(3),
    MultiCategorical([2, 3]),
    DiagonalGaussian([-1.0, -1.0], [1.0, 1.0]),
]


class Policy(nn.Module):
    """Parameters and values of observations of four numbers."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.parameters_of = nn.Linear(4, size)
        self.values_of = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.parameters_of(x), self.values_of(x).squeeze(1)


def policy_and_transitions(
    distribution: ActionDistribution, masked: bool = False
) -> tuple[Policy, Transitions]:
    """A policy some way from the one that acted, so that ratios lie on both sides of both limits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = Policy(distribution.size)
        x = torch.randn(COUNT, 4)
        masks = torch.rand(COUNT, distribution.size) < 0.7 if masked else None
        if masks is not None:
            masks[:, [0, -1]] = True  # one action of each choice, at least
        with torch.no_grad():
            parameters, values = policy(x)
            noise = distribution.noise(COUNT)
            actions = distribution.sample(parameters, noise, masks)
            transitions = Transitions(
                observations={"observation": x},
                actions=actions,
                log_probs=distribution.log_prob(parameters, actions, masks),
                advantages=torch.randn(COUNT),
                returns=values + torch.randn(COUNT),
                values=values,
                masks=masks,
                count=COUNT,
                share=1 / COUNT,
            )
            for parameter in policy.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    return policy, transitions


def from_the_paper(
    ppo: PPO,
    distribution: ActionDistribution,
    parameters: Tensor,
    values: Tensor,
    steps: Transitions,
) -> dict[str, Tensor]:
    """L = -L^CLIP + c1 L^VF - c2 S, equations 7 and 9, a step at a time."""
    policy, value, entropy, kl, outside = [], [], [], [], []
    for i in range(len(steps)):
        mask = None if steps.masks is None else steps.masks[i : i + 1]
        row, action = parameters[i : i + 1], steps.actions[i : i + 1]
        log_prob = distribution.log_prob(row, action, mask)[0]
        ratio = log_prob.exp() / steps.log_probs[i].exp()
        unclipped = ratio * steps.advantages[i]
        if 1 - CLIP <= ratio <= 1 + CLIP:
            policy.append(-unclipped)
        else:
            limit = 1 + CLIP if ratio > 1 else 1 - CLIP
            policy.append(-torch.minimum(unclipped, limit * steps.advantages[i]))
        predicted = values[i]
        if ppo.value_clip is not None:
            low, high = steps.values[i] - ppo.value_clip, steps.values[i] + ppo.value_clip
            predicted = torch.clamp(predicted, low, high)
        value.append((predicted - steps.returns[i]) ** 2)
        entropy.append(distribution.entropy(row, mask)[0])
        kl.append(ratio - 1 - (log_prob - steps.log_probs[i]))
        outside.append(((ratio - 1).abs() > CLIP).float())
    means = {
        name: torch.stack(each).mean()
        for name, each in {
            "policy": policy,
            "value": value,
            "entropy": entropy,
            "kl": kl,
            "clip_fraction": outside,
        }.items()
    }
    loss = means["policy"] + ppo.value_weight * means["value"] - ppo.entropy * means["entropy"]
    return {"loss": loss, **means}


def outputs_of(policy: Policy, steps: Transitions) -> tuple[Tensor, Tensor]:
    outputs: tuple[Tensor, Tensor] = policy(steps.observations["observation"])
    return outputs


def gradients(policy: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(policy.parameters())))


@pytest.mark.parametrize("value_clip", [None, 0.3])
@pytest.mark.parametrize("entropy", [0.0, 0.05])
@pytest.mark.parametrize(
    ("distribution", "masked"),
    [(KINDS[0], False), (KINDS[0], True), (KINDS[1], False), (KINDS[1], True), (KINDS[2], False)],
)
def test_the_loss_and_its_gradient_are_the_papers(
    distribution: ActionDistribution, masked: bool, entropy: float, value_clip: float | None
) -> None:
    ppo = PPO(entropy=entropy, value_clip=value_clip, value_weight=0.4)
    policy, steps = policy_and_transitions(distribution, masked)
    terms = ppo.terms(distribution, *outputs_of(policy, steps), steps, CLIP)
    expected = from_the_paper(ppo, distribution, *outputs_of(policy, steps), steps)
    for name, value in expected.items():
        torch.testing.assert_close(getattr(terms, name).detach(), value.detach())
    assert 0.2 < terms.clip_fraction < 0.9
    named = [terms.policy, terms.value, terms.entropy, terms.kl, terms.clip_fraction]
    assert torch.equal(terms.parts, torch.stack(named))
    torch.testing.assert_close(
        gradients(policy, terms.loss), gradients(policy, expected["loss"]), atol=1e-6, rtol=1e-5
    )


def test_the_gradient_is_that_of_the_loss_times_a_factor() -> None:
    policy, steps = policy_and_transitions(KINDS[0])

    def of(factor: float) -> list[Tensor]:
        outputs = outputs_of(policy, steps)
        return gradients(policy, PPO().terms(KINDS[0], *outputs, steps, CLIP).loss * factor)

    # As a loss scaler does.
    torch.testing.assert_close(of(1024.0), [1024.0 * gradient for gradient in of(1.0)])


def test_outputs_of_half_precision_get_gradients_of_theirs() -> None:
    policy, steps = policy_and_transitions(KINDS[0])
    parameters, values = (
        output.detach().bfloat16().requires_grad_() for output in outputs_of(policy, steps)
    )
    terms = PPO().terms(KINDS[0], parameters, values, steps, CLIP)
    terms.loss.backward()  # type: ignore[no-untyped-call]
    assert terms.loss.dtype == torch.float32
    for output in (parameters, values):
        assert output.grad is not None
        assert output.grad.dtype == torch.bfloat16
        assert output.grad.any()


def test_a_policy_that_has_not_moved_has_ratios_of_one() -> None:
    policy, steps = policy_and_transitions(KINDS[0])
    parameters, values = outputs_of(policy, steps)
    old = KINDS[0].log_prob(parameters, steps.actions).detach()
    terms = PPO().terms(KINDS[0], parameters, values, replace(steps, log_probs=old), CLIP)
    torch.testing.assert_close(terms.policy, -steps.advantages.mean())
    assert terms.kl == 0
    assert terms.clip_fraction == 0


@pytest.mark.parametrize("wrong", ["advantages", "log_probs", "returns"])
def test_what_is_not_a_number_reaches_the_loss_and_the_gradient(wrong: str) -> None:
    policy, steps = policy_and_transitions(KINDS[0])
    getattr(steps, wrong)[3] = torch.nan
    outputs = outputs_of(policy, steps)
    terms = PPO().terms(KINDS[0], *outputs, steps, CLIP)
    assert terms.loss.isnan()
    assert any(gradient.isnan().any() for gradient in gradients(policy, terms.loss))


@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_a_ratio_beyond_float32_is_clipped_where_that_is_less(advantage: float) -> None:
    policy, steps = policy_and_transitions(KINDS[0])
    steps = replace(steps[torch.arange(1)], advantages=torch.tensor([advantage]))
    steps.log_probs.fill_(-200.0)
    outputs = outputs_of(policy, steps)
    terms = PPO().terms(KINDS[0], *outputs, steps, CLIP)
    assert terms.policy == (-(1 + CLIP) if advantage > 0 else torch.inf)
    found = gradients(policy, terms.loss)
    assert all(gradient.isfinite().all() for gradient in found) == (advantage > 0)


def test_the_mean_over_processes_is_the_mean_over_the_minibatch() -> None:
    distribution = KINDS[0]
    policy, steps = policy_and_transitions(distribution)
    ppo = PPO(entropy=0.01)

    def terms_of(part: Transitions) -> Terms:
        return ppo.terms(distribution, *outputs_of(policy, part), part, CLIP)

    whole = terms_of(steps)
    # The environments of the third have no step in this minibatch.
    parts = [
        terms_of(steps[index].shared(COUNT, processes=3))
        for index in (torch.arange(5), torch.arange(5, COUNT), torch.arange(0))
    ]
    for name in Terms._fields:
        mean = torch.stack([getattr(part, name).detach() for part in parts]).mean(0)
        torch.testing.assert_close(mean, getattr(whole, name).detach())
    each = [gradients(policy, part.loss) for part in parts]
    mean_gradients = [torch.stack(same).mean(0) for same in zip(*each, strict=True)]
    torch.testing.assert_close(mean_gradients, gradients(policy, whole.loss))


def test_steps_are_taken_by_index_or_slice() -> None:
    _, steps = policy_and_transitions(KINDS[1], masked=True)
    for index in (torch.tensor([5, 3, 9]), slice(4, 7)):
        taken = steps[index]
        assert (len(taken), taken.count, taken.share) == (3, 3, 1 / 3)
        for name in ("actions", "log_probs", "advantages", "returns", "values", "masks"):
            assert torch.equal(getattr(taken, name), getattr(steps, name)[index])
        assert torch.equal(
            taken.observations["observation"], steps.observations["observation"][index]
        )


def test_normalised_advantages_have_mean_0_and_deviation_1() -> None:
    advantages = normalise(torch.tensor([3.0, 5.0, 7.0, 21.0]))
    torch.testing.assert_close(advantages.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(advantages.std(), torch.tensor(1.0))
    assert normalise(torch.tensor([3.0])) == 3.0
    assert not normalise(torch.full((5,), 2.0)).any()


def test_minibatches_hold_each_valid_step_once() -> None:
    valid = np.random.default_rng(0).random(100) < 0.9
    parts = minibatches(valid, 16, torch.Generator().manual_seed(0))
    assert [len(part) for part in parts] == [16] * (valid.sum() // 16) + [valid.sum() % 16]
    assert torch.cat(parts).sort().values.tolist() == np.flatnonzero(valid).tolist()
    again, other = (minibatches(valid, 16, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert torch.equal(torch.cat(again), torch.cat(parts))
    assert not torch.equal(torch.cat(other), torch.cat(parts))


def test_clip_follows_its_schedule() -> None:
    assert PPO(clip=0.3).clip_at(0.9) == 0.3
    falling = PPO(clip=0.3, clip_schedule=WarmupLinear(warmup=0.0))
    assert [falling.clip_at(p) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.15, 0.0])


def test_updates_stop_beyond_one_and_a_half_times_the_target() -> None:
    assert not PPO().stops(1e9)
    assert not PPO(target_kl=0.02).stops(0.0299)
    assert PPO(target_kl=0.02).stops(0.0301)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discount": 1.1}, r"discount must lie in \[0, 1\], got 1.1"),
        ({"gae_lambda": -0.1}, "gae_lambda must lie in"),
        ({"clip": 0.0}, r"clip must lie in \(0, 1\), got 0.0; the paper uses 0.2"),
        ({"clip": float("nan")}, "clip must lie in"),
        ({"value_clip": 0.0}, "value_clip must be above 0, got 0.0; null leaves it out"),
        ({"target_kl": -1.0}, "target_kl must be above 0"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be above 0"),
        ({"entropy": -0.1}, "entropy must be at least 0, got -0.1"),
        ({"value_weight": float("nan")}, "value_weight must be at least 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"minibatch_size": 1}, "minibatch_size must be at least 2 steps, got 1"),
        ({"normalize_advantages": "batch"}, "minibatch, rollout or none, got 'batch'"),
    ],
)
def test_bad_numbers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPO(**options)


class Seen(BaseCallback):
    """What Stable-Baselines3 does not keep of a rollout: its rewards before a bootstrap is added to them, its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []
        self.truncated: list[list[bool]] = []
        self.final_values: list[list[float]] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.rewards.append(self.locals["rewards"].copy())
        self.dones.append(self.locals["dones"].copy())
        self.truncated.append([bool(info.get("TimeLimit.truncated")) for info in infos])
        self.final_values.append([self.value(info.get("terminal_observation")) for info in infos])
        return True

    def value(self, observation: np.ndarray | None) -> float:
        if observation is None:
            return float("nan")
        with torch.no_grad():
            policy: Any = self.model.policy
            return float(policy.predict_values(policy.obs_to_tensor(observation)[0]))


@pytest.mark.parametrize(
    "options", [{}, {"entropy": 0.05, "value_clip": 0.1}], ids=["plain", "all"]
)
@pytest.mark.parametrize(("environment", "limit"), [("CartPole-v1", 18), ("Pendulum-v1", 12)])
def test_an_update_is_that_of_stable_baselines3(
    environment: str, limit: int, options: dict[str, float]
) -> None:
    ppo = PPO(discount=0.98, gae_lambda=0.9, max_gradient_norm=None, **options)  # type: ignore[arg-type]
    vector = stable_baselines3.common.env_util.make_vec_env(
        lambda: gymnasium.make(environment, max_episode_steps=limit), n_envs=3, seed=0
    )
    steps = 40
    theirs = stable_baselines3.PPO(
        "MlpPolicy",
        vector,
        n_steps=steps,
        batch_size=3 * steps,
        n_epochs=1,
        gamma=ppo.discount,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip,
        clip_range_vf=ppo.value_clip,
        ent_coef=ppo.entropy,
        vf_coef=ppo.value_weight,
        max_grad_norm=1e9,
        device="cpu",
        seed=0,
    )
    _, callback = theirs._setup_learn(3 * steps, seen := Seen())
    buffer, policy = theirs.rollout_buffer, theirs.policy
    assert theirs.collect_rollouts(vector, callback, buffer, steps)

    # The same rollout by our advantages.
    rewards, dones, truncated = map(np.array, (seen.rewards, seen.dones, seen.truncated))
    assert truncated.any()
    assert (dones & ~truncated).any() == (environment == "CartPole-v1")
    observations: Any = theirs._last_obs
    with torch.no_grad():
        last = policy.predict_values(policy.obs_to_tensor(observations)[0]).view(-1).numpy()
    advantages = generalized_advantages(
        rewards,
        buffer.values,
        last,
        dones & ~truncated,
        truncated,
        np.zeros_like(dones),
        np.array(seen.final_values),
        ppo.discount,
        ppo.gae_lambda,
    )
    np.testing.assert_allclose(advantages, buffer.advantages, rtol=1e-5, atol=1e-5)

    # The same gradient, of a policy that has moved since.
    def flat(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.reshape(3 * steps, *array.shape[2:]).copy())

    continuous = environment == "Pendulum-v1"
    distribution = DiagonalGaussian([-2.0], [2.0]) if continuous else Categorical(2)
    actions = flat(buffer.actions)
    transitions = Transitions(
        observations={"observation": flat(buffer.observations)},
        actions=actions if continuous else actions.view(-1).long(),
        log_probs=flat(buffer.log_probs),
        advantages=normalise(torch.from_numpy(advantages).view(-1)),
        returns=torch.from_numpy(advantages + buffer.values).view(-1),
        values=flat(buffer.values),
        masks=None,
        count=3 * steps,
        share=1 / (3 * steps),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.13 * torch.randn(parameter.shape, generator=generator))
    features = policy.extract_features(transitions.observations["observation"])
    for_policy, for_value = policy.mlp_extractor(features)
    parameters = policy.action_net(for_policy)
    if continuous:
        parameters = torch.cat((parameters, policy.log_std.expand_as(parameters)), 1)
    values = policy.value_net(for_value).view(-1)
    terms = ppo.terms(distribution, parameters, values, transitions, ppo.clip)
    assert 0.1 < terms.clip_fraction < 0.9
    ours = gradients(policy, terms.loss)

    found: list[Tensor] = []
    policy.optimizer.step = lambda: found.extend(  # type: ignore[method-assign, assignment]
        parameter.grad.clone() for parameter in policy.parameters() if parameter.grad is not None
    )
    theirs.train()
    torch.testing.assert_close(ours, found, rtol=1e-5, atol=1e-5)
    logged = theirs.logger.name_to_value
    for name, value in {
        "loss": terms.loss,
        "policy_gradient_loss": terms.policy,
        "value_loss": terms.value,
        "entropy_loss": -terms.entropy,
        "approx_kl": terms.kl,
        "clip_fraction": terms.clip_fraction,
    }.items():
        assert float(value.detach()) == pytest.approx(logged[f"train/{name}"], rel=1e-4, abs=1e-5)
