"""What holds of evaluation and prediction."""

import json
import shutil
from typing import Any

import torch

from resdomains import schema
from resdomains.testing.bench import (
    Bench,
    batches_of,
    numbers,
    predict,
    start,
)
from resdomains.testing.rules.rule import Broken, rule
from resdomains.training import (
    StepResult,
    Task,
)
from resdomains.training.task import computed


@rule(
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


@rule(
    "normalise over a sample and its valid positions only, never over the batch, in evaluation; check that no module "
    "stays in training mode and that padding is masked; let the loss be the mean over samples"
)
def results_do_not_depend_on_batch_mates(bench: Bench) -> None:
    """In evaluation a sample's loss and prediction are the same alone and in a batch (1e-5 of the largest value)."""
    # Trained for a moment: a network whose branches begin at zero hides what they would do.
    whole = bench.whole()
    task, data = whole.task.eval(), whole.data
    count = min(5, len(data.ready_dataset("val")))  # type: ignore[arg-type]
    with torch.inference_mode():
        alone = [
            task.step(batch, "val")
            for batch in batches_of(data, "val", [[i] for i in range(count)])
        ]
        [together] = [task.step(batch, "val") for batch in batches_of(data, "val", [range(count)])]
    _forget(task)
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


def _forget(task: Task) -> None:
    for metric in task.metrics_of("val").values():
        metric.reset()


def _compare_records(one: list[dict[str, Any]], two: list[dict[str, Any]], how: str) -> None:
    if len(one) != len(two):
        raise Broken(f"{len(one)} and {len(two)} predictions, {how}")
    for a, b in zip(one, two, strict=True):
        x, y = list(numbers(a)), list(numbers(b))
        scale = max((abs(v) for v in x), default=0.0)
        if len(x) != len(y) or any(abs(p - q) > 1e-5 * scale for p, q in zip(x, y, strict=True)):
            raise Broken(f"a prediction differs, {how}: {_cut(a)} and {_cut(b)}")
        if not x and a != b:
            raise Broken(f"a prediction differs, {how}: {_cut(a)} and {_cut(b)}")


@rule(
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
        _forget(task)
        loss = sum((r.loss.double() * r.items for r in results), start=torch.zeros(())) / total
        found.append({**metrics, schema.LOSS: loss})
    for name, value in found[0].items():
        if value.ndim == 0 and not torch.allclose(
            value.double(), found[1][name].double(), rtol=1e-5, atol=1e-7, equal_nan=True
        ):
            raise Broken(
                f"{name} is {float(value)} in batches of {size} (the last of one), {float(found[1][name])} in one batch"
            )


_WITHOUT_DATA = """
import sys
from resdomains.training import DataModule
def refuse(*_, **__):
    raise SystemExit("predict built a data module")
DataModule.__init__ = refuse
from resdomains.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@rule(
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
    trained = bench.whole()
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(trained.run.last_checkpoint, elsewhere / "bare.ckpt")
    exact = ("--accelerator", "cpu", "--precision", "32")
    command = bench.command("predict", "--ckpt_path", "bare.ckpt", "--format", "json", *exact)
    command[1:3] = ["-c", _WITHOUT_DATA]
    hidden = trained.run.folder.rename(trained.run.folder.with_name("hidden"))
    try:
        done = start([*command, *(str(path) for path in paths)], elsewhere)
    finally:
        hidden.rename(trained.run.folder)
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


@rule(
    "let an export compute what `predict` computes, from the same input; for each format that `exports` names, "
    "TaskCase.exported runs what was written, with the library that it is for"
)
def exports_agree_with_predictions(bench: Bench) -> None:
    """What is exported says, in another library, what `predict` says (3e-4 of the largest value)."""
    case = bench.case
    trained = bench.fit({"trainer.max_epochs": "1", **case.exportable}) if case.exportable else None
    task = (trained or bench.whole()).task.eval()
    missing = sorted(set(task.exports) - set(case.exported))
    if missing:
        raise Broken(
            f"the case does not say how to run an export to {', '.join(missing)}; give TaskCase.exported"
        )
    if not task.exports:
        return
    paths = bench.inputs()
    expected = predict(task, paths, 1)
    for form in task.exports:
        folder = bench.folder / "exported" / form
        folder.mkdir(parents=True)
        task.export(folder, form)
        found = case.exported[form](folder, paths)
        if len(found) != len(expected) or not any(found):
            raise Broken(
                f"{form}: TaskCase.exported gives {len(found)} answers for {len(expected)} predictions, "
                f"{sum(map(bool, found))} of them not empty"
            )
        for record, answer in zip(expected, found, strict=True):
            for name, value in answer.items():
                one, two = list(numbers(record[name])), list(numbers(value))
                scale = max((abs(v) for v in one), default=0.0)
                close = len(one) == len(two) and all(
                    abs(a - b) <= 3e-4 * scale for a, b in zip(one, two, strict=True)
                )
                if not close or (not one and record[name] != value):
                    raise Broken(
                        f"{form}: {name} of {record['source']} is {_cut(value)}, "
                        f"`predict` says {_cut(record[name])}"
                    )


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
