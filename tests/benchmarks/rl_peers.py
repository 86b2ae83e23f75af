"""Stable-Baselines3's PPO as rl-baselines3-zoo sets it, and one way to evaluate any policy of CartPole-v1."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

ENVIRONMENT = "CartPole-v1"
ENVIRONMENTS = 8

# hyperparams/ppo.yml of rl-baselines3-zoo; `lin_x` there falls from x to 0 over the training.
CARTPOLE: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": lambda left: 0.001 * left,
    "clip_range": lambda left: 0.2 * left,
}
CARTPOLE_STEPS = 100_000


def zoo_cartpole(seed: int) -> PPO:
    """Return the zoo's PPO for CartPole-v1, untrained."""
    environments = make_vec_env(ENVIRONMENT, n_envs=ENVIRONMENTS, seed=seed)
    return PPO("MlpPolicy", environments, seed=seed, device="cpu", verbose=0, **CARTPOLE)


class Evaluator:
    """The mean return of a policy over the same episodes each time, played side by side.

    Args:
        episodes: How many.
        seed: Of the environments.
    """

    def __init__(self, episodes: int, seed: int = 1_000_000) -> None:
        self.environments = gymnasium.make_vec(
            ENVIRONMENT, num_envs=episodes, vectorization_mode="vector_entry_point"
        )
        self.seed = seed

    def __call__(self, act: Callable[[np.ndarray], np.ndarray]) -> float:
        """Return the mean return of a policy that maps observations (episodes, 4) to actions (episodes,)."""
        observations, _ = self.environments.reset(seed=self.seed)
        playing = np.ones(self.environments.num_envs, dtype=bool)
        returns = np.zeros(self.environments.num_envs)
        while playing.any():
            observations, rewards, terminated, truncated, _ = self.environments.step(
                act(observations)
            )
            returns += rewards * playing
            playing &= ~(terminated | truncated)
        return float(returns.mean())


class AfterSteps(BaseCallback):
    """Calls something after each step of the environments, with their number so far; stops when it returns False.

    Args:
        call: What.
    """

    def __init__(self, call: Callable[[int], bool]) -> None:
        super().__init__()
        self.call = call

    def _on_step(self) -> bool:
        return self.call(self.num_timesteps)
