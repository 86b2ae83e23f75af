"""What holds of a task as it is installed and built."""

import importlib
import json
import math
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import torch

from resdomains.cli.errors import CliError
from resdomains.plugins import discover, shipped_configs
from resdomains.testing.bench import (
    Bench,
    gradients,
    start,
)
from resdomains.testing.case import reads_from_disk
from resdomains.testing.rules.rule import Broken, rule
from resdomains.training import (
    BadSample,
    DataModule,
    StepResult,
    Task,
)


@rule(
    "register the plugin under [project.entry-points.'resdomains.tasks'] and install the package; let plugin.py hold "
    "strings only and import nothing but resdomains.plugins"
)
def is_listed_without_torch(bench: Bench) -> None:
    """The plugin is found by its entry point; reading it imports no torch; its strings name what they should."""
    plugin = bench.case.plugin
    entries = {entry.name: entry for entry in discover()}
    if plugin.name not in entries:
        raise Broken(f"no entry point registers it; registered are {', '.join(entries) or 'none'}")
    entry = entries[plugin.name]
    if entry.plugin != plugin:
        raise Broken(
            f"the entry point {entry.value} gives another plugin: {entry.plugin or entry.reason}"
        )
    code = (
        "import sys; from resdomains.plugins import find; find(sys.argv[1]);"
        "print(*{'torch', 'pytorch_lightning'} & set(sys.modules))"
    )
    done = start([sys.executable, "-c", code, plugin.name], bench.folder)
    if done.returncode or done.stdout.strip():
        raise Broken(f"reading the plugin imports {done.stdout.strip() or done.stderr.strip()}")
    for value, base in [(plugin.task, Task), *((v, DataModule) for v in plugin.data.values())]:
        module, _, name = value.partition(":")
        found = getattr(importlib.import_module(module), name)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise Broken(f"{value} is no {base.__name__}")


@rule(
    "ship YAML files in the folder that the plugin's `configs` names, and give each a model and data that fit"
)
def builds_from_every_shipped_config(bench: Bench) -> None:
    """Every shipped config is accepted, and takes a step where its data are at hand."""
    plugin = bench.case.plugin
    names = {n: e.path for n, e in shipped_configs().items() if e.plugin == plugin}
    if not names:
        raise Broken(f"no config is found in {plugin.configs}")
    for name, path in names.items():
        root = bench.case.roots.get(name)
        absent = root is None and reads_from_disk(plugin, path)
        changes = {"data.root": str(root or bench.folder)} if root or absent else {}
        if absent:
            bench.session(changes, config=name)
            continue
        small = {"data.batch_size": "8"}
        for pattern, keys in bench.case.shipped.items():
            small |= keys if fnmatch(name, pattern) else {}
        task, data = bench.build({**changes, **small}, config=name)
        loss, _ = gradients(task, bench.batch(task, data, "train"))
        if not loss.isfinite():
            raise Broken(f"{name}: the loss of the first step is {float(loss)}")


@rule(
    "return StepResult(loss, items) with the mean loss of the batch and the number of its samples; let every trainable "
    "parameter take part in the loss (several processes stop at one that does not), or freeze it"
)
def takes_a_step(bench: Bench) -> None:
    """A training step gives a finite mean loss, the number of samples, and a gradient for every parameter."""
    task, data = bench.build({"data.batch_size": "4"})
    size = len(next(iter(data.batch_sampler("train", 0, 1))))
    task.train()
    result = task.step(bench.batch(task, data, "train"), "train")
    if not isinstance(result, StepResult):
        raise Broken(f"step returned a {type(result).__name__}")
    if result.loss.ndim or not result.loss.requires_grad or not result.loss.isfinite():
        raise Broken(f"step's loss is {result.loss}, expected one finite number with a gradient")
    if bench.case.batch is None and result.items != size:
        raise Broken(f"step counted {result.items} items in a batch of {size}")
    torch.autograd.backward(result.loss)
    without = [n for n, p in task.named_parameters() if p.requires_grad and p.grad is None]
    if without:
        raise Broken(f"no gradient reaches {', '.join(without[:5])}")


@rule(
    "look for a loss that ignores the target, detached outputs, or a rate that suits no training; "
    "TaskCase.overfit_steps and .batch say what is tried"
)
def learns_a_few_samples(bench: Bench) -> None:
    """The optimizer of the config drives the loss of one small batch close to zero."""
    task, data = bench.build({"data.batch_size": "8"})
    batch = bench.batch(task, data)
    optimizer = task.optimization.build(task, "backbone", task.blocks())
    task.train()
    first = last = math.nan
    for step in range(bench.case.overfit_steps):
        optimizer.zero_grad()
        loss = task.step(batch, "train").loss
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        last = float(loss.detach())
        first = last if step == 0 else first
    if not last < 0.1 * first:
        raise Broken(
            f"after {bench.case.overfit_steps} steps on one batch the loss went from {first:.4g} to {last:.4g}, "
            "expected less than a tenth"
        )


@rule("let spec hold None, bool, int, float, str, lists and dicts of them only, in a fixed order")
def spec_is_plain_and_stable(bench: Bench) -> None:
    """The spec is plain, and two data modules of one config give the same."""
    (_, one), (_, two) = bench.build(), bench.build()
    for path, value in _leaves(one.spec, "spec"):
        if type(value) not in (type(None), bool, int, float, str):
            raise Broken(f"{path} is a {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise Broken(f"{path} is {value}")
    if json.dumps(one.spec) != json.dumps(two.spec):
        raise Broken(f"two builds differ: {one.spec} and {two.spec}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if type(value) is dict:
        for key, child in value.items():
            if type(key) is not str:
                raise Broken(f"{path} has the key {key!r}, a {type(key).__name__}")
            yield from _leaves(child, f"{path}[{key!r}]")
    elif type(value) is list:
        for i, child in enumerate(value):
            yield from _leaves(child, f"{path}[{i}]")
    else:
        yield path, value


@rule(
    "yield BadSample(source, reason) from `read` in place of a file that cannot be read, and go on with the next; "
    "raise ValueError with the argument, the value and what is allowed where an argument is wrong"
)
def explains_bad_input(bench: Bench) -> None:
    """Each bad file is refused by name while good ones are read, and each bad argument before training."""
    case = bench.case
    if not case.bad_files or not case.bad_arguments or case.inputs is None:
        raise Broken("the case must give bad_files, bad_arguments and inputs, at least one each")
    task, _ = bench.build()
    task.eval()
    good = bench.inputs()[0]
    for bad in case.bad_files:
        path = bench.folder / bad.name
        path.write_bytes(bad.content)
        items = list(task.read([str(path), str(good)]))
        if (
            len(items) != 2
            or not isinstance(items[0], BadSample)
            or isinstance(items[1], BadSample)
        ):
            kinds = ", ".join(type(item).__name__ for item in items)
            raise Broken(
                f"read gave {kinds or 'nothing'} for {bad.name} and a good file, expected a BadSample and an item"
            )
        if bad.name not in items[0].source or not re.search(bad.message, items[0].reason):
            raise Broken(f"{bad.name}: expected {bad.message!r}, the error says: {items[0]}")
    for argument in case.bad_arguments:
        try:
            bench.build({argument.key: argument.value})
        except CliError as error:
            if not re.search(argument.message, str(error)):
                raise Broken(
                    f"--{argument.key} {argument.value}: expected {argument.message!r}, the error says: {error}"
                ) from error
        else:
            raise Broken(f"--{argument.key} {argument.value} was accepted")
