"""Compose one config from files and overrides.

Configs are merged left to right, then overrides apply in their order. Keys and values merge deeply,
lists are replaced, and a key written `name+` adds to a list. Where a `class_path` changes, those
arguments of the old class that were given and that the new one takes are kept; defaults of the old
class are never carried over.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from resdomains.cli.errors import ConfigError
from resdomains.cli.schema import (
    Parameter,
    Schema,
    as_keys,
    bases,
    default_class_path,
    factory_arguments,
    is_plain_name,
    parameters,
)
from resdomains.cli.yaml_files import read_text


class Composer:
    """Merges configs and overrides that a schema understands.

    Attributes: `config`, what was composed; `notes`, what a change of class did to arguments.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.config: dict[str, Any] = {}
        self.notes: list[str] = []

    def add(self, update: Mapping[str, Any]) -> None:
        """Merge a config over what is there."""
        for name, value in update.items():
            self._merge(self.config, name, value, (name.rstrip("+"),))

    def override(self, keys: tuple[str, ...], text: str) -> None:
        """Set a dotted key, as `--model.backbone.merge Highway` does; `init_args` may be left out.

        Raises:
            ConfigError: If a part of the key does not exist.
        """
        plain = tuple(k.rstrip("+") for k in keys if k not in ("init_args",))
        if plain[-1] == "class_path":
            plain = plain[:-1]
        annotation, _ = self.schema.annotation_at(self.config, plain)
        node: Any = self.config
        for i, name in enumerate(plain[:-1], 1):
            node = self._descend(node, name, plain[:i])
        name = plain[-1]
        if isinstance(node, list):
            self._set_item(node, plain, text)
            return
        value: Any = text
        stripped = text.strip()
        structured = as_keys(annotation) is not None or bool(bases(annotation))
        if stripped.startswith(("{", "[")) and (structured or keys[-1].endswith("+")):
            value = read_text(text, "--" + ".".join(keys))
        elif structured and stripped.lower() == "null":
            value = None
        elif structured and not stripped.isidentifier() and "." not in stripped:
            value = read_text(text, "--" + ".".join(keys))
        self._merge(node, name + ("+" if keys[-1].endswith("+") else ""), value, plain)

    def _set_item(self, items: list[Any], keys: tuple[str, ...], text: str) -> None:
        index = keys[-1]
        if not index.isdecimal() or int(index) >= len(items):
            raise ConfigError(".".join(keys), f"the list has items 0 to {len(items) - 1}")
        items[int(index)] = read_text(text, "--" + ".".join(keys))

    def _descend(self, node: Any, name: str, keys: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            if not name.isdecimal() or int(name) >= len(node):
                raise ConfigError(".".join(keys), f"the list has items 0 to {len(node) - 1}")
            child, name_in = node[int(name)], int(name)
        else:
            child, name_in = node.get(name), name  # type: ignore[assignment]
        if isinstance(child, list):
            return child
        annotation, default = self.schema.annotation_at(self.config, keys)
        if as_keys(annotation) is not None:
            if not isinstance(child, dict):
                child = node[name_in] = {}
            return child
        if isinstance(child, str):
            child = node[name_in] = {"class_path": child}
        if not isinstance(child, dict):
            path = default_class_path(annotation, default)
            child = node[name_in] = {} if path is None else {"class_path": path}
        if "class_path" not in child and "init_args" not in child:
            return child
        if not isinstance(child.get("init_args"), dict):
            child["init_args"] = {}
        return child["init_args"]

    def _merge(self, node: dict[str, Any], name: str, value: Any, keys: tuple[str, ...]) -> None:
        if name.endswith("+"):
            name = name[:-1]
            old = node.get(name)
            items = old if isinstance(old, list) else [] if old is None else [old]
            node[name] = items + (deepcopy(value) if isinstance(value, list) else [value])
            return
        old = node.get(name)
        if isinstance(old, str) and _is_part(value) and "class_path" not in value:
            old = {"class_path": old}
        if isinstance(old, dict) and _is_part(old) and (_is_part(value) or isinstance(value, str)):
            node[name] = self._merge_part(old, value, keys)
        elif isinstance(old, dict) and isinstance(value, dict):
            for child, given in value.items():
                self._merge(old, child, given, (*keys, child.rstrip("+")))
        else:
            node[name] = deepcopy(value)

    def _merge_part(self, old: dict[str, Any], new: Any, keys: tuple[str, ...]) -> Any:
        if isinstance(new, str):
            if is_plain_name(new, self.schema.annotation_at(self.config, keys)[0]):
                return new
            new = {"class_path": new}
        result = deepcopy(old)
        given = result.get("init_args") or {}
        path = new.get("class_path", result.get("class_path"))
        if path != result.get("class_path"):
            result["class_path"] = path
            given = self._kept(given, str(path), keys, old.get("class_path"))
        result["init_args"] = given
        for child, value in (new.get("init_args") or {}).items():
            self._merge(given, child, value, (*keys, child.rstrip("+")))
        for stray in set(new) - {"class_path", "init_args"}:
            result[stray] = new[stray]
        return result

    def _kept(
        self, given: dict[str, Any], path: str, keys: tuple[str, ...], old: object
    ) -> dict[str, Any]:
        key = ".".join(keys)
        annotation, _ = self.schema.annotation_at(self.config, keys)
        accepted = bases(annotation)
        if not accepted:
            return {}
        calling = factory_arguments(annotation)
        old_path, before = None, dict[str, Parameter]()
        if isinstance(old, str):
            # First: importing its package gives the others in it their short names.
            old_path, component = self.schema.resolve(old, accepted, key)
            before, _ = parameters(component, calling)
        if not given:
            return {}
        new_path, component = self.schema.resolve(path, accepted, key)
        if new_path == old_path:
            return given
        known, _ = parameters(component, calling)

        def suits(name: str, value: Any) -> bool:
            """Whether the new class takes it; what the old one did not take either is no reason to lose a mistake."""
            takes = partial(self.schema.takes, value, key=f"{key}.{name}")
            return name in known and (
                takes(known[name].annotation)
                or not (name in before and takes(before[name].annotation))
            )

        kept = {name: value for name, value in given.items() if suits(name, value)}
        dropped = sorted(set(given) - set(kept))
        parts = [f"kept {', '.join(sorted(kept))}"] if kept else []
        parts += [f"dropped {', '.join(dropped)}"] if dropped else []
        self.notes.append(f"{key} is now {path}: {'; '.join(parts)} of {old}")
        return kept


def _is_part(value: object) -> bool:
    return isinstance(value, dict) and ("class_path" in value or "init_args" in value)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The keys in which two plain configs differ, with both values; absent ones are None."""
    before, after = dict(_leaves(old, ())), dict(_leaves(new, ()))
    return [
        (key, before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, child in value.items():
            yield from _leaves(child, keys if name == "init_args" else (*keys, name))
    else:
        yield ".".join(keys), value
