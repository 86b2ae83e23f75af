"""Finds and makes the environment that an id names, and says what to install where it cannot be."""

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from .wrappers import Environment, Wrapping

Result = TypeVar("Result")

# By the namespace of an id: the extra that holds its environments, the module that registers them when it is
# imported, and its function that does where importing is not enough.
NAMESPACES = {
    "ALE": ("atari", "ale_py", None),
    "MinAtar": ("minatar", "minatar.gym", "register_envs"),
}
# By the package of gymnasium that defines them, which registers them whether or not they can be made.
FAMILIES = {"box2d": "rl", "mujoco": "mujoco", "classic_control": "rl"}


def find(environment: str) -> EnvSpec:
    """What gymnasium has registered under an id. No module is imported on the id's word, as it may be a stranger's.

    Args:
        environment: The id; `module:id` names the module too that registers it, which must have been imported.

    Raises:
        ValueError: If there is none, or the module has not been imported; the message names the nearest ids, the
            extra to install, or how the module is named.
    """
    namespace = environment.rpartition(":")[2].rpartition("/")[0]
    if namespace in NAMESPACES:
        _register(environment, namespace)
    module, _, identity = environment.rpartition(":")
    if module and module not in sys.modules:
        raise ValueError(
            f"environment {environment!r} is of the module {module!r}, which neither a config nor a checkpoint can "
            f"ask to import; name it on the command line if you trust it: --plugin {module}"
        )
    found = gymnasium.registry.get(identity)
    if found is None:
        near = _nearest(identity)
        suggestion = f"; near are {', '.join(near)}" if near else ""
        raise ValueError(
            f"gymnasium knows no environment {identity!r}{suggestion}. One of a package of its own is known once that "
            "is imported: name the package with --plugin"
        )
    return found


def make(
    found: EnvSpec,
    options: Mapping[str, Any],
    wrappers: Sequence[Wrapping],
    *,
    training: bool,
    render: bool,
) -> Environment:
    """One environment with its wrappers, the first innermost; those for training alone only in training.

    Raises:
        ValueError: If it cannot be made, with the reason and, where one is missing, the extra to install.
    """
    arguments: dict[str, Any] = {**options, "render_mode": "rgb_array"} if render else {**options}
    # gymnasium's own checker costs 20 % of CartPole's steps; what matters here of what it looks for, Guard does.
    arguments["disable_env_checker"] = True
    env = constructed(found, lambda: gymnasium.make(found, **arguments))
    for wrapper in wrappers:
        if training or not wrapper.training_only:
            try:
                env = wrapper.wrap(env)
            except ValueError as error:
                raise ValueError(f"wrappers: {found.id}: {error}") from error
    return env


def constructed(found: EnvSpec, construct: Callable[[], Result]) -> Result:
    """What `construct` gives, with errors that say what to install or to change.

    Raises:
        ValueError: If it raises.
    """
    try:
        return construct()
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        extra = _extra(found)
        advice = f'; pip install "resdomains[{extra}]"' if extra else ""
        raise ValueError(f"{found.id} needs a package that is missing: {error}{advice}") from error
    except Exception as error:
        # A third party's constructor may raise anything.
        raise ValueError(
            f"{found.id} cannot be made: {type(error).__name__}: {error} (data.options are its arguments)"
        ) from error


def metadata(found: EnvSpec) -> dict[str, Any]:
    """What an environment's class states of itself; nothing where it is made by a function.

    Raises:
        ValueError: If the class cannot be imported; the message says what to install.
    """
    entry = found.entry_point
    creator: object = entry
    if isinstance(entry, str):
        creator = constructed(found, lambda: load_env_creator(entry))
    return dict(getattr(creator, "metadata", {}))


def _register(environment: str, namespace: str) -> None:
    if any(known.startswith(f"{namespace}/") for known in gymnasium.registry):
        return
    extra, module, function = NAMESPACES[namespace]
    try:
        registrar = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f'{environment} needs a package that is missing: pip install "resdomains[{extra}]" ({error})'
        ) from error
    if function is not None:
        getattr(registrar, function)()


def _nearest(identity: str) -> list[str]:
    """The registered ids most like one: by name without its version, then by version."""
    names: dict[str, list[str]] = {}
    for known in gymnasium.registry:
        names.setdefault(known.rpartition("-v")[0].lower(), []).append(known)
    name = identity.rpartition("-v")[0] or identity
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return [known for match in near for known in sorted(names[match])][:4]


def _extra(found: EnvSpec) -> str | None:
    if found.namespace in NAMESPACES:
        return NAMESPACES[found.namespace][0]
    parts = str(found.entry_point).split(":")[0].split(".")
    if parts[:2] == ["gymnasium", "envs"] and len(parts) > 2:
        return FAMILIES.get(parts[2])
    return None
