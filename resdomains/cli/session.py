"""One command's config: composed, checked, and turned into objects."""

import importlib
import inspect
import sys
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]  # re-exported
    MisconfigurationException,
)

from resdomains.cli.arguments import Arguments
from resdomains.cli.composition import Composer
from resdomains.cli.errors import CliError, ConfigError
from resdomains.cli.schema import (
    Keys,
    Schema,
    as_keys,
    bases,
    factory_arguments,
    is_factory,
    item_annotation,
    missing_package,
    parameters,
)
from resdomains.cli.yaml_files import read_config, read_text
from resdomains.imports import allow_plugins_only
from resdomains.plugins import PluginError, discover, find_config, shipped_configs
from resdomains.training import DataModule, RunOptions, Task
from resdomains.training.building import AtMost

_LAUNCHER = "is set by the launcher"
OWNED_BY_LAUNCHER = {
    "logger": f"{_LAUNCHER}: metrics.csv and W&B, see the keys under run.wandb",
    "default_root_dir": f"{_LAUNCHER}: --run.root says where runs lie",
    "use_distributed_sampler": f"{_LAUNCHER}: the data module shards its own batches",
    "enable_model_summary": f"{_LAUNCHER}: the first lines of a run say what the network is",
    "enable_checkpointing": f"{_LAUNCHER}: every run keeps its best and its last checkpoint",
    "enable_autolog_hparams": f"{_LAUNCHER}: the whole config is saved with the run",
    "barebones": f"{_LAUNCHER}: a run without its records cannot be compared",
    "model_registry": f"{_LAUNCHER}: checkpoints lie in the run's folder",
}
# Launcher's defaults where Lightning's do not suit: a sanity check would log an untrained score, and
# a small data set would end before the 50th step.
TRAINER_DEFAULTS: dict[str, Any] = {"num_sanity_val_steps": 0, "log_every_n_steps": 10}

_SECRETS = {
    *("api_key", "apikey", "access_key", "secret_key", "private_key", "secret", "password"),
    *("passwd", "token", "access_token", "auth_token", "hf_token", "credentials"),
}
RECIPE_KEYS = ("seed", "trainer", "model", "data")
ROOTS: dict[str, Any] = {
    "seed": int,
    "trainer": Keys(Trainer, OWNED_BY_LAUNCHER),
    "model": Task,
    "data": DataModule,
    "run": RunOptions,
    "test_after_fit": bool,
    "compile": bool,
    "ckpt_path": str | None,
}


