from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from resdomains.cli.arguments import Arguments
from resdomains.cli.errors import CliError
from resdomains.cli.session import Session
from resdomains.core import Add, Highway, ResidualMLP, impala
from resdomains.interop import Checkpoint
from resdomains_tasks.rl_policy import PPO, Flattened, RLPolicy
from resdomains_tasks.rl_policy.environments import Autoreset, describe, make_environments
from resdomains_tasks.rl_policy.rollout import Runner

from . import worlds  # noqa: F401 it registers them


def policy(environment: str = "CartPole-v1", **options: Any) -> RLPolicy:
    spec = describe(environment, options.pop("options", {})).plain()
    torch.manual_seed(0)
    channels = spec["observations"]["observation"]["shape"][0]
    backbone = options.pop("backbone", None) or ResidualMLP(1, 8, channels)
    return RLPolicy(backbone=backbone, spec=spec, **options)


def runner(task: RLPolicy, autoreset: Autoreset = "next_step", count: int = 2) -> Runner:
    environments = make_environments(
        task.policy_spec, count, vectorization="sync", autoreset=autoreset, training=True
    )
    environments.reset(list(range(count)))
    return Runner(environments, 0, count)


def known_values(observations: dict[str, Tensor]) -> Tensor:
    """A critic that anybody can compute, of the observations (episode, step)."""
    seen = observations["observation"]
    return torch.sin(seen[:, 0] * 3.0 + seen[:, 1])


@pytest.mark.parametrize("truncates", [False, True])
def test_advantages_do_not_depend_on_when_environments_reset(
    truncates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"lengths": [3, 5, 1, 4], "truncates": truncates}
    task = policy(
        "Worlds/Counting-v0", options=options, algorithm=PPO(discount=0.9, gae_lambda=0.7)
    )
    monkeypatch.setattr(task, "values", known_values)
    found = {}
    modes: list[tuple[Autoreset, int]] = [("next_step", 29), ("same_step", 23)]
    for autoreset, steps in modes:
        playing = runner(task, autoreset)
        rollout = task.roll_out(playing, steps, torch.Generator().manual_seed(0))
        estimates = task.estimate(rollout, playing)
        advantages = estimates.advantages.view(steps, 2)[:, 0]
        found[autoreset] = advantages[torch.from_numpy(estimates.valid[:, 0])]
    # The last episode of either is cut where the rollout stops.
    whole = sum([3, 5, 1, 4, 3, 5, 1])
    torch.testing.assert_close(found["next_step"][:whole], found["same_step"][:whole])
    assert len(found["same_step"]) >= whole


def test_values_of_a_shared_network_are_those_of_a_separate_pass() -> None:
    task = policy(critic="shared")
    assert task.critic_backbone is None
    playing = runner(task)
    rollout = task.roll_out(playing, 7, torch.Generator().manual_seed(0))
    assert rollout.values is not None
    estimates = task.estimate(rollout, playing)
    seen = rollout.observations["observation"][:-1].flatten(0, 1)
    with torch.no_grad():
        torch.testing.assert_close(estimates.values, task.values({"observation": seen}))


def test_a_critic_of_its_own_shares_no_weight() -> None:
    task = policy()
    assert task.critic_backbone is not None
    ours = {id(p) for p in task.backbone.parameters()}
    assert not ours & {id(p) for p in task.critic_backbone.parameters()}
    task({"observation": torch.randn(3, 4)})[1].sum().backward()
    assert all(p.grad is None for p in task.backbone.parameters())


def test_one_noise_acts_alike_however_environments_are_dealt_out() -> None:
    task = policy()
    whole = runner(task, count=4)
    together = task.roll_out(whole, 9, torch.Generator().manual_seed(3)).actions
    environments = make_environments(task.policy_spec, 2, vectorization="sync", training=True)
    environments.reset([2, 3])
    second = Runner(environments, 2, 4)
    alone = task.roll_out(second, 9, torch.Generator().manual_seed(3)).actions
    assert torch.equal(together[:, 2:], alone)


@pytest.mark.parametrize(
    ("brought", "score"), [(20.0, 0.0), (10.0, 0.0), (260.0, 0.5), (500.0, 1.0), (900.0, 1.0)]
)
def test_the_score_goes_from_random_to_reference(brought: float, score: float) -> None:
    spec = describe("CartPole-v1", random_return=20.0, reference_return=500.0).plain()
    task = RLPolicy(backbone=ResidualMLP(1, 8, 4), spec=spec)
    assert float(task.score({"return": torch.tensor(brought)})) == pytest.approx(score)
    assert task.score_of(brought) == pytest.approx(score)
    assert task.chance(spec) == 0.0


def test_without_references_there_is_no_score_and_the_return_is_monitored() -> None:
    task = policy("Worlds/Counting-v0", options={"lengths": [3]})
    assert torch.isnan(task.score({"return": torch.tensor(3.0)}))
    assert task.chance(task.spec) is None
    assert task.monitor == "val/return"


