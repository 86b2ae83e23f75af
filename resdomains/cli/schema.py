"""What a config may say, read from constructors: keys, classes and types, and the errors about them."""

import collections.abc
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from resdomains.cli.errors import ConfigError
from resdomains.plugins import (
    PluginError,
    discover,
    extra_of,
    importable_packages,
    nearest,
    suggest,
)

Component = Callable[..., Any]
"""A class, or a function whose return annotation names one."""


@dataclass(frozen=True)
class Keys:
    """A group of keys that are a component's parameters without a `class_path`.

    Args:
        component: Class or function whose parameters they are.
        owned: Parameters that the launcher sets, with what to do instead.
        called_with: How many of the first parameters the caller of a factory gives.
    """

    component: Component
    owned: Mapping[str, str]
    called_with: int = 0


@dataclass(frozen=True)
class Parameter:
    """A parameter of a component: its annotation, and its default or `inspect.Parameter.empty`."""

    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty


def parameters(component: Component, called_with: int = 0) -> tuple[dict[str, Parameter], bool]:
    """The parameters of a component by name, and whether it takes further ones that cannot be seen.

    A `**kwargs` is followed to its TypedDict, to the next base class, or for a function to the class
    that it returns.

    Args:
        component: Class or function.
        called_with: How many of the first parameters its caller gives: those of a factory.
    """
    target = component.__init__ if inspect.isclass(component) else component
    found: dict[str, Parameter] = {}
    owners: list[Any] = [target]
    if inspect.isclass(component):
        owners = [c.__dict__["__init__"] for c in component.__mro__ if "__init__" in c.__dict__]
    elif (made := returned(component)) is not None:
        owners = [target, made.__init__]  # type: ignore[misc]
    further = False
    for owner in owners:
        try:
            signature = inspect.signature(owner)
        except (TypeError, ValueError):  # built in C: nothing to read
            return found, True
        hints = _hints(owner)
        further = False
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                options = get_args(hints.get(name))
                if options and typing.is_typeddict(options[0]):
                    for key, hint in typing.get_type_hints(options[0]).items():
                        # The function's own defaults stand in its code; nothing states them.
                        found.setdefault(key, Parameter(hint, None))
                else:
                    further = True
            elif name != "self" and parameter.kind not in (
                parameter.VAR_POSITIONAL,
                parameter.POSITIONAL_ONLY,
            ):
                found.setdefault(
                    name, Parameter(hints.get(name, parameter.annotation), parameter.default)
                )
        if not further:
            break
    for name in list(found)[:called_with]:
        del found[name]
    return found, further


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # a name known to type checkers only
        return {}


def returned(function: Component) -> type | None:
    """The class that a function's return annotation names."""
    made = _hints(function).get("return")
    return made if inspect.isclass(made) else None


def alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the annotation itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    else:
        yield annotation


def bases(annotation: Any) -> list[type]:
    """The classes of which a config may name one, with `class_path`, for this annotation."""
    found = []
    for member in alternatives(annotation):
        if get_origin(member) is collections.abc.Callable:
            member = (get_args(member) or (None,))[-1]
        if (
            inspect.isclass(member)
            and get_origin(member) is None
            and not is_dataclass(member)
            and member is not Tensor  # torch's optimizers take numbers as tensors too
            and member.__module__ not in ("builtins", "pathlib", "datetime", "typing")
        ):
            found.append(member)
    return found


def is_plain_name(text: str, annotation: Any) -> bool:
    """Whether a text stands for itself where a class may stand too, as `ddp` does for `trainer.strategy`.

    A class is named by its import path or by a short name.
    """
    accepted = bases(annotation)
    named = bool(accepted) and ("." in text or text in _short_names(accepted))
    return str in alternatives(annotation) and not named


def item_annotation(annotation: Any) -> Any:
    """What the items of a list annotation are, or None."""
    for member in alternatives(annotation):
        origin = get_origin(member)
        if (
            inspect.isclass(origin)
            and issubclass(origin, collections.abc.Iterable)
            and get_args(member)
        ):
            return get_args(member)[0]
    return None


def _subclasses(base: type) -> Iterator[type]:
    yield base
    children: list[type] = base.__subclasses__()
    for child in children:
        yield from _subclasses(child)