class Session:
    """A composed config.

    Attributes: `config`, normalised, with what was given; `full`, plain, with every default;
    `name`, the config's name; `notes`, what to tell the user about the composition.

    Args:
        arguments: The command line.
        base: A config that lies under all others, such as a checkpoint's recipe.
        base_name: Its name.

    Raises:
        CliError: If anything in it is not accepted.
    """

    def __init__(
        self, arguments: Arguments, base: Mapping[str, Any] | None = None, base_name: str = ""
    ) -> None:
        # Files are read before anything is imported for them: a typing error is answered first.
        files = [(name, read_config(find_config(name))) for name in arguments.configs]
        self.plugins = arguments.plugins
        self.traceback = arguments.traceback
        import_plugins(self.plugins)
        allow_plugins_only(self.plugins)
        self.schema = Schema(ROOTS, arguments.plugins)
        composer = Composer(self.schema)
        self.name = base_name
        if base is not None:
            composer.add(base)
        for name, values in files:
            composer.add(values)
            if not self.name or ({"model", "data"} & set(values) and base is None):
                self.name = Path(name).stem
        for keys, text in arguments.overrides:
            composer.override(keys, text)
        self.notes = composer.notes
        _refuse_secrets(composer.config)
        if arguments.help_for is None:
            _require(composer.config)
        self.composed = composer.config
        self.config: dict[str, Any] = self.schema.normalise(composer.config)
        self.full: dict[str, Any] = {} if arguments.help_for else self._check()

    def _check(self) -> dict[str, Any]:
        """Check types with jsonargparse; returns the plain config with every default filled in."""
        parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_class_arguments(
            Trainer, "trainer", skip=set(OWNED_BY_LAUNCHER), instantiate=False
        )
        parser.set_defaults({f"trainer.{k}": v for k, v in TRAINER_DEFAULTS.items()})
        parser.add_subclass_arguments(Task, "model", required=True)
        parser.add_subclass_arguments(DataModule, "data", required=True)
        parser.add_class_arguments(RunOptions, "run")
        parser.add_argument("--test_after_fit", type=bool, default=True)
        parser.add_argument("--compile", type=bool, default=False)
        parser.add_argument("--ckpt_path", type=str | None)
        config = {name: value for name, value in self.config.items() if value is not None}
        config = self.schema.with_defaults(config)
        model = config["model"]
        config["model"] = {**model, "init_args": {**model["init_args"], "spec": {}}}
        try:
            parsed = parser.parse_object(deepcopy(config))  # it rewrites parts in lists
        except (ArgumentError, ValueError, TypeError) as error:
            found = self.schema.explain(self.config)
            raise found or CliError(condensed(str(error))) from error
        try:
            full = _plain(parser, parsed)
        except (ValueError, TypeError, UserWarning, yaml.YAMLError):
            # Some default of a named class has no YAML form; what was given has.
            _drop_defaults(parsed, config)
            full = _plain(parser, parsed)
        full = _as_given(full, config)
        if not 0 <= full["seed"] < 2**32:
            raise ConfigError("seed", f"expected 0 to {2**32 - 1}, got {full['seed']}")
        full.pop("ckpt_path", None)
        del full["model"]["init_args"]["spec"]
        full["data"].get("init_args", {}).pop("seed", None)
        assert isinstance(full, dict)
        return full

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.full["seed"])

    @property
    def ckpt_path(self) -> str | None:
        """Checkpoint given with `--ckpt_path`."""
        return self.config.get("ckpt_path")

    @property
    def recipe(self) -> dict[str, Any]:
        """What a checkpoint carries: the part of the full config that rebuilds and retrains."""
        return {name: self.full[name] for name in RECIPE_KEYS}

    @property
    def end(self) -> dict[str, Any]:
        """What says when training ends."""
        trainer = self.full["trainer"]
        return {name: trainer.get(name) for name in ("max_epochs", "max_steps", "max_time")}

    @property
    def data_name(self) -> str:
        """The data module's short name."""
        return str(self.config["data"]["class_path"]).rpartition(".")[2]

    @property
    def task_name(self) -> str:
        """The plugin that the model belongs to, else the model's class name."""
        path, component = self.schema.resolve(self.config["model"]["class_path"], [Task], "model")
        real = f"{component.__module__}:{component.__qualname__}"
        for entry in discover():
            if entry.plugin is not None and entry.plugin.task in (
                real,
                ":".join(path.rsplit(".", 1)),
            ):
                return entry.name
        return path.rpartition(".")[2].lower()

    def data(self, trained: Mapping[str, Any] | None = None) -> DataModule:
        """Build the data module and prepare the data.

        Args:
            trained: The data's description in a checkpoint, which they are to follow.

        Raises:
            ConfigError: With the key, if they cannot be.
        """
        config = self.config["data"]
        config = {**config, "init_args": {**config["init_args"], "seed": self.seed}}
        data = build(config, DataModule, "data", self.schema)
        assert isinstance(data, DataModule)
        try:
            if trained is not None:
                data.adopt(trained)
            data.ready()
        except Exception as error:
            raise _with_key("data", error, config["class_path"]) from error
        return data

    def follow(self, spec: Mapping[str, Any]) -> None:
        """Set what the data fix of the model's arguments and the config leaves open (`Task.fixed_by`)."""
        model = self.config["model"]
        _, component = self.schema.resolve(model["class_path"], [Task], "model")
        assert isinstance(component, type)
        assert issubclass(component, Task)
        for key, value in component.fixed_by(spec).items():
            *parts, name = key.split(".")
            given, full, annotation = model, self.full["model"], Task
            known, _ = parameters(component)
            for part in parts:
                given = given["init_args"].get(part)
                full = full["init_args"].get(part)
                if not isinstance(given, dict) or not isinstance(full, dict):
                    break
                annotation = known[part].annotation
                _, made = self.schema.resolve(given["class_path"], bases(annotation), key)
                known, _ = parameters(made, factory_arguments(annotation))
            else:
                if name in known and name not in given["init_args"]:
                    given["init_args"][name] = value
                    full.setdefault("init_args", {})[name] = value  # absent where nothing was given

    def task(self, spec: dict[str, Any]) -> Task:
        """Build the task for a data module's spec.

        Where a checkpoint is given, the weights that its run began with are not read: it has its own.

        Raises:
            ConfigError: With the key, if it cannot be.
        """
        self.follow(spec)
        model = self.config["model"]
        within: AbstractContextManager[object] = nullcontext()
        if self.ckpt_path is not None:
            arguments = {k: v for k, v in model["init_args"].items() if k != "weights"}
            model = {**model, "init_args": arguments}
            within = AtMost(Path(self.ckpt_path).stat().st_size)
        with within:
            task = build(model, Task, "model", self.schema, {"spec": spec})
        assert isinstance(task, Task)
        task.recipe = self.recipe
        return task

    def run_options(self) -> RunOptions:
        """The options under `run`.

        Raises:
            ConfigError: If one cannot be used.
        """
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(RunOptions, "run")
        parsed = parser.parse_object({"run": self.full.get("run") or {}})
        try:
            options = parser.instantiate(parsed).run
        except ValueError as error:
            raise ConfigError("run", str(error)) from error
        assert isinstance(options, RunOptions)
        return options

    def trainer_options(self) -> dict[str, Any]:
        """Arguments for Lightning's Trainer, with the launcher's defaults; parts are built."""
        given = self.config.get("trainer") or {}
        known, _ = parameters(Trainer)
        return TRAINER_DEFAULTS | {
            name: build(value, known[name].annotation, f"trainer.{name}", self.schema)
            for name, value in given.items()
        }