def test_networks_follow_the_environment_unless_the_config_says_otherwise() -> None:
    def session(*texts: str) -> Session:
        pairs = [text.split("=") for text in texts]
        overrides = [(tuple(key.split(".")), value) for key, value in pairs]
        return Session(Arguments(configs=["rl_policy/cartpole"], overrides=overrides))

    followed = session("data.environment=Acrobot-v1")
    task = followed.task(followed.data().spec)
    assert task.backbone.in_channels == 6
    assert followed.recipe["model"]["init_args"]["backbone"]["init_args"]["in_channels"] == 6
    told = session("data.environment=Acrobot-v1", "model.backbone.in_channels=5")
    with pytest.raises(CliError, match=r"6 numbers.*set --model\.backbone\.in_channels 6"):
        told.task(told.data().spec)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("episodes", 0, "must be at least 1, got 0"),
        ("first_seed", -1, r"must lie in \[0, 2\^31\), got -1"),
        ("acting", "greedy", "deterministic or sampled, got 'greedy'"),
    ],
)
def test_options_of_predict_are_checked(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        setattr(policy(), name, value)


def test_a_policy_says_what_it_does_for_recorded_observations(tmp_path: Path) -> None:
    task = policy().eval()
    rows = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    np.save(tmp_path / "walk.npy", rows)
    items = list(task.read([str(tmp_path / "walk.npy")]))
    with torch.inference_mode():
        found = task.predict(task.collate(items))  # type: ignore[arg-type]
        parameters, values = task({"observation": torch.from_numpy(rows)})
    assert [record["action"] for record in found] == parameters.argmax(1).tolist()
    assert [record["value"] for record in found] == pytest.approx(values.tolist())
    assert found[0]["probabilities"] == pytest.approx(parameters[0].softmax(0).tolist(), abs=1e-6)


def test_episodes_are_played_without_inputs_and_the_same_each_time() -> None:
    task = policy().eval()
    task.episodes, task.first_seed = 3, 5
    seeds = list(task.read([]))
    one, two = (task.predict(task.collate(seeds)) for _ in range(2))  # type: ignore[arg-type]
    assert one == two
    assert [record["seed"] for record in one] == [5, 6, 7]
    task.acting = "sampled"
    assert task.predict(task.collate(seeds)) != one  # type: ignore[arg-type]


def test_pictures_are_read_by_a_convolutional_network() -> None:
    spec = describe("CartPole-v1").plain()
    part = {"layout": "picture", "shape": [4, 24, 24], "dtype": "uint8", "scale": 255.0}
    spec = {**spec, "observations": {"observation": part}}
    task = RLPolicy(backbone=impala(), spec=spec, embedding=Flattened, critic="shared")
    seen = torch.randint(0, 256, (2, 4, 24, 24), dtype=torch.uint8)
    parameters, values = task({"observation": seen})
    assert parameters.shape == (2, 2)
    assert values.shape == (2,)


@pytest.mark.parametrize("merge", [Add, Highway])
def test_a_policy_of_1024_blocks_learns_in_its_first_block(merge: Any) -> None:
    task = policy(backbone=ResidualMLP(1024, 4, 4, merge=merge), critic="shared")
    playing = runner(task)
    steps = task.first_look(playing, 4, torch.Generator().manual_seed(0))
    task.step(steps, "train").loss.backward()  # type: ignore[no-untyped-call]
    blocks = [block for _, block in task.blocks()]
    first = [p.grad for p in blocks[0].parameters() if p.grad is not None]
    assert len(blocks) == 1024
    assert all(gradient.isfinite().all() for gradient in first)
    assert any(gradient.any() for gradient in first)


def save(task: RLPolicy, path: Path) -> Checkpoint:
    checkpoint: dict[str, Any] = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return Checkpoint(str(path))


@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_a_policy_goes_on_with_all_of_an_earlier_one(critic: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"critic": critic, "normalize_rewards": True}
    first = policy(**options)
    seen = torch.randn(50, 4) * 3 + 1
    first.inputs.update({"observation": seen}, torch.ones(50, dtype=torch.bool))
    assert first.return_normalization is not None
    first.return_normalization.moments.variance.fill_(7.0)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    later = policy(**options, weights=save(first, tmp_path / "first.ckpt"))
    assert later.notes == []
    for name, value in first.state_dict().items():
        assert torch.equal(value, later.state_dict()[name]), name


def test_another_environments_actions_begin_anew(tmp_path: Path) -> None:
    weights = save(policy("MountainCar-v0"), tmp_path / "first.ckpt")
    other = policy("MountainCarContinuous-v0", weights=weights)
    (note,) = other.notes
    assert "the head is not all of" in note
    other = policy("MountainCar-v0", normalize_rewards=True, weights=weights)
    (note,) = other.notes
    assert note.startswith("weights: these begin anew")
    assert note.endswith(": return_normalization")
