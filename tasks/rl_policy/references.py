"""The returns of random actions and of good play that make an environment's return a score."""

from dataclasses import dataclass

import numpy as np

from .registration import find, make
from .vectors import Guard, random_action


@dataclass(frozen=True)
class Reference:
    """Two returns of an environment, undiscounted and of whole episodes.

    Args:
        random: The mean return of random actions.
        reference: The return that counts as a score of 1.
        source: Where the two come from.
    """

    random: float
    reference: float
    source: str


REFERENCES: dict[str, Reference] = {}


def measure_random(environment: str, episodes: int, seed: int = 0) -> np.ndarray:
    """The returns (episodes,) of actions drawn uniformly from those that are allowed.

    Args:
        environment: An id that gymnasium knows; its episodes must end.
        episodes: How many to play.
        seed: Of the first episode and of the actions; the other episodes follow from it.
    """
    env = Guard(make(find(environment), {}, (), training=False, render=False), environment, 0)
    generator = np.random.default_rng(seed)
    returns = np.zeros(episodes)
    for episode in range(episodes):
        env.reset(seed=seed if episode == 0 else None)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(random_action(env, generator))
            returns[episode] += reward
            ended = terminated or truncated
    env.close()
    return returns