def _plain(parser: ArgumentParser, parsed: Namespace) -> dict[str, Any]:
    with warnings.catch_warnings():
        # jsonargparse would write these words in place of the value.
        warnings.filterwarnings("error", r"\s*Unable to serialize instance", UserWarning)
        text = parser.dump(parsed, skip_unset=False)
    plain = read_text(text, "the composed config")
    assert isinstance(plain, dict)
    return plain


def _as_given(plain: Any, given: Any) -> Any:
    """A plain config with lists and keys where they were given: jsonargparse writes them as a text if it may be one."""
    if isinstance(plain, dict) and isinstance(given, dict):
        return {name: _as_given(value, given.get(name)) for name, value in plain.items()}
    if isinstance(plain, list) and isinstance(given, list):
        return [_as_given(value, part) for value, part in zip(plain, given, strict=True)]
    return given if isinstance(plain, str) and isinstance(given, dict | list) else plain


def _drop_defaults(parsed: Any, given: Any) -> None:
    """Take the arguments of named classes that were not given out of a parsed config."""
    if isinstance(parsed, list) and isinstance(given, list):
        for part, of_part in zip(parsed, given, strict=True):
            _drop_defaults(part, of_part)
    elif isinstance(parsed, Namespace) and isinstance(given, dict):
        for name, value in vars(parsed).items():
            if name == "init_args":
                for argument in set(vars(value)) - set(given.get(name, {})):
                    delattr(value, argument)
            _drop_defaults(value, given.get(name))


