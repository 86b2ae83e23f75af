"""Policies for gymnasium environments, learned by proximal policy optimisation (PPO)."""

from .data import Gymnasium
from .heads import Embedding, Flattened, Pooled
from .ppo import PPO
from .spec import PolicySpec
from .task import RLPolicy
from .updates import FusedAdam
from .wrappers import (
    AtariPreprocessing,
    ClipReward,
    EpisodicLife,
    FrameStack,
    Greyscale,
    RescaleAction,
    Resize,
    ScaleReward,
    StickyActions,
    TimeLimit,
    Wrapping,
)

__all__ = [
    "PPO",
    "AtariPreprocessing",
    "ClipReward",
    "Embedding",
    "EpisodicLife",
    "Flattened",
    "FrameStack",
    "FusedAdam",
    "Greyscale",
    "Gymnasium",
    "PolicySpec",
    "Pooled",
    "RLPolicy",
    "RescaleAction",
    "Resize",
    "ScaleReward",
    "StickyActions",
    "TimeLimit",
    "Wrapping",
]
