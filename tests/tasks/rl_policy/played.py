"""Episodes as if they had been played."""

import numpy as np

from resdomains_tasks.rl_policy.episodes import ENDS, Episode


def episode(seed: int, rewards: list[float], end: int = 0) -> Episode:
    """An episode whose critic always expects 1, and 2 behind its end unless it is terminated.

    Args:
        seed: Its seed.
        rewards: Its rewards.
        end: The place of its end in `ENDS`.
    """
    values = np.ones(len(rewards), np.float32)
    given = np.array(rewards, np.float32)
    return Episode(seed, given, values, ENDS[end], 2.0 if end else 0.0)


def some() -> list[Episode]:
    """Five episodes: returns 4, -2, 10, 4 and 0, of 1 to 3 steps, of seeds 10 to 14."""
    return [
        episode(10, [4.0]),
        episode(11, [-1.0, -1.0], 1),
        episode(12, [5.0, 2.5, 2.5]),
        episode(13, [2.0, 2.0], 2),
        episode(14, [0.0]),
    ]