def import_plugins(modules: list[str]) -> None:
    """Import what `--plugin` names, from the working folder too.

    Raises:
        CliError: If one cannot be imported.
    """
    if modules and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise CliError(f"--plugin {module}: cannot be imported: {error}") from error


def _refuse_secrets(value: Any, key: str = "") -> None:
    """Refuse secrets: a config is saved with its run, in its checkpoints and in W&B, and so is the command.

    Raises:
        ConfigError: If a key is called as secrets are and has a value.
    """
    if isinstance(value, list):
        for place, item in enumerate(value):
            _refuse_secrets(item, f"{key}.{place}")
    if not isinstance(value, Mapping):
        return
    for name, child in value.items():
        inner = key if name == "init_args" else f"{key}.{name}".lstrip(".")
        if str(name).lower() in _SECRETS and isinstance(child, str) and child:
            raise ConfigError(
                inner,
                "is called as secrets are, and a config is saved with its run, in checkpoints and in W&B; "
                "read it from an environment variable or a file instead",
            )
        _refuse_secrets(child, inner)


def _require(config: Mapping[str, Any]) -> None:
    for name in ("model", "data"):
        if config.get(name) is None:
            try:
                shipped = [n for n, entry in shipped_configs().items() if entry.plugin is not None]
            except PluginError:
                shipped = []
            example = f" such as --config {shipped[0]}" if shipped else ""
            raise ConfigError(
                name,
                f"missing; name a config that has it{example} (`resdomains configs` lists them)",
            )


def build(
    value: Any,
    annotation: Any,
    key: str,
    schema: Schema,
    given: Mapping[str, Any] | None = None,
) -> Any:
    """Build the object that a normalised value describes.

    A part whose annotation is a factory becomes a `functools.partial` of its component. What is `given` reaches the
    object as it is; what the config says is text, and text may be read as a number or as JSON.

    Raises:
        ConfigError: With the key of the part that refused, from what it raised.
    """
    if isinstance(value, list) and bases(item := item_annotation(annotation)):
        return [build(v, item, f"{key}.{i}", schema) for i, v in enumerate(value)]
    accepted = [] if as_keys(annotation) is not None else bases(annotation)
    if not accepted or not isinstance(value, dict) or "class_path" not in value:
        return _leaf(value, annotation, key)
    _, component = schema.resolve(value["class_path"], accepted, key)
    known, _ = parameters(component, factory_arguments(annotation))
    arguments = {
        name: build(child, known[name].annotation, f"{key}.{name}", schema)
        if name in known
        else child
        for name, child in value["init_args"].items()
    }
    if is_factory(annotation):
        return partial(component, **arguments)
    try:
        return component(**arguments, **(given or {}))
    except Exception as error:
        raise _with_key(key, error, value["class_path"]) from error


def _leaf(value: Any, annotation: Any, key: str) -> Any:
    if annotation in (inspect.Parameter.empty, Any):
        return value
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=annotation)
    try:
        return parser.instantiate(parser.parse_object({"value": value})).value
    except (ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(key, condensed(str(error))) from error


def _with_key(key: str, error: Exception, path: str) -> Exception:
    """An error with the config key that led to it; errors that are no matter of input stay as they are."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, ImportError):
        return ConfigError(key, missing_package(path, error))
    if isinstance(error, ValueError | TypeError | OSError | MisconfigurationException):
        return ConfigError(key, str(error))
    return error


def condensed(text: str) -> str:
    """The lines of a jsonargparse message that say what is wrong, without the trees around them."""
    noise = (
        "Subtypes:",
        "Errors:",
        "Does not validate",
        "Given value",
        "- Expected a <class 'NoneType'>",
    )
    lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
    kept = [
        line
        for line in lines
        if not line.startswith(noise) and not line.startswith("Expected a <class 'NoneType'>")
    ]
    return " ".join(kept[:4]) or text.splitlines()[0]
