"""Films of real environments, and why there is none."""

import os
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from PIL import Image

from resdomains.training import NoFilm
from resdomains_tasks.rl_policy.environments import describe
from resdomains_tasks.rl_policy.episodes import play_alone
from resdomains_tasks.rl_policy.film import film, on_screen, rate
from resdomains_tasks.rl_policy.spec import PolicySpec


@pytest.fixture(scope="module")
def cart() -> PolicySpec:
    return describe("CartPole-v1")


def still(observations: Any, masks: Any, noise: Any) -> tuple[Any, Any]:
    count = len(observations["observation"])
    return np.zeros(count, np.int64), np.zeros(count)


def test_a_film_shows_the_episode_that_the_seed_gives(cart: PolicySpec, tmp_path: Any) -> None:
    (episode,) = play_alone(still, cart, [4])
    found = film(still, cart, 4)
    assert len(found.times) == episode.length + 1
    assert found.times[-1] == pytest.approx(episode.length / 50)
    found.write(tmp_path / "a.gif")
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=4)
    shown = np.asarray(env.render())[::2, ::2].astype(int)
    with Image.open(tmp_path / "a.gif") as image:
        first = np.array(image.convert("RGB")).astype(int)
    assert np.abs(first - shown).mean() < 2
    assert first.min() < 100, "there is a cart"


def test_without_a_display_none_is_looked_for(
    cart: PolicySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    seen: list[str | None] = []

    def render(self: Any) -> Any:
        seen.append(os.environ.get("SDL_VIDEODRIVER"))
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(CartPoleEnv, "render", render)
    film(still, cart, 4)
    assert set(seen) == {"dummy"}
    assert "SDL_VIDEODRIVER" not in os.environ
    seen.clear()
    monkeypatch.setenv("DISPLAY", ":0")
    film(still, cart, 4)
    assert set(seen) == {None}


def test_an_environment_of_few_pixels_is_shown_large(tmp_path: Any) -> None:
    pytest.importorskip("minatar")
    found = film(still, describe("MinAtar/Breakout-v1"), 0)
    found.write(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (320, 320)
        assert len(np.unique(np.array(image.convert("RGB")).reshape(-1, 3), axis=0)) > 1


def test_what_cannot_be_filmed_says_why(cart: PolicySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoFilm, match="CartPole-v9 cannot be filmed: gymnasium knows no environme"):
        film(still, replace(cart, environment="CartPole-v9"), 0)

    def fail(self: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    with monkeypatch.context() as patch:
        patch.setattr(CartPoleEnv, "render", fail)
        with pytest.raises(NoFilm, match=r"CartPole-v1 cannot be filmed: .*pygame is not install"):
            film(still, cart, 0)
    monkeypatch.setattr(CartPoleEnv, "metadata", {"render_modes": ["human"]})
    with pytest.raises(NoFilm, match="cannot be filmed: CartPole-v1 draws no pictures"):
        film(still, cart, 0)


def test_a_film_runs_as_fast_as_the_environment_states(
    cart: PolicySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rate(cart) == 50.0
    wrapped = replace(cart, wrappers=[{"name": "AtariPreprocessing", "options": {"frame_skip": 5}}])
    assert rate(wrapped) == 12.0
    monkeypatch.setattr(CartPoleEnv, "metadata", {})
    assert rate(cart) == 30.0


def test_a_window_needs_a_display(cart: PolicySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match=r"no display here .*; --pictures FOLDER writes films"):
        on_screen(cart)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown = on_screen(cart)
    assert shown.options["render_mode"] == "human"
    monkeypatch.setattr(CartPoleEnv, "metadata", {})
    with pytest.raises(ValueError, match="CartPole-v1 opens no window; --pictures FOLDER writes"):
        on_screen(cart)


def test_what_is_shown_is_what_is_played(cart: PolicySpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    drawn: list[int] = []
    monkeypatch.setattr(CartPoleEnv, "render", lambda self: drawn.append(1))
    found = play_alone(still, on_screen(cart), [4, 5], together=False)
    assert [e.record() for e in found] == [e.record() for e in play_alone(still, cart, [4, 5])]
    assert len(drawn) == sum(e.length for e in found) + 2
