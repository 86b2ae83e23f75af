"""The returns of random actions and of good play, which make an environment's return a score."""

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


_THRESHOLD = "gymnasium's reward threshold"
_GYMNAX = "PPO of gymnax, https://github.com/RobertTLange/gymnax, on its own copy of the game"

# Random: the mean of `measure_random`, with so many episodes. rl-baselines3-zoo: the table in its benchmark.md
# (https://github.com/DLR-RM/rl-baselines3-zoo), of one trained agent each, in part on earlier versions. Seaquest of
# MinAtar is left out: no trained agent's return was found in print.
_MEASURED = {
    "CartPole-v0": (22.5, 1000, 200.0, "its longest episode"),
    "CartPole-v1": (22.5, 1000, 500.0, "its longest episode"),
    "Acrobot-v1": (-499.3, 1000, -73.5, "PPO of rl-baselines3-zoo"),
    "MountainCar-v0": (-200.0, 200, -110.0, _THRESHOLD),
    "MountainCarContinuous-v0": (-32.8, 200, 90.0, _THRESHOLD),
    "Pendulum-v1": (-1234.2, 1000, -151.9, "TD3 of rl-baselines3-zoo"),
    "LunarLander-v3": (-184.7, 1000, 242.1, "PPO of rl-baselines3-zoo on v2"),
    "LunarLanderContinuous-v3": (-219.6, 1000, 270.9, "PPO of rl-baselines3-zoo on v2"),
    "BipedalWalker-v3": (-99.1, 200, 300.0, _THRESHOLD),
    "BipedalWalkerHardcore-v3": (-108.1, 200, 300.0, _THRESHOLD),
    "Taxi-v4": (-186.1, 1000, 8.0, _THRESHOLD),
    "FrozenLake-v1": (0.016, 10000, 0.7, _THRESHOLD),
    "FrozenLake8x8-v1": (0.003, 10000, 0.85, _THRESHOLD),
    "MinAtar/Asterix-v1": (0.503, 1000, 15.0, _GYMNAX),
    "MinAtar/Breakout-v1": (0.416, 1000, 28.0, _GYMNAX),
    "MinAtar/Freeway-v1": (0.3, 100, 58.0, _GYMNAX),
    "MinAtar/SpaceInvaders-v1": (4.095, 1000, 131.0, _GYMNAX),
    "Hopper-v5": (17.1, 1000, 3606.4, "TD3 of rl-baselines3-zoo on v3"),
    "HalfCheetah-v5": (-282.9, 100, 9655.7, "TD3 of rl-baselines3-zoo on v3"),
    "Walker2d-v5": (1.609, 1000, 4717.8, "TD3 of rl-baselines3-zoo on v3"),
    "Ant-v5": (-56.6, 200, 5813.3, "TD3 of rl-baselines3-zoo on v3"),
    "Humanoid-v5": (113.2, 500, 6232.3, "SAC of rl-baselines3-zoo on v3"),
    "Swimmer-v5": (0.764, 100, 360.0, _THRESHOLD),
    "Reacher-v5": (-42.8, 1000, -3.75, _THRESHOLD),
    "InvertedPendulum-v5": (5.079, 1000, 950.0, _THRESHOLD),
    "InvertedDoublePendulum-v5": (47.1, 1000, 9100.0, _THRESHOLD),
}

# Random play and a professional tester's, by the game's name: Mnih et al. 2015, Wang et al. 2016, as DQN Zoo has them
# (https://github.com/google-deepmind/dqn_zoo/blob/master/dqn_zoo/atari_data.py): up to 30 no-operations at first, no
# sticky actions.
_ATARI = {
    "Alien": (227.8, 7127.7),
    "Amidar": (5.8, 1719.5),
    "Assault": (222.4, 742.0),
    "Asterix": (210.0, 8503.3),
    "Asteroids": (719.1, 47388.7),
    "Atlantis": (12850.0, 29028.1),
    "BankHeist": (14.2, 753.1),
    "BattleZone": (2360.0, 37187.5),
    "BeamRider": (363.9, 16926.5),
    "Berzerk": (123.7, 2630.4),
    "Bowling": (23.1, 160.7),
    "Boxing": (0.1, 12.1),
    "Breakout": (1.7, 30.5),
    "Centipede": (2090.9, 12017.0),
    "ChopperCommand": (811.0, 7387.8),
    "CrazyClimber": (10780.5, 35829.4),
    "Defender": (2874.5, 18688.9),
    "DemonAttack": (152.1, 1971.0),
    "DoubleDunk": (-18.6, -16.4),
    "Enduro": (0.0, 860.5),
    "FishingDerby": (-91.7, -38.7),
    "Freeway": (0.0, 29.6),
    "Frostbite": (65.2, 4334.7),
    "Gopher": (257.6, 2412.5),
    "Gravitar": (173.0, 3351.4),
    "Hero": (1027.0, 30826.4),
    "IceHockey": (-11.2, 0.9),
    "Jamesbond": (29.0, 302.8),
    "Kangaroo": (52.0, 3035.0),
    "Krull": (1598.0, 2665.5),
    "KungFuMaster": (258.5, 22736.3),
    "MontezumaRevenge": (0.0, 4753.3),
    "MsPacman": (307.3, 6951.6),
    "NameThisGame": (2292.3, 8049.0),
    "Phoenix": (761.4, 7242.6),
    "Pitfall": (-229.4, 6463.7),
    "Pong": (-20.7, 14.6),
    "PrivateEye": (24.9, 69571.3),
    "Qbert": (163.9, 13455.0),
    "Riverraid": (1338.5, 17118.0),
    "RoadRunner": (11.5, 7845.0),
    "Robotank": (2.2, 11.9),
    "Seaquest": (68.4, 42054.7),
    "Skiing": (-17098.1, -4336.9),
    "Solaris": (1236.3, 12326.7),
    "SpaceInvaders": (148.0, 1668.7),
    "StarGunner": (664.0, 10250.0),
    "Surround": (-10.0, 6.5),
    "Tennis": (-23.8, -8.3),
    "TimePilot": (3568.0, 5229.2),
    "Tutankham": (11.4, 167.6),
    "UpNDown": (533.4, 11693.2),
    "Venture": (0.0, 1187.5),
    "VideoPinball": (16256.9, 17667.9),
    "WizardOfWor": (563.5, 4756.5),
    "YarsRevenge": (3092.9, 54576.9),
    "Zaxxon": (32.5, 9173.3),
}

REFERENCES: dict[str, Reference] = {
    **{
        name: Reference(random, reference, f"random: {episodes} episodes; reference: {source}")
        for name, (random, episodes, reference, source) in _MEASURED.items()
    },
    **{
        f"ALE/{game}-v5": Reference(random, human, "random and human play as in DQN Zoo")
        for game, (random, human) in _ATARI.items()
    },
}


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
