"""What holds of a run: its records, its repetition, its end."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Dataset, Subset

from resdomains import schema
from resdomains.core import compile_blocks
from resdomains.testing.bench import (
    Bench,
    floating,
    losses,
    read_rows,
    start,
)
from resdomains.testing.rules.rule import Broken, rule
from resdomains.training import DataModule, Task, TrainingDiverged, load_task


@rule(
    "let build_metrics return the metrics and step update those of its split; never call self.log: the base logs all "
    "names, and resdomains.schema holds them"
)
def logs_the_schema(bench: Bench) -> None:
    """A run logs every name of the schema and of the task's metrics, no other, and each is a finite number."""
    trained = bench.whole()
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


@rule(
    "return a score in [0, 1], higher is better, from the metrics of the whole split, and the score of guessing "
    "in [0, 1), or None, from `chance`; correct the metric that leaves its range"
)
def score_and_skill_are_in_range(bench: Bench) -> None:
    """Untrained and trained, the score lies in [0, 1], chance in [0, 1), and skill follows from both."""
    task, data = bench.build()
    for state, results in (
        ("before training", bench.evaluate(task, data)),
        ("after training", bench.whole().task.results["val"]),
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


@rule(
    "draw randomness from resdomains.training.randomness (seed, epoch, sample) or from torch's generators, which the "
    "launcher seeds; not from the clock, from set order, or from a generator of your own without the seed"
)
def one_seed_gives_one_run(bench: Bench) -> None:
    """Two runs of one seed are equal bit for bit."""
    one, two = bench.whole(), bench.repeat()
    first, second = losses(one.rows), losses(two.rows)
    for step, loss in first.items():
        if loss != second[step]:
            raise Broken(
                f"at step {step} the loss is {loss} in one run and {second[step]} in the other"
            )
    for name, value in one.state().items():
        if not torch.equal(value, two.state()[name]):
            raise Broken(f"after equal losses {name} differs")


@rule(
    "keep what changes during training in parameters or buffers, or save it in on_save_checkpoint as plain values; "
    "draw augmentation from resdomains.training.randomness; leave loaders to DataModule"
)
def resumes_exactly_in_the_middle_of_an_epoch(bench: Bench) -> None:
    """A run that goes on from within its second epoch ends with the weights, their average and losses of one whole."""
    whole = bench.whole()
    epochs = bench.shared.EPOCHS
    total = whole.trainer.global_step
    if total < 3 * epochs:
        raise Broken(f"the case's config has {total // epochs} steps an epoch; give it at least 3")
    rest = bench.repeat(resume=bench.shared.middle)
    expected, resumed = losses(whole.rows), losses(rest.rows)
    at = torch.load(bench.shared.middle, weights_only=True)["global_step"]
    for step in range(at + 1, total + 1):
        if expected[step] != resumed.get(step):
            raise Broken(
                f"stopped after step {at} of {total} and resumed, step {step} has loss {resumed.get(step)}; "
                f"without the stop it has {expected[step]}"
            )
    for name, value in whole.state().items():
        if not torch.equal(value, rest.state()[name]):
            raise Broken(f"{name} differs after the resumed run, though the losses are equal")


def _without_validation(data: DataModule) -> None:
    given = data.dataset

    def dataset(split: schema.Split) -> Dataset[Any] | None:
        found = given(split)
        return found if split != "val" or found is None else Subset(found, [])

    data.dataset = dataset  # type: ignore[method-assign]


@rule(
    "take nothing from a validation for granted: `results` may hold none, and `choose` may not have been called"
)
def survives_an_empty_validation_set(bench: Bench) -> None:
    """Without one validation sample a run trains, keeps its last checkpoint, and is tested if there is a test split."""
    changes = {"trainer.max_epochs": "1", "trainer.limit_train_batches": "3"}
    trained = bench.fit(changes, change=_without_validation)
    if not trained.run.last_checkpoint.is_file():
        raise Broken("no checkpoint was kept")
    logged = {name for row in trained.rows for name in row if name.startswith("val/")}
    if "val" in trained.task.results or logged:
        raise Broken(f"results of a validation of nothing: {', '.join(sorted(logged))}")
    load_task(trained.run.last_checkpoint, bench.case.modules)
    if trained.data.has("test"):
        trained.trainer.test(trained.task, datamodule=trained.data, verbose=False)
        if schema.SCORE not in trained.task.results["test"]:
            raise Broken("the test gave no score")


@rule(
    "take the backbone as given, and call it as a module; a block of your own must keep to what torch.compile can "
    "trace: no .item(), no choice by a tensor's values"
)
def trains_compiled(bench: Bench) -> None:
    """With its blocks compiled, a run's steps and its validation go through what was compiled."""
    compiler = _Compiler()
    torch.compiler.reset()  # what was compiled before, or given up, would count for this run
    one = dict.fromkeys(("trainer.max_epochs", "trainer.limit_val_batches"), "1")
    try:
        with warnings.catch_warnings():
            # torch looks at the gradient of a block's input, and warns itself that it does.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            bench.fit({**one, "trainer.limit_train_batches": "3"}, callbacks=[compiler])
    finally:
        torch.compiler.reset()
    for what, calls in compiler.calls.items():
        if not calls:
            raise Broken(f"no compiled block ran in {what}")


class _Compiler(Callback):
    """Compiles a task's blocks as `--compile true` does, but for the machine's code, and counts their calls."""

    def __init__(self) -> None:
        self.calls = {"training": 0, "validation": 0}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile."""
        assert isinstance(pl_module, Task)
        compile_blocks(pl_module.backbone, backend=self._compile)

    def _compile(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            self.calls["training" if torch.is_grad_enabled() else "validation"] += 1
            return graph.forward(*inputs)

        return run


@rule(
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


@rule(
    "let each loss be the mean over the samples of its batch, let metrics keep sums (dist_reduce_fx) and the same "
    "names in every process, and draw augmentation by sample, not by batch; TaskCase.sample_wise turns batch norm off",
    slow=True,
)
def two_processes_equal_one(bench: Bench) -> None:
    """Two processes log the losses and the validation of one, to 1e-4, over the first 20 steps at least."""
    changes = {**bench.case.sample_wise, "trainer.max_epochs": "1"}
    single = bench.fit(changes)
    epochs = -(-20 // max(single.trainer.global_step, 1))
    if epochs > 1:
        changes["trainer.max_epochs"] = str(epochs)
        single = bench.fit(changes)
    alone = single.rows
    root = bench.folder / "two"
    command = bench.fit_command({**changes, "trainer.devices": "2"}, root)
    command += ["--config", "trainer/ddp"]
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
