"""Explain a key: what stands there, and what its component takes."""

import inspect

from resdomains.cli.errors import ConfigError
from resdomains.cli.schema import (
    OWNED_ARGUMENTS,
    Keys,
    as_keys,
    bases,
    default_class_path,
    expected,
    factory_arguments,
    parameters,
)
from resdomains.cli.session import Session
from resdomains.cli.tables import table


def explain_key(session: Session, keys: tuple[str, ...]) -> str:
    """The parameters of the component at a dotted key, or what a plain value may be.

    Raises:
        ConfigError: If there is no such key.
    """
    key = ".".join(keys)
    annotation, default = session.schema.annotation_at(session.composed, keys)
    group = as_keys(annotation)
    if group is None and not bases(annotation):
        return f"{key}: {expected(annotation)}{_default(default)}"
    if group is None:
        value = _value_at(session.composed, keys)
        path = value.get("class_path") if isinstance(value, dict) else value
        path = path or default_class_path(annotation, default)
        if not isinstance(path, str):
            return f"{key}: {expected(annotation)}; nothing is given here"
        path, component = session.schema.resolve(path, bases(annotation), key)
        group = Keys(component, OWNED_ARGUMENTS.get(key, {}), factory_arguments(annotation))
        title = f"{key} is {path}; it may be {expected(annotation)}"
    else:
        title = key
    known, _ = parameters(group.component, group.called_with)
    rows = [
        (f"  {name}", expected(parameter.annotation) + _default(parameter.default))
        for name, parameter in known.items()
        if name not in group.owned
    ]
    about = inspect.getdoc(group.component)
    parts = [
        title,
        about or "",
        table(("  key", "value"), rows) if rows else "it takes no arguments",
    ]
    return "\n\n".join(part for part in parts if part)


def _value_at(config: object, keys: tuple[str, ...]) -> object:
    value = config
    for name in keys:
        if (
            isinstance(value, dict)
            and name not in value
            and isinstance(value.get("init_args"), dict)
        ):
            value = value["init_args"]
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value.get(name)
        else:
            raise ConfigError(".".join(keys), "nothing stands there")
    return value


def _default(default: object) -> str:
    if default is inspect.Parameter.empty:
        return "; required"
    shown = getattr(default, "__name__", None) or repr(default)
    return f"; default {shown}" if len(shown) < 60 else ""
