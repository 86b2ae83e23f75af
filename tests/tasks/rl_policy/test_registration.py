import sys
from typing import Any

import gymnasium
import pytest

from resdomains_tasks.rl_policy.registration import find, make
from resdomains_tasks.rl_policy.wrappers import ClipReward, FrameStack, Greyscale

from . import worlds


def find_and_make(environment: str, **options: Any) -> gymnasium.Env[Any, Any]:
    return make(find(environment), options, (), training=True, render=False)


def test_an_id_does_not_say_what_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with pytest.raises(ValueError, match=r"module 'this', .*if you trust it: --plugin this$"):
        find("this:CartPole-v1")
    assert "this" not in sys.modules
    assert find("gymnasium:CartPole-v1").id == "CartPole-v1"
    assert find("minatar.gym:MinAtar/Breakout-v1").id == "MinAtar/Breakout-v1"


def test_wrappers_for_training_alone_are_used_in_training_alone() -> None:
    def names(training: bool) -> list[str]:
        wrappers = [ClipReward(), FrameStack(2)]
        env = make(find("CartPole-v1"), {}, wrappers, training=training, render=False)
        return [name for name in ("FrameStack", "ClipReward") if f"<{name}" in str(env)]

    assert names(True) == ["FrameStack", "ClipReward"]
    assert names(False) == ["FrameStack"]


def test_what_cannot_be_made_says_why() -> None:
    with pytest.raises(ValueError, match=r"CartPole-v1 cannot be made: TypeError: .*'graviti'"):
        find_and_make("CartPole-v1", graviti=3)
    with pytest.raises(ValueError, match="wrappers: CartPole-v1: Greyscale takes pictures"):
        make(find("CartPole-v1"), {}, [Greyscale()], training=True, render=False)


def test_gymnasiums_checker_is_left_out() -> None:
    env = find_and_make("Worlds/Counting-v0", lengths=[3])
    assert isinstance(env.unwrapped, worlds.Counting)
    assert "PassiveEnvChecker" not in str(env)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("Cartpole-v1", "knows no environment 'Cartpole-v1'; near are .*CartPole-v1"),
        ("LunarLander-v2", "near are LunarLander-v3"),
        ("ALE/Pang-v5", "near are ALE/Pong-v5"),
        ("MinAtar/Brakout-v1", "near are MinAtar/Breakout-v0, MinAtar/Breakout-v1"),
        ("gymnasium:X-v0", "knows no environment 'X-v0'.* name the package with --plugin"),
    ],
)
def test_an_unknown_environment_brings_the_nearest(environment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_and_make(environment)


@pytest.mark.parametrize(
    ("environment", "module", "extra"),
    [
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("MinAtar/Breakout-v1", "minatar.gym", "minatar"),
        ("LunarLander-v3", "gymnasium.envs.box2d.lunar_lander", "rl"),
        ("Hopper-v5", "gymnasium.envs.mujoco.hopper_v5", "mujoco"),
    ],
)
def test_a_missing_package_brings_the_extra_to_install(
    monkeypatch: pytest.MonkeyPatch, environment: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for known in [known for known in gymnasium.registry if known.startswith(("ALE/", "MinAtar/"))]:
        monkeypatch.delitem(gymnasium.registry, known)
    with pytest.raises(ValueError, match=rf'pip install "resdomains\[{extra}\]"'):
        find_and_make(environment)