def _short_names(accepted: list[type]) -> dict[str, list[str]]:
    """Import paths by short name: loaded public subclasses, and what `resdomains.core` offers."""
    found: dict[str, set[str]] = {}
    for base in accepted:
        children: list[type] = [c for c in _subclasses(base) if c is not base]
        # A base with subclasses beside it is a contract; naming it would build nothing that works.
        package = base.__module__.partition(".")[0]
        if not any(child.__module__.partition(".")[0] == package for child in children):
            children.append(base)
        for child in children:
            if (
                not inspect.isabstract(child)
                and not child.__name__.startswith("_")
                and "<" not in child.__qualname__
            ):
                found.setdefault(child.__name__, set()).add(
                    f"{child.__module__}.{child.__qualname__}"
                )
    core = importlib.import_module("resdomains.core")
    for name in getattr(core, "__all__", ()):
        if _fits(getattr(core, name), accepted):
            found[name] = {f"resdomains.core.{name}"}
    return {name: sorted(paths) for name, paths in found.items()}


def _fits(component: Any, accepted: list[type]) -> bool:
    made = (
        component
        if inspect.isclass(component)
        else returned(component)
        if callable(component)
        else None
    )
    return made is not None and issubclass(made, tuple(accepted))


class Schema:
    """Checks configs against constructors.

    Args:
        roots: Annotation or `Keys` of each top-level key.
        extra: Further packages whose classes may be named.
    """

    def __init__(self, roots: Mapping[str, Any], extra: Iterable[str] = ()) -> None:
        self.roots = dict(roots)
        self.packages = importable_packages().union(name.partition(".")[0] for name in extra)

    def resolve(self, name: str, accepted: list[type], key: str) -> tuple[str, Component]:
        """Find the component that a class path or a short name means; returns its import path too.

        Raises:
            ConfigError: If it may not be imported, does not exist or is of another kind.
        """
        if "." not in name:
            names = {
                short: public
                for short, paths in _short_names(accepted).items()
                if (public := [path for path in paths if path.partition(".")[0] in self.packages])
            }
            paths = names.get(name, [])
            if len(paths) > 1:
                raise ConfigError(
                    key, f"{name!r} is the name of several: {', '.join(paths)}; give one of these"
                )
            if not paths:
                what = " or ".join(base.__name__ for base in accepted)
                hint = suggest(name, names, "known by short name") or "give the import path of one"
                raise ConfigError(key, f"no {what} named {name!r}; {hint}")
            name = paths[0]
        component = self._import(name, key)
        if not _fits(component, accepted):
            what = " or ".join(base.__name__ for base in accepted)
            made = component if inspect.isclass(component) else f"a {type(component).__name__}"
            shown = made.__name__ if inspect.isclass(made) else made
            raise ConfigError(
                key, f"{name} is {shown}, expected a {what} or a function that returns one"
            )
        return name, component

    def _import(self, path: str, key: str) -> Any:
        parts = path.split(".")
        if parts[0] not in self.packages or not all(part.isidentifier() for part in parts):
            raise ConfigError(
                key,
                f"{path!r} may not be imported; configs may name classes of {', '.join(sorted(self.packages))}"
                f" (`--plugin {parts[0]}` adds a package that you trust)",
            )
        module, count = None, 0
        for count in range(len(parts) - 1, 0, -1):
            try:
                module = importlib.import_module(".".join(parts[:count]))
                break
            except ModuleNotFoundError as error:
                missing = error.name or ""
                if not ".".join(parts[:count]).startswith(missing):
                    raise ConfigError(
                        key, f"cannot import {path}: {missing_package(path, error)}"
                    ) from error
            except ImportError as error:
                raise ConfigError(
                    key, f"cannot import {path}: {missing_package(path, error)}"
                ) from error
        if module is None:
            raise ConfigError(key, f"cannot import {path}: no module named {parts[0]!r}")
        value: Any = module
        for part in parts[count:]:
            try:
                value = getattr(value, part)
            except AttributeError:
                near = nearest(part, (n for n in dir(value) if not n.startswith("_")))
                owner = getattr(value, "__name__", str(value))
                hint = f"; did you mean {owner}.{near}?" if near else ""
                raise ConfigError(key, f"{owner} has no {part!r}{hint}") from None
            except ImportError as error:  # a package that imports its parts when they are asked for
                raise ConfigError(
                    key, f"cannot import {path}: {missing_package(path, error)}"
                ) from error
        return value

    def takes(self, value: Any, annotation: Any, key: str) -> bool:
        """Whether a value is of an annotation's kind: named classes are of it, whatever their own arguments."""
        if as_keys(annotation) is not None:
            return True
        if isinstance(value, list) and bases(item := item_annotation(annotation)):
            return all(self.takes(v, item, key) for v in value)
        accepted = bases(annotation)
        name = value.get("class_path") if isinstance(value, dict) else value
        if not accepted or not isinstance(name, str) or is_plain_name(name, annotation):
            return is_valid(value, annotation)
        try:
            self.resolve(name, accepted, key)
        except ConfigError:
            return False
        return True

    def normalise(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Check every key of a config and write every part as `class_path` and `init_args`.

        Raises:
            ConfigError: For the first unknown key or class, or a missing one.
        """
        result = {}
        for name, value in config.items():
            if name not in self.roots:
                raise ConfigError(name, "unknown key; " + suggest(name, self.roots, "keys"))
            result[name] = self._normalise(value, self.roots[name], name)
        return result

    def _normalise(self, value: Any, annotation: Any, key: str, default: Any = None) -> Any:
        group = as_keys(annotation)
        if group is not None:
            return value if value is None else self._arguments(value, group, key, required=False)
        accepted = bases(annotation)
        if isinstance(value, list) and (item := item_annotation(annotation)) is not None:
            return [self._normalise(v, item, f"{key}.{i}") for i, v in enumerate(value)]
        if not accepted:
            if is_factory(annotation):
                _refuse_function(value, annotation, key)
            return value
        if isinstance(value, str):
            if value.strip().lower() in ("null", "none", "") or is_plain_name(value, annotation):
                return value
            value = {"class_path": value}
        if not isinstance(value, dict):
            return value
        stray = sorted(set(value) - {"class_path", "init_args"})
        if "class_path" in value or "init_args" in value:
            if stray:
                raise ConfigError(
                    f"{key}.{stray[0]}", "stands beside class_path; write it under init_args"
                )
            given = value.get("init_args")
        else:
            given = value
        name = value.get("class_path", default_class_path(annotation, default))
        if name is None:
            raise ConfigError(key, f"class_path is missing; it names a {accepted[0].__name__}")
        if not isinstance(name, str):
            raise ConfigError(f"{key}.class_path", f"expected a dotted class path, got {name!r}")
        path, component = self.resolve(name, accepted, key)
        group = Keys(component, OWNED_ARGUMENTS.get(key, {}), factory_arguments(annotation))
        return {
            "class_path": path,
            "init_args": self._arguments(given or {}, group, key, required=True),
        }

    def _arguments(self, given: Any, group: Keys, key: str, *, required: bool) -> dict[str, Any]:
        if isinstance(given, str):
            from resdomains.cli.yaml_files import read_text

            given = read_text(given, f"--{key}")
        if not isinstance(given, dict):
            raise ConfigError(key, f"expected keys and values, got {given!r}")
        known, open_ended = parameters(group.component, group.called_with)
        result = {}
        for name, value in given.items():
            if name in group.owned:
                raise ConfigError(f"{key}.{name}", group.owned[name])
            if name not in known:
                if open_ended:
                    result[name] = value
                    continue
                names = sorted(set(known) - set(group.owned))
                raise ConfigError(
                    f"{key}.{name}",
                    "unknown key; " + _suggest_key(str(name), names, group.component),
                )
            result[name] = self._normalise(
                value, known[name].annotation, f"{key}.{name}", known[name].default
            )
        if required:
            for name, parameter in known.items():
                if parameter.required and name not in result and name not in group.owned:
                    raise ConfigError(
                        f"{key}.{name}",
                        f"missing; {group.component.__name__} needs it ({expected(parameter.annotation)})",
                    )
        return result

    def annotation_at(self, config: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, Any]:
        """The annotation (or `Keys`) and the default at a key of a config that is being composed.

        Raises:
            ConfigError: If a part of the key is unknown.
        """
        if keys[0] not in self.roots:
            raise ConfigError(keys[0], "unknown key; " + suggest(keys[0], self.roots, "keys"))
        annotation, default, value = self.roots[keys[0]], None, config.get(keys[0])
        for i, name in enumerate(keys[1:], 1):
            key = ".".join(keys[:i])
            if isinstance(value, list) and name.isdecimal():
                annotation, default = item_annotation(annotation), None
                value = value[int(name)] if int(name) < len(value) else None
                continue
            group = as_keys(annotation)
            given = value
            if group is None:
                accepted = bases(annotation)
                path = value.get("class_path") if isinstance(value, dict) else value
                path = path or default_class_path(annotation, default)
                if not accepted or not isinstance(path, str):
                    raise ConfigError(
                        f"{key}.{name}", f"{key} has no keys: it is {expected(annotation)}"
                    )
                component = self.resolve(path, accepted, key)[1]
                group = Keys(component, OWNED_ARGUMENTS.get(key, {}), factory_arguments(annotation))
                given = value.get("init_args", value) if isinstance(value, dict) else {}
            known, open_ended = parameters(group.component, group.called_with)
            if name in group.owned:
                raise ConfigError(f"{key}.{name}", group.owned[name])
            if name not in known:
                if open_ended:
                    return Any, None
                names = sorted(set(known) - set(group.owned))
                raise ConfigError(
                    f"{key}.{name}", "unknown key; " + _suggest_key(name, names, group.component)
                )
            annotation, default = known[name].annotation, known[name].default
            value = given.get(name) if isinstance(given, dict) else None
        return annotation, default

    def with_defaults(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Write the plain defaults of every class that a normalised config names.

        jsonargparse would otherwise carry over those of the class that is the parameter's default:
        SGD's weight decay of 0 to AdamW.
        """
        return {
            name: self._defaults(value, self.roots[name], name) for name, value in config.items()
        }

    def _defaults(self, value: Any, annotation: Any, key: str) -> Any:
        if isinstance(value, list) and bases(item := item_annotation(annotation)):
            return [self._defaults(v, item, f"{key}.{i}") for i, v in enumerate(value)]
        accepted = [] if as_keys(annotation) is not None else bases(annotation)
        if not accepted or not isinstance(value, dict) or "class_path" not in value:
            return value
        _, component = self.resolve(value["class_path"], accepted, key)
        known, _ = parameters(component, factory_arguments(annotation))
        given = {
            name: self._defaults(v, known[name].annotation, f"{key}.{name}") if name in known else v
            for name, v in value["init_args"].items()
        }
        if inspect.isclass(component):
            plain = {n: p.default for n, p in known.items() if _is_plain(p.default)}
            given = plain | given
        return {**value, "init_args": given}

    def explain(self, config: Mapping[str, Any]) -> ConfigError | None:
        """The first value of a normalised config that is of a wrong type."""
        for name, value in config.items():
            error = self._explain(value, self.roots[name], name)
            if error is not None:
                return error
        return None

    def _explain(self, value: Any, annotation: Any, key: str) -> ConfigError | None:
        group = as_keys(annotation)
        accepted = [] if group is not None else bases(annotation)
        if group is not None and isinstance(value, dict):
            given: dict[str, Any] = value
        elif accepted and isinstance(value, dict) and "class_path" in value:
            given = value["init_args"]
            component = self.resolve(value["class_path"], accepted, key)[1]
            group = Keys(component, {}, factory_arguments(annotation))
        elif isinstance(value, list) and bases(item := item_annotation(annotation)):
            return next(
                filter(None, (self._explain(v, item, f"{key}.{i}") for i, v in enumerate(value))),
                None,
            )
        elif is_valid(value, annotation):
            return None
        else:
            near = _nearest_choice(value, annotation)
            return ConfigError(key, f"expected {expected(annotation)}, got {value!r}{near}")
        known, _ = parameters(group.component, group.called_with)
        for name, child in given.items():
            if name in known and (
                error := self._explain(child, known[name].annotation, f"{key}.{name}")
            ):
                return error
        return None


OWNED_ARGUMENTS: dict[str, dict[str, str]] = {
    "model": {"spec": "comes from the data; it is not set in a config"},
    "data": {"seed": "is the run's seed; set the top-level key `seed` (--seed)"},
}


def as_keys(annotation: Any) -> Keys | None:
    """The group of keys that an annotation stands for: `Keys` itself or a dataclass."""
    if isinstance(annotation, Keys):
        return annotation
    for member in alternatives(annotation):
        if inspect.isclass(member) and is_dataclass(member):
            return Keys(member, {})
    return None


def default_class_path(annotation: Any, default: Any) -> str | None:
    """The class of a part whose `class_path` is not given: that of the default, else a concrete annotation."""
    made = default if inspect.isclass(default) or inspect.isfunction(default) else None
    if made is None and default is not None and default is not inspect.Parameter.empty:
        made = type(default)
    if made is None or not _fits(made, bases(annotation) or [object]):
        concrete = [base for base in bases(annotation) if not inspect.isabstract(base)]
        made = concrete[0] if len(concrete) == 1 and not is_factory(annotation) else None
    return None if made is None else f"{made.__module__}.{made.__qualname__}"


def is_factory(annotation: Any) -> bool:
    """Whether an annotation asks for something that is called to build a part."""
    return any(
        get_origin(member) is collections.abc.Callable for member in alternatives(annotation)
    )


def factory_arguments(annotation: Any) -> int:
    """How many arguments the caller of a factory gives; 0 where the annotation is no factory."""
    for member in alternatives(annotation):
        if get_origin(member) is collections.abc.Callable and get_args(member):
            given = get_args(member)[0]
            return len(given) if isinstance(given, list) else 0
    return 0


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _refuse_function(value: Any, annotation: Any, key: str) -> None:
    """Refuse a function's import path where no class is asked for: whatever it names would be called.

    Raises:
        ConfigError: Unless the value is none, or a name or a number and those are taken too.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("null", "none")):
        return
    allowed = alternatives(annotation)
    if isinstance(value, str) and str in allowed and "." not in value:
        return
    if (int in allowed or float in allowed) and _is_number(value):
        return
    raise ConfigError(
        key,
        f"takes a function, and a config names classes alone, got {value!r}; leave it out, or name on the command line "
        "(--plugin) a module of your own with a class that sets it",
    )


def _is_plain(default: Any) -> bool:
    if isinstance(default, tuple | list):
        return all(_is_plain(item) for item in default)
    return default is None or type(default) in (bool, int, float, str)


def is_valid(value: Any, annotation: Any) -> bool:
    """Whether jsonargparse accepts a value for an annotation."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return True
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=annotation)
        parser.parse_object({"value": value})
    except (ArgumentError, ValueError, TypeError):
        return False
    return True


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def expected(annotation: Any) -> str:
    """An annotation in words: `a whole number or null`."""
    words = []
    for member in alternatives(annotation):
        origin = get_origin(member)
        if isinstance(member, Keys):
            words.append("keys and values")
        elif member in _WORDS:
            words.append(_WORDS[member])
        elif origin is Literal:
            words.append("one of " + ", ".join(str(choice) for choice in get_args(member)))
        elif origin is collections.abc.Callable:
            made = bases(member)
            words.append(
                f"the class path of a {made[0].__name__}"
                if made
                else "a function, which no config can name"
            )
        elif inspect.isclass(origin):
            words.append(f"a {origin.__name__} of {' and '.join(_item_words(member))}")
        elif inspect.isclass(member):
            words.append(f"a {member.__name__}")
        else:
            words.append(str(member))
    return " or ".join(dict.fromkeys(words))


