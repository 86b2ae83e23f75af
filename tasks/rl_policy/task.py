"""The task: a policy and a critic of residual networks, learned by proximal policy optimisation (PPO)."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from resdomains import schema
from resdomains.interop import Weights
from resdomains.schema import Split
from resdomains.training import BadSample, Film, Optimization, StepResult, Task
from resdomains.training.clipping import clip_by_norm
from resdomains.training.randomness import keys
from resdomains.training.task import counted

from . import metrics
from .data import Episodes, Turn
from .distributions import distribution_of
from .episodes import Episode, Noise, play, play_alone
from .estimates import Estimates
from .film import film as film_of
from .film import on_screen
from .gae import generalized_advantages
from .heads import Embedding, PolicyHead, Pooled, ValueHead
from .inputs import Inputs
from .normalization import ReturnNormalization
from .ppo import PPO, Terms, Transitions, minibatches, normalise
from .recordings import Recording, read_recordings, records
from .recordings import collate as recordings_batch
from .rollout import Acted, Rollout, Runner
from .spec import PolicySpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Acting = Literal["deterministic", "sampled"]
_OTHER: Mapping[Acting, Acting] = {"deterministic": "sampled", "sampled": "deterministic"}
_FIRST_STEPS = 32
_ROWS = 4096  # observations that the critic reads at once
_UPDATE_MEASURES = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")


class Recorded(NamedTuple):
    """Observations to say an action for.

    Args:
        sources: Where each stands.
        observations: (N, ...) by name.
    """

    sources: list[str]
    observations: dict[str, Tensor]


class RLPolicy(Task):
    """A policy pi(a | s) and a critic V(s) that read residual networks, and learn from what they do.

    An iteration lets the policy act in the data's environments, estimates advantages, and makes `algorithm.epochs`
    passes over the steps in minibatches (Schulman et al. 2017). Statistics of normalisation change between iterations
    only, and are part of the weights: a checkpoint holds all that a policy needs.

    The score is (return - random) / (reference - random), clipped to [0, 1], where both returns are known.

    Args:
        backbone: The network that reads observations; `in_channels` follows the environment if the config leaves it
            out.
        spec: The environment's description.
        optimization: Optimizer, rate and schedule, a step of which is an iteration; Adam-like optimizers are usual.
        weights: Weights to begin with, such as an earlier run's; for another environment's actions the head is new.
        algorithm: PPO's numbers.
        stems: For observations of several parts: a network for each part that is no vector, by name.
        embedding: Makes one vector of the backbone's features.
        critic: `separate` gives the critic a network of its own, equal to the backbone in kind; with `shared` both
            read one. Separate ones learn better from vectors (Andrychowicz et al. 2021, choice "shared networks").
        normalize_observations: Whether vectors and sequences get mean 0 and standard deviation 1, by running moments.
        normalize_rewards: Whether rewards are divided by the standard deviation of the running discounted return.
        log_std: Logarithm of the standard deviation that continuous actions begin with.
        acting: How the policy acts in evaluation: `deterministic`, its likeliest action, or `sampled`. The test plays
            both ways.

    Raises:
        ValueError: If the networks cannot read the observations.
    """

    needs_inputs: ClassVar[bool] = False

    predict_options: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "episodes": int,
        "first_seed": int,
        "acting": str,
        "render": bool,
    }

    measures: ClassVar[Sequence[str]] = (
        "return",
        "length",
        "policy_loss",
        "value_loss",
        "entropy",
        "kl",
        "clip_fraction",
        "explained_variance",
    )

    def __init__(
        self,
        *,
        backbone: nn.Module,
        spec: dict[str, Any],
        optimization: Optimization | None = None,
        weights: Weights | None = None,
        algorithm: PPO | None = None,
        stems: Mapping[str, nn.Module] | None = None,
        embedding: Callable[[Sequence[int]], Embedding] = Pooled,
        critic: Literal["separate", "shared"] = "separate",
        normalize_observations: bool = True,
        normalize_rewards: bool = False,
        log_std: float = 0.0,
        acting: Acting = "deterministic",
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        if critic not in ("separate", "shared"):
            raise ValueError(f"critic must be separate or shared, got {critic!r}")
        self.automatic_optimization = False
        self.policy_spec = PolicySpec.of(spec)
        self.algorithm = algorithm if algorithm is not None else PPO()
        self.distribution = distribution_of(self.policy_spec.action)
        self.inputs = Inputs(self.policy_spec.observations, stems, normalize_observations)
        shape = self.inputs.output_shape(backbone)
        self.embedding = embedding(shape)
        continuous = self.policy_spec.action["kind"] == "continuous"
        numbers = self.distribution.size // 2 if continuous else self.distribution.size
        self.head = PolicyHead(
            self.embedding.channels, numbers, numbers if continuous else 0, log_std
        )
        own = critic == "separate"
        # Equal weights at first do no harm: what follows them differs.
        self.critic_backbone = copy.deepcopy(backbone) if own else None
        self.critic_embedding = embedding(shape) if own else None
        self.value_head = ValueHead(self.embedding.channels)
        self.return_normalization = (
            ReturnNormalization(self.algorithm.discount) if normalize_rewards else None
        )
        further = ("inputs", "embedding", "critic_backbone", "critic_embedding", "value_head")
        normalized = ("return_normalization",) if normalize_rewards else ()
        others = [name for name in further if own or not name.startswith("critic")]
        self.begin_with(weights, self.head, self.policy_spec, [*others, *normalized])
        self.acting = acting
        self._episodes, self._first_seed, self._render = 10, 0, False
        self.build_all_metrics()

    @classmethod
    def fixed_by(cls, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the channels of the observation, where it has one part."""
        parts = list(spec["observations"].values())
        return {"backbone.in_channels": parts[0]["shape"][0]} if len(parts) == 1 else {}

    def forward(self, observations: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the parameters (N, P) of the distribution of actions, and the values (N,)."""
        x = self.inputs(observations)
        embedded = self.embedding(self.backbone(x))
        return self.head(embedded), self._value(x, embedded)

    def policy(self, observations: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the parameters, and the values where the critic reads the same network."""
        x = self.inputs(observations)
        embedded = self.embedding(self.backbone(x))
        own = self.critic_backbone is not None
        return self.head(embedded), None if own else self.value_head(embedded)

    def values(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Return the values (N,)."""
        x = self.inputs(observations)
        return self._value(
            x, self.embedding(self.backbone(x)) if self.critic_backbone is None else x
        )

    def _value(self, x: Tensor, embedded: Tensor) -> Tensor:
        if self.critic_backbone is not None and self.critic_embedding is not None:
            embedded = self.critic_embedding(self.critic_backbone(x))
        return cast(Tensor, self.value_head(embedded))

    @property
    def steps_done(self) -> int:
        """How many iterations are done."""
        return int(cast(LRScheduler, self.lr_schedulers()).last_epoch)

    def schedule_steps(self, optimizer_steps: int) -> int:
        """Return how many iterations make so many updates, if none is stopped early."""
        assert self.data is not None
        parts = -(-self.data.batch_size // self.algorithm.minibatch_size)
        return -(-optimizer_steps // (self.algorithm.epochs * parts))

    @property
    def monitor(self) -> str:
        """The return: the score is clipped, and not every environment has one."""
        return schema.key("val", "return")

    def score_of(self, monitored: float) -> float:
        """Return the score of a return."""
        return float(self.score({"return": torch.tensor(monitored)}))

    @property
    def gradient_clip(self) -> tuple[str, float | None]:
        """PPO clips the gradients itself."""
        return "model.algorithm.max_gradient_norm", self.algorithm.max_gradient_norm

    def step(self, batch: Any, split: Split) -> StepResult:
        """Return PPO's loss of steps, or of evaluated episodes, which are played, the mean squared error of the values.

        In training, a `Turn` gives the loss of the steps that the policy takes in it, and `Episodes` that of their
        first steps: `training_step` alone learns more than once from what it sees.
        """
        if isinstance(batch, Turn):
            generator = torch.Generator().manual_seed(0)
            batch = self.first_look(batch.runner, batch.steps, generator)
        elif split == "train" and isinstance(batch, Episodes):
            generator = torch.Generator().manual_seed(batch.seeds[0])
            batch.environments.reset(batch.seeds)
            alone = Runner(batch.environments, 0, batch.environments.count)
            batch = self.first_look(alone, _FIRST_STEPS, generator)
        if isinstance(batch, Transitions):
            return StepResult(self.terms(batch, self.algorithm.clip).loss, len(batch))
        assert isinstance(batch, Episodes)
        scale = 1.0 if self.return_normalization is None else self.return_normalization.factor
        played = self._play(batch, self.acting)
        kept = self.metrics_of(split)
        kept["episodes"].update(batch.index, played, scale)
        # The test plays the other way too.
        again = self._play(batch, _OTHER[self.acting]) if split == "test" else []
        kept["other"].update(batch.index[: len(again)], again)
        losses = [episode.value_loss(self.algorithm.discount, scale) for episode in played]
        return StepResult(torch.tensor(losses).mean(), len(played))

    def _play(self, batch: Episodes, acting: Acting) -> list[Episode]:
        return play(
            self.act,
            batch.environments,
            batch.seeds,
            limit=self.policy_spec.episode_limit,
            noise=self._noise(acting),
        )

    def _noise(self, acting: Acting) -> Noise | None:
        return self.distribution.noise if acting == "sampled" else None

    def act(
        self,
        observations: Mapping[str, npt.NDArray[Any]],
        masks: npt.NDArray[np.bool_] | None,
        noise: Tensor | None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.floating[Any]]]:
        """Return actions as environments take them, and values; without noise the likeliest actions."""
        parts = {name: torch.from_numpy(x).to(self.device) for name, x in observations.items()}
        allowed = None if masks is None else torch.from_numpy(masks).to(self.device)
        with torch.no_grad():
            parameters, values = self(parts)
        parameters = parameters.float()
        if noise is None:
            actions = self.distribution.mode(parameters, allowed)
        else:
            actions = self.distribution.sample(parameters, noise.to(self.device), allowed)
        taken = self.distribution.for_environment(actions.cpu())
        return taken, values.float().cpu().numpy()

    def terms(self, transitions: Transitions, clip: float) -> Terms:
        """Return PPO's loss and its parts."""
        parameters, values = self(transitions.observations)
        return self.algorithm.terms(
            self.distribution, parameters.float(), values.float(), transitions, clip
        )

    def on_train_start(self) -> None:
        """Know how many iterations there are."""
        super().on_train_start()
        self.total_iterations = self.total_steps()

    def training_step(self, batch: Turn, batch_idx: int) -> dict[str, Any]:
        """Act, estimate advantages, and learn from the steps in minibatches: one iteration."""
        self.seed_draws(batch_idx)
        generator = torch.Generator()
        assert self.data is not None
        seed = self.data.seed
        generator.manual_seed(int(keys(seed, self.current_epoch, torch.tensor([batch_idx]))))
        rollout = self.roll_out(batch.runner, batch.steps, generator)
        estimates = self.estimate(rollout, batch.runner)
        transitions = self.transitions(rollout, estimates, batch.runner.own)
        means = self._learn(transitions, estimates, batch.runner, generator).mean(0)
        self._remember(rollout)
        cast(LRScheduler, self.lr_schedulers()).step()
        policy, value, entropy, *_ = means
        algorithm = self.algorithm
        loss = policy + algorithm.value_weight * value - algorithm.entropy * entropy
        measures = {name: torch.tensor(value) for name, value in estimates.measures.items()}
        measures |= dict(zip(_UPDATE_MEASURES, means, strict=True))
        items = int(estimates.valid[:, batch.runner.own].sum())
        return self.outcome(StepResult(loss, items, measures))

    def first_look(self, runner: Runner, steps: int, generator: torch.Generator) -> Transitions:
        """Act, and return the steps as a single minibatch, advantages normalised: what the first update looks at."""
        rollout = self.roll_out(runner, steps, generator)
        estimates = self.estimate(rollout, runner).normalised()
        valid = torch.from_numpy(estimates.valid[:, runner.own].reshape(-1)).nonzero().squeeze(1)
        return self.transitions(rollout, estimates, runner.own)[valid.to(self.device)]

    def roll_out(self, runner: Runner, steps: int, generator: torch.Generator) -> Rollout:
        """Act in the environments, with noise that all processes draw alike: each takes its environments' part."""
        noise = self.distribution.noise(steps * runner.total, generator)
        noise = noise.view(steps, runner.total, *noise.shape[1:])[:, runner.own].to(self.device)
        on_cpu = self.device.type == "cpu"

        def act(step: int, observations: dict[str, Tensor], masks: Tensor | None) -> Acted:
            if not on_cpu:
                observations = {name: x.to(self.device) for name, x in observations.items()}
                masks = None if masks is None else masks.to(self.device)
            with torch.inference_mode():
                parameters, values = self.policy(observations)
                parameters = parameters.float()
                actions = self.distribution.sample(parameters, noise[step], masks)
            if not on_cpu:
                parameters, actions = parameters.cpu(), actions.cpu()
                values = None if values is None else values.cpu()
            return Acted(parameters, actions, self.distribution.for_environment(actions), values)

        mode = self.training
        self.eval()
        rollout = runner.collect(steps, act)
        self.train(mode)
        return rollout

    def estimate(self, rollout: Rollout, runner: Runner) -> Estimates:
        """Estimate the advantages of the steps of all processes, in every process alike."""
        steps, count = rollout.rewards.shape
        observed = {name: part.flatten(0, 1) for name, part in rollout.observations.items()}
        values = rollout.values
        if values is None or len(values) == steps:
            missing = observed if values is None else _rows(observed, -count)
            found = self._values_of(missing).view(-1, count)
            values = found if values is None else torch.cat((values.float(), found))
        final = np.zeros((steps, count), np.float32)
        if rollout.final:
            final[tuple(rollout.final_places.T)] = self._values_of(rollout.final).numpy()
        local = np.zeros((6, steps + 1, count), np.float32)
        for place, part in enumerate(
            (rollout.rewards, rollout.terminated, rollout.truncated, rollout.reset, final)
        ):
            local[place, :-1] = part
        local[5] = values.numpy()
        rewards, terminated, truncated, reset, final, learned = self._gather(local, runner)
        rewards, final = rewards[:-1], final[:-1]
        terminated, truncated, reset = (x[:-1].astype(bool) for x in (terminated, truncated, reset))
        ended, valid = terminated | truncated, ~reset
        returns, lengths = runner.count_on(rewards, ended, valid)
        if self.return_normalization is not None:
            rewards, runner.discounted = self.return_normalization.scale(
                rewards, ended, valid, runner.discounted
            )
        advantages = generalized_advantages(
            rewards,
            learned[:-1],
            learned[-1],
            terminated,
            truncated,
            reset,
            final if rollout.final is not None else None,
            self.algorithm.discount,
            self.algorithm.gae_lambda,
        )
        return Estimates.of(advantages, learned[:-1], valid, returns, lengths)

    def transitions(self, rollout: Rollout, estimates: Estimates, own: slice) -> Transitions:
        """Return this process's steps as they are learned from, on its device; advantages as they were estimated."""
        advantages, returns, values = estimates.own(own)
        parameters = rollout.parameters.flatten(0, 1)
        actions = rollout.actions.flatten(0, 1)
        masks = None if rollout.masks is None else rollout.masks.flatten(0, 1)
        return Transitions(
            observations={name: x.to(self.device) for name, x in rollout.seen.items()},
            actions=actions.to(self.device),
            log_probs=self.distribution.log_prob(parameters, actions, masks).to(self.device),
            advantages=advantages.to(self.device),
            returns=returns.to(self.device),
            values=values.to(self.device),
            masks=None if masks is None else masks.to(self.device),
            count=len(advantages),
            share=1.0 / len(advantages),
        )

    def _learn(
        self,
        transitions: Transitions,
        estimates: Estimates,
        runner: Runner,
        generator: torch.Generator,
    ) -> Tensor:
        """Make the iteration's updates; return (updates, 5), the loss's parts, means over all processes."""
        algorithm = self.algorithm
        clip = algorithm.clip_at(self.steps_done / self.total_iterations)
        optimizer = cast(LightningOptimizer, self.optimizers())
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        parts: list[Tensor] = []
        for minibatch in self._minibatches(transitions, estimates, runner, generator):
            found = self._counted_terms(minibatch, clip)
            parts.append(found.parts)
            # Where nothing can stop the updates, none waits to read a number from the device.
            if algorithm.target_kl is not None and algorithm.stops(float(self._mean(found.kl))):
                break
            for parameter in learning:
                parameter.grad = None
            self.manual_backward(found.loss)
            if algorithm.max_gradient_norm is not None:
                clip_by_norm(learning, algorithm.max_gradient_norm)
            optimizer.step()
        return self._mean(torch.stack(parts))

    def _minibatches(
        self,
        transitions: Transitions,
        estimates: Estimates,
        runner: Runner,
        generator: torch.Generator,
    ) -> Iterator[Transitions]:
        """Yield this process's steps of each minibatch of all epochs."""
        algorithm = self.algorithm
        valid = estimates.valid.reshape(-1)
        of_rollout = algorithm.normalize_advantages == "rollout"
        advantages = (estimates.normalised() if of_rollout else estimates).advantages

        def part(index: Tensor) -> Transitions:
            chosen = advantages[index]
            if algorithm.normalize_advantages == "minibatch":
                chosen = normalise(chosen)
            return self._own_part(transitions, index, chosen, runner)

        for _ in range(algorithm.epochs):
            drawn = minibatches(valid, algorithm.minibatch_size, generator)
            if len(drawn) == 1:
                # The order of steps within a minibatch means nothing: one serves all epochs.
                yield from repeat(part(drawn[0]), algorithm.epochs)
                return
            yield from map(part, drawn)

    def _own_part(
        self, transitions: Transitions, index: Tensor, advantages: Tensor, runner: Runner
    ) -> Transitions:
        """Return this process's steps of a minibatch of all processes' steps."""
        count, processes = len(index), self.trainer.world_size
        if processes > 1:
            place = index % runner.total
            mine = (place >= runner.own.start) & (place < runner.own.stop)
            own = runner.own.stop - runner.own.start
            index = (index // runner.total * own + place - runner.own.start)[mine]
            advantages = advantages[mine]
        part = transitions[index.to(self.device)].shared(count, processes)
        return replace(part, advantages=advantages.to(self.device))

    def _counted_terms(self, part: Transitions, clip: float) -> Terms:
        if self.flops_per_sample or not len(part):
            return self.terms(part, clip)
        terms, operations = counted(lambda: self.terms(part, clip))
        # A step is read once to act, and in each epoch, where backward takes twice the forward's operations.
        passes = 1 + 3 * self.algorithm.epochs
        self.flops_per_sample = round(passes * operations / len(part))
        return terms

    def _remember(self, rollout: Rollout) -> None:
        """Take the rollout's observations into the running moments, those of all processes."""
        self.inputs.update(rollout.seen, torch.from_numpy(~rollout.reset.reshape(-1)))

    @torch.no_grad()
    def _values_of(self, observations: Mapping[str, Tensor]) -> Tensor:
        """Return the values (N,) of observations on the CPU, computed a few at a time."""
        count = len(next(iter(observations.values())))
        found = [
            self.values({n: x[at : at + _ROWS].to(self.device) for n, x in observations.items()})
            for at in range(0, count, _ROWS)
        ]
        return torch.cat(found).float().cpu()

    def _gather(self, local: npt.NDArray[np.float32], runner: Runner) -> npt.NDArray[np.float32]:
        """Return (..., total) of all processes' (..., E), their environments one process after another."""
        if local.shape[-1] == runner.total:
            return local
        every = self.trainer.strategy.all_gather(torch.from_numpy(local).to(self.device))
        return torch.cat(list(every.cpu()), -1).numpy()

    def _mean(self, value: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(value, reduce_op="mean"))

    def build_metrics(self) -> dict[str, Metric]:
        """Return what episodes bring: return, its interquartile mean and spread, length."""
        return metrics.build_metrics(self.algorithm.discount, _OTHER[self.acting])

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        """Return (return - random) / (reference - random), clipped to [0, 1]; NaN without references."""
        lowest, highest = self.policy_spec.random_return, self.policy_spec.reference_return
        if lowest is None or highest is None:
            return torch.tensor(torch.nan)
        return ((results["return"] - lowest) / (highest - lowest)).clamp(0.0, 1.0)

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        """Return 0, the score of random actions, or None where their return is not known."""
        return None if spec["random_return"] is None else 0.0

    def figures(self, split: Split, results: Mapping[str, Tensor]) -> "dict[str, Figure]":
        """Return the returns' distribution, return over length, and the best and the worst episode step by step."""
        from .figures import drawn

        spec = self.policy_spec
        title = f"{spec.environment}, {split}"
        return drawn(results, title, spec.random_return, spec.reference_return)

    def tables(
        self, split: Split, results: Mapping[str, Tensor]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the episodes, the worst first."""
        return metrics.tables(results)

    def examples(self, split: Split, results: Mapping[str, Tensor]) -> list[str]:
        """Return a line on the worst, the middle and the best episode."""
        return metrics.examples(results)

    def films(self, split: Split, results: Mapping[str, Tensor]) -> Mapping[str, Film]:
        """Return a film of the episode of the median return."""
        return {"episode": self.film(metrics.typical(results))}

    @property
    def episodes(self) -> int:
        """How many episodes `predict` plays without inputs."""
        return self._episodes

    @episodes.setter
    def episodes(self, value: int) -> None:
        if value < 1:
            raise ValueError(f"must be at least 1, got {value}")
        self._episodes = value

    @property
    def first_seed(self) -> int:
        """The seed of the first episode that `predict` plays; the others count on from it."""
        return self._first_seed

    @first_seed.setter
    def first_seed(self, value: int) -> None:
        if not 0 <= value < 2**31:
            raise ValueError(f"must lie in [0, 2^31), got {value}")
        self._first_seed = value

    @property
    def acting(self) -> Acting:
        """How the policy acts: `deterministic`, its likeliest action, or `sampled`."""
        return self._acting

    @acting.setter
    def acting(self, value: Acting) -> None:
        if value not in _OTHER:
            raise ValueError(f"acting must be deterministic or sampled, got {value!r}")
        self._acting = value

    @property
    def render(self) -> bool:
        """Whether `predict` shows its episodes in a window, one after the other."""
        return self._render

    @render.setter
    def render(self, value: bool) -> None:
        if value:
            on_screen(self.policy_spec)
        self._render = value

    def read(self, inputs: Sequence[str]) -> Iterable[Recording | BadSample | int]:
        """Yield the observations of `.npy` files and folders of them; without inputs the seeds of episodes to play."""
        if inputs:
            return read_recordings(inputs, self.policy_spec.observations)
        return range(self._first_seed, self._first_seed + self._episodes)

    def collate(self, items: Sequence[Recording | int]) -> list[int] | Recorded:
        """Return the seeds, or the observations of recordings as one batch."""
        recordings = [item for item in items if isinstance(item, Recording)]
        if not recordings:
            return [item for item in items if isinstance(item, int)]
        batch = recordings_batch(recordings, self.policy_spec.observations)
        return Recorded([recording.source for recording in recordings], batch)

    def predict(self, batch: list[int] | Recorded) -> list[dict[str, Any]]:
        """Return what the policy does for recorded observations, or what came of the episodes that it plays.

        A played episode's record has its `seed`, `return`, `length` and `end`; an observation's its `source`, `action`,
        `value`, and what its distribution is.
        """
        if isinstance(batch, Recorded):
            parameters, values = self(
                {name: part.to(self.device) for name, part in batch.observations.items()}
            )
            parameters, values = parameters.float().cpu(), values.float().cpu()
            taken = self.distribution.for_environment(self.distribution.mode(parameters))
            return records(batch.sources, taken, values, parameters, self.policy_spec.action)
        spec = on_screen(self.policy_spec) if self._render else self.policy_spec
        noise = self._noise(self._acting)
        played = play_alone(self.act, spec, batch, noise=noise, together=not self._render)
        return [episode.record() for episode in played]

    def film(self, record: Mapping[str, Any]) -> Film:
        """Return a film of a played episode, which is played again.

        Raises:
            NoFilm: If the environment draws nothing.
        """
        noise = self._noise(self._acting)
        seed, steps = int(record["seed"]), int(record["length"])
        return film_of(self.act, self.policy_spec, seed, steps=steps, noise=noise)


def _rows(observations: Mapping[str, Tensor], first: int) -> dict[str, Tensor]:
    return {name: part[first:] for name, part in observations.items()}
