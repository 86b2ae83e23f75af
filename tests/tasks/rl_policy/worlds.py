"""Small environments whose every number is known, registered with gymnasium for the tests here."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env[np.ndarray, np.int64]):
    """Observes (episode, step) in one array that it writes again and again, unless it `copies`; the reward is the step.

    The episodes of environment `e` last `lengths[episode % len]` steps; they terminate unless `truncates`.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, lengths: list[int], truncates: bool = False, copies: bool = False) -> None:
        self.lengths, self.truncates, self.copies = lengths, truncates, copies
        self.seen = np.array([-1, 0], np.float32)
        self.actions: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.seen += [1, 0]
        self.seen[1] = 0
        return self.seen.copy() if self.copies else self.seen, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"no action {action}")
        self.seen[1] += 1
        episode, step = self.seen
        ended = bool(step == self.lengths[int(episode) % len(self.lengths)])
        return (
            self.seen.copy() if self.copies else self.seen,
            float(step),
            ended and not self.truncates,
            ended and self.truncates,
            {"x": 1},
        )


class Broken(Counting):
    """Does one thing wrong at its second reset, or at step 3 after it: raises, or gives NaN or another shape."""

    def __init__(self, wrong: str) -> None:
        super().__init__([5])
        self.wrong = wrong

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if self.wrong == "reset" and self.seen[0] >= 0:
            raise OSError("the level is missing")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.seen.tolist() == [1, 3]:
            if self.wrong == "raises":
                raise ZeroDivisionError("the ball is nowhere")
            if self.wrong == "observation":
                observation = observation * np.float32("nan")
            if self.wrong == "reward":
                reward = float("inf")
            if self.wrong == "shape":
                observation = observation[:1]
            if self.wrong == "nothing":
                observation = None  # type: ignore[assignment]
        return observation, reward, terminated, truncated, info


class Masked(gymnasium.Env[Any, Any]):
    """Two choices, of 2 and of 3; what is allowed in the second alternates from step to step."""

    observation_space = spaces.Discrete(4)
    action_space = spaces.MultiDiscrete([2, 3])

    def __init__(self, by_method: bool, length: int = 2, gives: int = 1000) -> None:
        self.by_method, self.length, self.gives = by_method, length, gives
        self.count = 0
        if by_method:
            self.action_masks = self.masks

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        allowed = [1, 0, 1] if self.count % 2 else [0, 1, 1]
        return np.array([1, 1], np.int8), np.array(allowed, np.int8) * (self.count < self.gives)

    def _info(self) -> dict[str, Any]:
        return {} if self.by_method else {"action_mask": self.masks()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return 0, self._info()

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self.count, 0.0, self.count == self.length, False, self._info()


class Camera(gymnasium.Env[Any, Any]):
    """A picture and numbers, in nested mappings."""

    observation_space = spaces.Dict(
        camera=spaces.Box(0, 255, (4, 6, 3), np.uint8),
        body=spaces.Tuple([spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2, 2), np.float64)]),
    )
    action_space = spaces.Box(np.array([-1, -np.inf], np.float32), np.inf, (2,), np.float32)

    def _observe(self) -> dict[str, Any]:
        picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
        return {"camera": picture, "body": (np.int64(2), np.array([[1.0, 2.0], [3.0, 4.0]]))}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        return self._observe(), float(action.sum()), True, False, {}


worlds: list[Any] = [Counting, Broken, Masked, Camera]
for world in worlds:
    gymnasium.register(id=f"Worlds/{world.__name__}-v0", entry_point=world)