def _item_words(annotation: Any) -> list[str]:
    return [expected(item) for item in get_args(annotation) if item is not Ellipsis]


def _nearest_choice(value: Any, annotation: Any) -> str:
    choices = [
        str(c) for m in alternatives(annotation) if get_origin(m) is Literal for c in get_args(m)
    ]
    near = nearest(str(value), choices)
    return f"; did you mean {near!r}?" if near else ""


def _suggest_key(name: str, names: list[str], component: Component) -> str:
    return (
        suggest(name, names, f"keys of {component.__name__}")
        or f"{component.__name__} has {len(names)} keys"
    )


def missing_package(path: str, error: ImportError) -> str:
    """Say which extra to install when a plugin's class cannot be imported for want of a package."""
    reason = str(error)
    try:
        entries = discover()
    except PluginError:
        return reason
    for entry in entries:
        if entry.plugin is None or path.partition(".")[0] not in entry.plugin.packages:
            continue
        modules = {
            value.partition(":")[0] for value in (entry.plugin.task, *entry.plugin.data.values())
        }
        if not any(path.startswith((m, m.rpartition(".")[0])) for m in modules):
            continue
        extra = extra_of(entry)
        if extra.install:
            return f"{reason}; the task {entry.name} needs more: pip install '{extra.install}'"
    return reason
