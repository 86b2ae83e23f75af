"""What must hold of every task. Each rule has a name, a function that raises `Broken`, and advice."""

import contextlib
import importlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

import resdomains.core
from resdomains.cli.errors import CliError
from resdomains.core import Merge, Recompute
from resdomains.plugins import discover, shipped_configs
from resdomains.probes import CompositeGain, Contribution, GradientFlow, Lesion
from resdomains.testing.bench import (
    Bench,
    batches_of,
    floating,
    gradients,
    losses,
    numbers,
    predict,
    read_rows,
    start,
)
from resdomains.testing.case import reads_from_disk
from resdomains.training import (
    BadSample,
    DataModule,
    StepResult,
    Task,
    TrainingDiverged,
    schema,
)
from resdomains.training.task import computed


class Broken(Exception):
    """A rule does not hold."""


@dataclass(frozen=True)
class Rule:
    """A named rule.

    Args:
        name: What must hold.
        run: Raises `Broken` where it does not.
        advice: What the task's author must do then.
        slow: Whether it starts several processes that train.
    """

    name: str
    run: Callable[[Bench], None]
    advice: str
    slow: bool


RULES: list[Rule] = []


def _rule(
    advice: str, *, slow: bool = False
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    def add(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        RULES.append(Rule(run.__name__, run, advice, slow))
        return run

    return add


@_rule(
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


@_rule(
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
        small = {"data.batch_size": "8", **bench.case.shipped}
        task, data = bench.build({**changes, **small}, config=name)
        loss, _ = gradients(task, bench.batch(task, data, "train"))
        if not loss.isfinite():
            raise Broken(f"{name}: the loss of the first step is {float(loss)}")


@_rule(
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


@_rule(
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


@_rule(
    "let build_metrics return the metrics and step update those of its split; never call self.log: the base logs all "
    "names, and resdomains.training.schema holds them"
)
def logs_the_schema(bench: Bench) -> None:
    """A run logs every name of the schema and of the task's metrics, no other, and each is a finite number."""
    trained = bench.fit({"trainer.max_epochs": "1"})
    task = trained.task
    splits: list[schema.Split] = ["val"]
    if trained.data.has("test"):
        splits.append("test")
        trained.trainer.test(task, datamodule=trained.data, verbose=False)
        for logger in trained.trainer.loggers:
            logger.save()
    seen = {
        name: [row[name] for row in trained.rows if name in row]
        for row in trained.rows
        for name in row
    }
    absent = [n for n in task.build_metrics() if n not in task.metrics_of("val")]
    if absent:
        raise Broken(f"the metrics {', '.join(absent)} are not computed")
    expected = set[str]()
    for split in splits:
        given = (schema.LOSS, schema.SCORE, schema.SKILL)
        metrics = task.metrics_of(split)
        defined = [
            n
            for n, v in task.results[split].items()
            if v.ndim == 0 and n not in given and (n in metrics or not v.isnan())
        ]
        elsewhere = {"val", "test"} - {split}
        expected |= {
            n for n in schema.logged_names(defined) if n.partition("/")[0] not in elsewhere
        }
    expected |= {*schema.PROGRESS, "step"}
    possible = expected | {schema.key("train", name) for name in task.measures}
    missing, strange = sorted(expected - set(seen)), sorted(set(seen) - possible)
    if missing or strange:
        raise Broken(
            f"not logged: {', '.join(missing) or 'none'}; logged but unknown: {', '.join(strange) or 'none'}"
        )
    undefined = (
        {schema.key(s, schema.SKILL) for s in ("val", "test")}
        if task.chance(task.spec) is None
        else set()
    )
    for name, values in seen.items():
        if name not in undefined and not all(math.isfinite(v) for v in values):
            raise Broken(f"{name} is {values}")
    samples = [row[schema.SAMPLES] for row in trained.rows if schema.TRAIN_LOSS in row]
    if samples != sorted(samples) or len(set(samples)) != len(samples):
        raise Broken(f"{schema.SAMPLES} does not rise with every step: {samples}")


@_rule(
    "return a score in [0, 1], higher is better, from the metrics of the whole split, and the score of guessing "
    "in [0, 1), or None, from `chance`; correct the metric that leaves its range"
)
def score_and_skill_are_in_range(bench: Bench) -> None:
    """Untrained and trained, the score lies in [0, 1], chance in [0, 1), and skill follows from both."""
    task, data = bench.build()
    trained = bench.fit({"trainer.max_epochs": "1"})
    for state, results in (
        ("before training", bench.evaluate(task, data)),
        ("after an epoch", trained.task.results["val"]),
    ):
        score, skill = float(results[schema.SCORE]), float(results[schema.SKILL])
        chance = task.chance(data.spec)
        if not 0.0 <= score <= 1.0:
            raise Broken(f"{state} the score is {score}")
        if chance is not None and not 0.0 <= chance < 1.0:
            raise Broken(f"chance is {chance}")
        expected = schema.skill(score, chance)
        if not (math.isnan(skill) and math.isnan(expected)) and abs(skill - expected) > 1e-6:
            raise Broken(
                f"{state} skill is {skill}, but score {score} and chance {chance} make {expected}"
            )


@_rule(
    "draw randomness from resdomains.training.randomness (seed, epoch, sample) or from torch's generators, which the "
    "launcher seeds; not from the clock, from set order, or from a generator of your own without the seed"
)
def one_seed_gives_one_run(bench: Bench) -> None:
    """Two runs of one seed are equal bit for bit."""
    one, two = (bench.fit({"trainer.max_epochs": "2"}) for _ in range(2))
    first, second = losses(one.rows), losses(two.rows)
    for step, loss in first.items():
        if loss != second[step]:
            raise Broken(
                f"at step {step} the loss is {loss} in one run and {second[step]} in the other"
            )
    for name, value in one.state().items():
        if not torch.equal(value, two.state()[name]):
            raise Broken(f"after equal losses {name} differs")


class _Stop(Exception):
    """Ends the run that is to be resumed."""


class _StopAt(Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise _Stop


@_rule(
    "keep what changes during training in parameters or buffers, or save it in on_save_checkpoint as plain values; "
    "draw augmentation from resdomains.training.randomness; leave loaders to DataModule"
)
def resumes_exactly_in_the_middle_of_an_epoch(bench: Bench) -> None:
    """A run stopped within its second epoch and resumed ends with the weights and losses of one never stopped."""
    whole = bench.fit({"trainer.max_epochs": "3"})
    steps = whole.trainer.global_step // 3
    if steps < 3:
        raise Broken(f"the case's config has {steps} steps an epoch; give it at least 3")
    at, path = steps + steps // 2, bench.folder / "stopped.ckpt"
    with contextlib.suppress(_Stop):
        bench.fit({"trainer.max_epochs": "3"}, callbacks=[_StopAt(at, path)])
    rest = bench.fit({"trainer.max_epochs": "3"}, resume=path)
    expected, resumed = losses(whole.rows), losses(rest.rows)
    for step in range(at + 1, 3 * steps + 1):
        if expected[step] != resumed.get(step):
            raise Broken(
                f"stopped after step {at} of {3 * steps} and resumed, step {step} has loss {resumed.get(step)}; "
                f"without the stop it has {expected[step]}"
            )
    for name, value in whole.state().items():
        if not torch.equal(value, rest.state()[name]):
            raise Broken(f"{name} differs after the resumed run, though the losses are equal")


@_rule(
    "leave sampling to DataModule, or let batch_sampler deal out each evaluated sample once, for any world size"
)
def validation_counts_each_sample_once(bench: Bench) -> None:
    """One to four processes together see every validation sample once, and the step counts as many."""
    task, data = bench.build({"data.batch_size": "12"})
    if not data.has("val"):
        raise Broken("the case's config has no validation split")
    total = len(data.ready_dataset("val"))  # type: ignore[arg-type]  # map-style data sets have a length
    for world in (1, 2, 3, 4):
        shares = [data.batch_sampler("val", rank, world) for rank in range(world)]
        seen = sorted(i for share in shares for batch in share for i in batch)
        if seen != list(range(total)):
            raise Broken(
                f"{world} processes see {len(seen)} samples, {len(set(seen))} of them different, of {total}"
            )
    counted: list[int] = []
    step = task.step

    def count(batch: Any, split: schema.Split) -> StepResult:
        result = step(batch, split)
        counted.append(result.items)
        return result

    task.step = count  # type: ignore[method-assign]
    bench.evaluate(task, data, {"data.batch_size": "12"})
    if sum(counted) != total:
        raise Broken(f"step counted {sum(counted)} items in a validation of {total} samples")


@_rule(
    "normalise over a sample and its valid positions only, never over the batch, in evaluation; check that no module "
    "stays in training mode and that padding is masked; let the loss be the mean over samples"
)
def results_do_not_depend_on_batch_mates(bench: Bench) -> None:
    """In evaluation a sample's loss and prediction are the same alone and in a batch (1e-5 of the largest value)."""
    task, data = bench.build()
    # Trained for a moment: a network whose branches begin at zero hides what they would do.
    task = bench.fit({"trainer.max_epochs": "1"}).task.eval()
    count = min(5, len(data.ready_dataset("val")))  # type: ignore[arg-type]
    with torch.inference_mode():
        alone = [
            task.step(batch, "val")
            for batch in batches_of(data, "val", [[i] for i in range(count)])
        ]
        [together] = [task.step(batch, "val") for batch in batches_of(data, "val", [range(count)])]
    mean = sum(float(r.loss) for r in alone) / count
    scale = max(abs(float(r.loss)) for r in alone)
    if abs(mean - float(together.loss)) > 1e-5 * max(scale, 1e-3):
        raise Broken(
            f"{count} validation samples have a mean loss of {mean:.7g} alone and {float(together.loss):.7g} as a batch"
        )
    if bench.case.inputs is None:
        raise Broken("the case has no inputs; give TaskCase.inputs")
    paths = bench.inputs()
    _compare_records(
        predict(task, paths, 1), predict(task, paths, len(paths)), "alone and in a batch"
    )


def _compare_records(one: list[dict[str, Any]], two: list[dict[str, Any]], how: str) -> None:
    if len(one) != len(two):
        raise Broken(f"{len(one)} and {len(two)} predictions, {how}")
    for a, b in zip(one, two, strict=True):
        x, y = list(numbers(a)), list(numbers(b))
        scale = max((abs(v) for v in x), default=0.0)
        if len(x) != len(y) or any(abs(p - q) > 1e-5 * scale for p, q in zip(x, y, strict=True)):
            raise Broken(f"a prediction differs, {how}: {a} and {b}")
        if not x and a != b:
            raise Broken(f"a prediction differs, {how}: {a} and {b}")


_WITHOUT_DATA = """
import sys
from resdomains.training import DataModule
def refuse(*_, **__):
    raise SystemExit("predict built a data module")
DataModule.__init__ = refuse
from resdomains.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@_rule(
    "keep all that prediction needs in the constructor's arguments, the spec and the weights; let read, collate and "
    "predict use nothing else; let records be plain values with a 'source'"
)
def predicts_from_a_bare_checkpoint(bench: Bench) -> None:
    """`resdomains predict` in a new process, with the checkpoint alone, says what the trained task says."""
    if bench.case.inputs is None:
        raise Broken("the case has no inputs; give TaskCase.inputs")
    paths = bench.inputs()
    if len(paths) < 3:
        raise Broken(f"TaskCase.inputs wrote {len(paths)} files, expected at least 3")
    trained = bench.fit({"trainer.max_epochs": "1"})
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(trained.run.last_checkpoint, elsewhere / "bare.ckpt")
    shutil.rmtree(trained.run.folder)
    exact = ("--accelerator", "cpu", "--precision", "32")
    command = bench.command("predict", "--ckpt_path", "bare.ckpt", "--format", "json", *exact)
    command[1:3] = ["-c", _WITHOUT_DATA]
    done = start([*command, *(str(path) for path in paths)], elsewhere)
    if done.returncode:
        raise Broken(f"`resdomains predict` ended with {done.returncode}: {done.stderr.strip()}")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    expected = predict(trained.task, paths, 32)
    for record in expected:
        if not isinstance(record.get("source"), str):
            raise Broken(f"a prediction has no 'source': {record}")
        if json.loads(json.dumps(record)) != record:
            raise Broken(f"a prediction holds more than plain values: {record}")
    _compare_records(expected, records, "in training and from the checkpoint")
    if [r["source"] for r in records] != [r["source"] for r in expected]:
        raise Broken("the sources of the predictions differ from those of the files")


@_rule("let spec hold None, bool, int, float, str, lists and dicts of them only, in a fixed order")
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


@_rule(
    "do not squeeze the batch axis away, and let metrics take a batch of one; sum, do not average batches"
)
def survives_a_last_batch_of_one(bench: Bench) -> None:
    """Validation in batches of which the last has one sample gives what one large batch gives."""
    task, data = bench.build()
    total = len(data.ready_dataset("val"))  # type: ignore[arg-type]
    size = next((b for b in range(2, total) if total % b == 1), 1)
    groups = [list(range(i, min(i + size, total))) for i in range(0, total, size)]
    found = []
    for parts in (groups, [list(range(total))]):
        task.eval()
        with torch.inference_mode():
            results = [task.step(batch, "val") for batch in batches_of(data, "val", parts)]
        metrics = computed(task.metrics_of("val"))
        for metric in task.metrics_of("val").values():
            metric.reset()
        loss = sum((r.loss.double() * r.items for r in results), start=torch.zeros(())) / total
        found.append({**metrics, schema.LOSS: loss})
    for name, value in found[0].items():
        if value.ndim == 0 and not torch.allclose(
            value.double(), found[1][name].double(), rtol=1e-5, atol=1e-7, equal_nan=True
        ):
            raise Broken(
                f"{name} is {float(value)} in batches of {size} (the last of one), {float(found[1][name])} in one batch"
            )


@_rule(
    "let NaN reach the loss: no nan_to_num, no skipped batch, no clamp; the base stops the run and says what to try"
)
def stops_at_not_a_number(bench: Bench) -> None:
    """NaN in a training batch stops the run with the step and advice, and no weight that is NaN is kept."""
    poisoned = 3

    class Poison(Callback):
        def on_train_batch_start(
            self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
        ) -> None:
            if trainer.global_step != poisoned - 1:
                return
            tensors = list(floating(batch))
            for tensor in tensors:
                tensor.fill_(torch.nan)
            if not tensors:
                # A batch of indices: what they look up becomes NaN instead.
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(torch.nan)

    try:
        bench.fit({"trainer.max_epochs": "1"}, callbacks=[Poison()])
    except TrainingDiverged as error:
        text = str(error)
        if f"step {poisoned} " not in text or "--model.optimization.lr" not in text:
            raise Broken(
                f"the run stopped, but its message names no step {poisoned} and no remedy: {text}"
            ) from error
    else:
        raise Broken(f"a batch of NaN at step {poisoned} went unnoticed")
    kept = list((bench.folder / "runs").rglob("*.ckpt"))
    if kept:
        raise Broken(f"a checkpoint was kept: {kept[0].name}")


@_rule(
    "compute losses and other sums over many values in float32 (logits.float()); keep exponentials and logarithms "
    "inside torch's own loss functions"
)
def bfloat16_is_close_to_float32(bench: Bench) -> None:
    """Under bf16 autocast a step's loss and the direction of its gradient stay close to those in float32."""
    task, data = bench.build({"data.batch_size": "8"})
    batch = bench.batch(task, data)
    state = {name: value.clone() for name, value in task.state_dict().items()}
    exact_loss, exact = gradients(task, batch)
    task.load_state_dict(state)
    with torch.autocast("cpu", torch.bfloat16):
        loss, rounded = gradients(task, batch)
    off = abs(float(loss) - float(exact_loss)) / max(abs(float(exact_loss)), 1e-3)
    if not off <= bench.case.bf16_tolerance:
        raise Broken(
            f"the loss is {float(loss):.5g} in bfloat16 and {float(exact_loss):.5g} in float32: off by {off:.1%}, "
            f"allowed {bench.case.bf16_tolerance:.1%}"
        )
    one, two = (
        torch.cat([g.double().flatten() for g in grads.values()]) for grads in (exact, rounded)
    )
    cosine = float(one @ two / (one.norm() * two.norm()))
    if not cosine >= 0.95:
        raise Broken(
            f"the gradients in bfloat16 and float32 have a cosine of {cosine:.3f}, expected at least 0.95"
        )


@_rule(
    "take the backbone as given: a network of resdomains.core, whose `merge` any config may change; build a merge's "
    "refusals in its own `check`"
)
def takes_every_merge(bench: Bench) -> None:
    """Every merge of the core either runs one step, or is refused when built with the reason."""
    names = [
        name
        for name in resdomains.core.__all__
        if isinstance(part := getattr(resdomains.core, name), type)
        and issubclass(part, Merge)
        and part is not Merge
    ]
    ran = []
    for name in names:
        try:
            task, data = bench.build({"model.backbone.merge": name, "data.batch_size": "8"})
        except CliError as error:
            if name not in str(error):
                raise Broken(f"merge {name} is refused without a reason: {error}") from error
            continue
        used = {type(getattr(block, "merge", None)).__name__ for _, block in task.blocks()}
        if name not in used:
            raise Broken(
                f"asked for merge {name}, the backbone's blocks have {', '.join(sorted(used)) or 'none'}"
            )
        loss, grads = gradients(task, bench.batch(task, data))
        if not loss.isfinite() or not all(g.isfinite().all() for g in grads.values()):
            raise Broken(f"with merge {name} the loss or a gradient is not finite")
        ran.append(name)
    if "Add" not in ran or "BranchOnly" not in ran:
        raise Broken(
            f"only {', '.join(ran) or 'no merge'} ran; the residual sum and the plain network must"
        )


@_rule(
    "take the backbone as given, and run it once a step: what counts passes must ask resdomains.core.recomputing()"
)
def recomputing_gives_equal_gradients(bench: Bench) -> None:
    """With Recompute memory a step's loss, gradients and statistics equal those with Store."""
    found: list[tuple[Tensor, dict[str, Tensor], Mapping[str, Tensor]]] = []
    for memory in ("Store", "Recompute"):
        task, data = bench.build({"model.backbone.memory": memory, "data.batch_size": "8"})
        kinds = {type(getattr(m, "memory", None)) for m in task.modules()}
        if memory == "Recompute" and Recompute not in kinds:
            raise Broken("the backbone does not use the memory that its config names")
        torch.manual_seed(0)
        loss, grads = gradients(task, bench.batch(task, data))
        found.append((loss, grads, dict(task.named_buffers())))
    (loss, grads, buffers), (loss2, grads2, buffers2) = found
    if not torch.allclose(loss, loss2, rtol=1e-6):
        raise Broken(f"the loss is {float(loss)} with Store and {float(loss2)} with Recompute")
    largest = max(float(g.abs().max()) for g in grads.values())
    for name, gradient in grads.items():
        if name not in grads2 or float((gradient - grads2[name]).abs().max()) > 1e-6 * max(
            largest, 1e-6
        ):
            raise Broken(f"the gradient of {name} differs between Store and Recompute")
    for name, buffer in buffers.items():
        if not torch.allclose(buffer.double(), buffers2[name].double(), equal_nan=True):
            raise Broken(
                f"{name} differs between Store and Recompute: statistics are updated twice"
            )


@_rule(
    "let step run the backbone by calling it, with gradients in training; keep all that the score needs in the "
    "metrics of build_metrics, which a probe replaces for each network that it scores"
)
def probes_run(bench: Bench) -> None:
    """All probes measure every block in a short run, and the whole network scores what validation says."""
    probes = [
        GradientFlow(every_n_steps=1),
        Contribution(every_n_steps=1),
        CompositeGain(draws=1),
        lesion := Lesion(removed=[1], draws=1),
    ]
    changes = dict.fromkeys(("trainer.max_epochs", "trainer.limit_val_batches"), "1")
    trained = bench.fit({**changes, "trainer.limit_train_batches": "2"}, callbacks=probes)
    for probe in probes:
        for name, values in probe.newest.items():
            strange = [v for v in values if isinstance(v, float) and not math.isfinite(v)]
            if strange or (name in ("gradient_norm", "gain") and not any(values)):
                raise Broken(f"{name} of the blocks is {list(values)}")
    score = float(trained.task.results["val"][schema.SCORE])
    if lesion.baseline is None or abs(lesion.baseline - score) > 1e-6:
        raise Broken(
            f"the probe scores the whole network {lesion.baseline}, validation on the same batches {score}"
        )


@_rule(
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


@_rule(
    "let each loss be the mean over the samples of its batch, let metrics keep sums (dist_reduce_fx) and the same "
    "names in every process, and draw augmentation by sample, not by batch; TaskCase.sample_wise turns batch norm off",
    slow=True,
)
def two_processes_equal_one(bench: Bench) -> None:
    """Two processes log the losses and the validation of one, to 1e-4, over the first 20 steps at least."""
    changes = {**bench.case.sample_wise, "trainer.max_epochs": "1"}
    steps = bench.fit(changes).trainer.global_step
    changes["trainer.max_epochs"] = str(max(1, -(-20 // max(steps, 1))))
    alone = bench.fit(changes).rows
    root = bench.folder / "two"
    command = bench.fit_command(
        {**changes, "trainer.devices": "2", "trainer.strategy": "ddp"}, root
    )
    done = start(command, bench.folder)
    if done.returncode:
        raise Broken(f"two processes ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    tables = list(root.rglob("metrics.csv"))
    if len(tables) != 1:
        raise Broken(f"two processes made {len(tables)} run folders")
    together = read_rows(tables[0])
    for split in ("train", "val"):
        names = {n for row in alone for n in row if n.startswith(f"{split}/")}
        for name in sorted(names):
            one, two = (
                [(row["step"], row[name]) for row in rows if name in row]
                for rows in (alone, together)
            )
            if [s for s, _ in one] != [s for s, _ in two]:
                raise Broken(
                    f"{name} is logged {len(one)} times by one process, {len(two)} times by two"
                )
            for (step, a), (_, b) in zip(one, two, strict=True):
                if abs(a - b) > 1e-4 and not (math.isnan(a) and math.isnan(b)):
                    raise Broken(
                        f"at step {int(step)} {name} is {a} with one process and {b} with two"
                    )
