"""Episodes to look at: as films, and on a screen."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from resdomains.training import Film, NoFilm

from .episodes import Act, Noise, evaluation_environments, play
from .registration import find, metadata
from .spec import PolicySpec

_RATE = 30.0  # gymnasium's own where an environment states none
_ATARI_RATE = 60.0
_SDL = "SDL_VIDEODRIVER"


def film(
    act: Act, spec: PolicySpec, seed: int, *, steps: int = 0, noise: Noise | None = None
) -> Film:
    """Play an episode, and return a film of it.

    Args:
        act: The policy.
        spec: The environment.
        seed: What the environment is reset with.
        steps: About how long the episode is, if that is known; pictures cost more than steps.
        noise: Draws what picks actions at random; with None the policy takes the likeliest ones.

    Raises:
        NoFilm: If the environment cannot be made, drawn or played.
    """
    try:
        found = Film(rate(spec), steps and steps + 1)
        with (
            _no_window(),
            closing(evaluation_environments(spec, 1, render=True)) as environments,
        ):
            play(act, environments, [seed], limit=spec.episode_limit, noise=noise, film=found)
    except Exception as error:  # drawing raises what its libraries raise, down to OpenGL's
        text = str(error).strip().partition("\n")[0] or "it does not say why"
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise NoFilm(f"{spec.environment} cannot be filmed: {kind}{text}") from error
    return found


def rate(spec: PolicySpec) -> float:
    """Return how many steps a second an environment is meant to be seen at, in Hz.

    Raises:
        ValueError: If gymnasium knows no such environment.
    """
    for wrapper in spec.wrappers:
        if wrapper["name"] == "AtariPreprocessing":
            return _ATARI_RATE / float(wrapper["options"].get("frame_skip", 4))
    return float(metadata(find(spec.environment)).get("render_fps") or _RATE)


def on_screen(spec: PolicySpec) -> PolicySpec:
    """Return what makes environments that show each step in a window.

    Raises:
        ValueError: If there is no display, or the environment opens no window; the message says what to do.
    """
    instead = "--pictures FOLDER writes films"
    if not _has_display():
        raise ValueError(
            f"there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is set); {instead}"
        )
    if "human" not in metadata(find(spec.environment)).get("render_modes", ()):
        raise ValueError(f"{spec.environment} opens no window; {instead} where it draws pictures")
    return replace(spec, options={**spec.options, "render_mode": "human"})


def _has_display() -> bool:
    shown = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform != "linux" or bool(shown)


@contextmanager
def _no_window() -> Iterator[None]:
    """Keep SDL, which pygame draws with, from looking for a display where there is none: it prints an error."""
    if _has_display() or _SDL in os.environ:
        yield
        return
    os.environ[_SDL] = "dummy"
    try:
        yield
    finally:
        del os.environ[_SDL]
