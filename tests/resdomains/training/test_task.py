import copy
import csv
import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from resdomains import schema
from resdomains.schema import Split
from resdomains.training import (
    BadCheckpoint,
    Optimization,
    Run,
    RunOptions,
    StepResult,
    Task,
    TrainingDiverged,
    WandbOptions,
    load_task,
    read_checkpoint,
    run_facts,
)
from resdomains.training.batches import Batches, LengthBatches
from resdomains.training.saving import Checkpoints
from resdomains.training.task import computed
from tests.pairs import in_two_processes
from tests.resdomains.training.toy import Clouds, Linear, Side


def fit(
    root: Path,
    data: Clouds,
    epochs: int = 2,
    mode: Any = "disabled",
    resume: Path | None = None,
    optimizer: Any = torch.optim.SGD,
    task: type[Side] = Side,
    **trainer: Any,
) -> tuple[Side, Run]:
    pl.seed_everything(0, verbose=False)
    built = task(
        backbone=Linear(), spec=data.spec, optimization=Optimization(lr=0.1, optimizer=optimizer)
    )
    run = Run.create(RunOptions(root, wandb=WandbOptions(mode=mode)), "side", "clouds")
    loggers = run.loggers(run_facts(built, run, "Clouds", 0, 1), list(built.build_metrics()))
    monitor = built.monitor if data.has("val") else None
    callbacks = [c for c in run.callbacks(monitor) if type(c).__name__ != "RunProgress"]
    options: dict[str, Any] = {"log_every_n_steps": 2, "enable_progress_bar": False, **trainer}
    pl.Trainer(
        max_epochs=epochs,
        logger=loggers,
        callbacks=callbacks + options.pop("callbacks", []),
        use_distributed_sampler=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    ).fit(built, data, ckpt_path=resume, weights_only=True)
    return built, run


def rows(run: Run) -> list[dict[str, float]]:
    with run.metrics.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_every_run_logs_the_schema(tmp_path: Path) -> None:
    task, run = fit(tmp_path, Clouds())
    seen = {name for row in rows(run) for name in row}
    expected = {schema.TRAIN_LOSS, schema.VAL_LOSS, schema.VAL_SCORE, schema.VAL_SKILL, "val/top1"}
    assert expected | set(schema.PROGRESS) | set(schema.PERF) <= seen
    assert rows(run)[-1][schema.SAMPLES] == task.samples_seen == 80
    assert task.flops_per_sample == 3 * 2 * 4 * 2
    assert (run.pictures / "learning_curves.png").stat().st_size > 5000


def test_logged_values_are_those_of_the_whole_split(tmp_path: Path) -> None:
    data = Clouds()
    task, run = fit(tmp_path, data)
    dataset: Any = data.ready_dataset("val")
    points, targets, _ = dataset.tensors
    logits = task.backbone(points)
    last = next(row for row in reversed(rows(run)) if schema.VAL_LOSS in row)
    assert last[schema.VAL_LOSS] == pytest.approx(
        nn.functional.cross_entropy(logits, targets).item(), rel=1e-5
    )
    top1 = (logits.argmax(1) == targets).float().mean().item()
    assert last[schema.VAL_SCORE] == pytest.approx(top1)
    assert last[schema.VAL_SKILL] == pytest.approx((top1 - 0.5) / 0.5)


def test_a_split_whose_samples_have_no_loss_keeps_its_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [
        r[schema.VAL_SCORE] for r in rows(fit(tmp_path / "a", Clouds())[1]) if schema.VAL_SCORE in r
    ]
    step = Side.step

    def without(self: Side, batch: Any, split: Split) -> StepResult:
        result = step(self, batch, split)
        return result if split == "train" else StepResult(result.loss * 0.0, 0)

    monkeypatch.setattr(Side, "step", without)
    found = [r for r in rows(fit(tmp_path / "b", Clouds())[1]) if schema.VAL_SCORE in r]
    assert [r[schema.VAL_SCORE] for r in found] == expected
    assert all(math.isnan(r[schema.VAL_LOSS]) for r in found)


def test_clock_stops_with_training(tmp_path: Path) -> None:
    task, run = fit(tmp_path, Clouds())
    trained = task.progress()[schema.SECONDS]
    assert rows(run)[-1][schema.SECONDS] <= trained
    time.sleep(0.05)
    assert task.progress()[schema.SECONDS] == trained
    # Testing an earlier state counts from there, not twice.
    trainer = task.trainer
    trainer.test(task, Clouds(), ckpt_path=run.checkpoints / "best.ckpt", weights_only=True)
    assert task.progress()[schema.SECONDS] <= trained


def test_accumulated_gradients_equal_the_larger_batch(tmp_path: Path) -> None:
    whole, _ = fit(tmp_path, Clouds(batch_size=8))
    parts, _ = fit(tmp_path, Clouds(batch_size=4), accumulate_grad_batches=2)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    assert whole.samples_seen == parts.samples_seen


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [3, 5, 7, 10])
def test_stopped_run_goes_on_exactly(tmp_path: Path, at: int, workers: int) -> None:
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == at:
                trainer.save_checkpoint(tmp_path / "stop.ckpt")
                raise KeyError("stop")

    def run(**options: Any) -> tuple[Side, Run]:
        return fit(tmp_path, Clouds(num_workers=workers), epochs=3, log_every_n_steps=1, **options)

    whole, uninterrupted = run()
    with pytest.raises(KeyError):
        run(callbacks=[Stop()])
    resumed, rest = run(resume=tmp_path / "stop.ckpt")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True)
    )
    losses = {
        row["step"]: row[schema.TRAIN_LOSS]
        for row in rows(uninterrupted)
        if schema.TRAIN_LOSS in row
    }
    again = {row["step"]: row[schema.TRAIN_LOSS] for row in rows(rest) if schema.TRAIN_LOSS in row}
    assert again == {step: loss for step, loss in losses.items() if step > at}


def test_resumed_run_competes_with_the_best_of_the_run_before(tmp_path: Path) -> None:
    _, run = fit(tmp_path, Clouds(), epochs=2)
    best = read_checkpoint(run.checkpoints / "best.ckpt")
    _, rest = fit(tmp_path, Clouds(), epochs=3, resume=run.last_checkpoint)
    (state,) = (
        v
        for k, v in read_checkpoint(rest.last_checkpoint)["callbacks"].items()
        if "Checkpoints" in k
    )
    (before,) = (v for k, v in best["callbacks"].items() if "Checkpoints" in k)
    assert state["best_model_score"] >= before["best_model_score"]
    assert Path(state["best_model_path"]).is_file()


def test_loss_that_is_no_number_stops_the_run_and_says_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"became nan at step \d \(epoch 0\).*Lower --model.optimization.lr"
    ):
        fit(tmp_path, Clouds(poison=True))


def test_data_without_validation_train_and_keep_the_last_state(tmp_path: Path) -> None:
    _, run = fit(tmp_path, Clouds(val=0), limit_val_batches=0)
    assert run.last_checkpoint.is_file()
    assert not any(schema.VAL_SCORE in row for row in rows(run))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("algorithm", "bound"), [("norm", 0.01), ("value", 0.01)])
def test_gradients_are_clipped_in_mixed_precision(
    tmp_path: Path, fused: bool, algorithm: str, bound: float
) -> None:
    class Watch(pl.Callback):
        largest = 0.0

        def on_before_zero_grad(
            self, trainer: pl.Trainer, module: pl.LightningModule, _: Any
        ) -> None:
            gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
            if gradients:
                together = torch.cat(gradients)
                size = together.norm() if algorithm == "norm" else together.abs().max()
                self.largest = max(self.largest, float(size))

    watch = Watch()
    fit(
        tmp_path,
        Clouds(),
        optimizer=partial(torch.optim.SGD, fused=fused),
        callbacks=[watch],
        precision="bf16-mixed",
        gradient_clip_val=bound,
        gradient_clip_algorithm=algorithm,
    )
    assert 0 < watch.largest <= bound * 1.01


def test_endless_run_needs_a_schedule_without_end(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"WarmupCosine needs to know when training ends: set --trainer.max_epochs"
    ):
        fit(tmp_path, Clouds(), epochs=-1)


def test_task_must_take_what_the_launcher_gives() -> None:
    with pytest.raises(TypeError, match=r"Bad.__init__ must take the keyword-only argument 'spec'"):

        class Bad(Side):
            def __init__(
                self, *, backbone: nn.Module, optimization: Optimization | None = None
            ) -> None:
                super().__init__(backbone=backbone, spec={}, optimization=optimization)


def test_an_option_of_predict_must_be_a_property() -> None:
    with pytest.raises(TypeError, match=r"Bad.predict_options names 'lr_', which must be a prop"):

        class Bad(Side):
            predict_options: ClassVar = {"lr": float, "lr_": float}


@pytest.mark.parametrize(
    ("score", "chance", "skill"), [(0.1, 0.1, 0.0), (1.0, 0.1, 1.0), (0.55, 0.1, 0.5)]
)
def test_skill_is_zero_at_chance_and_one_at_best(score: float, chance: float, skill: float) -> None:
    assert schema.skill(score, chance) == pytest.approx(skill)


def test_skill_without_chance_is_not_a_number() -> None:
    assert math.isnan(schema.skill(0.5, None))


RECIPE: dict[str, dict[str, Any]] = {
    "model": {
        "class_path": "tests.resdomains.training.toy.Side",
        "init_args": {
            "backbone": {"class_path": "tests.resdomains.training.toy.Linear", "init_args": {}}
        },
    }
}


def test_checkpoint_of_a_python_run_says_that_it_holds_no_recipe(tmp_path: Path) -> None:
    _, run = fit(tmp_path, Clouds())
    with pytest.raises(BadCheckpoint, match="holds no recipe, because its run was built in Python"):
        load_task(run.last_checkpoint)


def with_recipe(run: Run, class_path: str, path: Path) -> Path:
    checkpoint = torch.load(run.last_checkpoint, weights_only=True)
    recipe = {"model": {**RECIPE["model"], "class_path": class_path}}
    checkpoint["resdomains"]["recipe"] = recipe
    torch.save(checkpoint, path)
    return path


def test_task_is_rebuilt_from_its_checkpoint_alone(tmp_path: Path) -> None:
    task, run = fit(tmp_path, Clouds())
    path = with_recipe(run, str(RECIPE["model"]["class_path"]), tmp_path / "whole.ckpt")
    rebuilt = load_task(path, plugins=["tests"])
    points = torch.randn(5, 4)
    assert not rebuilt.training
    assert torch.equal(rebuilt.backbone(points), task.backbone(points))


def test_recipe_of_an_unknown_package_is_refused_and_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = fit(tmp_path, Clouds())
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Side: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadCheckpoint, match=r"its task planted.Side cannot be built"):
        load_task(with_recipe(run, "planted.Side", tmp_path / "evil.ckpt"))
    assert not (tmp_path / "ran").exists()


def test_pickled_code_in_a_checkpoint_is_refused_and_never_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"resdomains": Evil(), "state_dict": {}}, tmp_path / "evil.ckpt")
    with pytest.raises(
        BadCheckpoint, match=r"evil.ckpt: refused, because it is not a plain checkpoint"
    ):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    _, run = fit(tmp_path, Clouds())
    whole = run.last_checkpoint.read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "word.ckpt").write_text("text")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    torch.save({"state_dict": {}, "resdomains": {"format": 1}}, tmp_path / "part.ckpt")
    torch.save({"state_dict": {}, "resdomains": [1]}, tmp_path / "list.ckpt")
    for name, message in {
        "half.ckpt": "damaged",
        "text.ckpt": "refused|damaged",
        "word.ckpt": "damaged",
        "other.ckpt": "not a checkpoint of resdomains",
        "part.ckpt": r"it lacks recipe, spec\)",
        "list.ckpt": "it lacks format, recipe, spec",
        "none.ckpt": "no such checkpoint file",
    }.items():
        with pytest.raises(BadCheckpoint, match=rf"{name}: .*({message})"):
            read_checkpoint(tmp_path / name)


def test_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    task = Side(backbone=Linear(), spec={"classes": ["a", "b"]})
    task.recipe = {"model": {"class_path": "audio.Tagging"}}
    checkpoint: dict[str, Any] = {}
    task.on_save_checkpoint(checkpoint)
    other: Task = Side(backbone=Linear(), spec={"classes": ["a", "b"]})
    other.recipe = RECIPE
    with pytest.raises(
        ValueError, match=r"the checkpoint holds a audio.Tagging, this run trains a .*Side"
    ):
        other.on_load_checkpoint(checkpoint)


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = {Run.create(RunOptions(tmp_path), "a", "b").folder for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() for folder in folders)


def records_of(run: Run) -> list[dict[str, Any]]:
    """What W&B kept of an offline run."""
    (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    reader = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(file)]
    output = subprocess.run(reader, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def defined(run: Run) -> dict[str, str]:
    """What W&B draws each value over."""
    return {
        record["metric"]["name"]: record["metric"].get("step_metric")
        or record["metric"].get("stepMetric")
        for record in (r.get("record", r) for r in records_of(run))
        if "metric" in record
    }


def test_offline_run_holds_the_schema_by_exact_names(tmp_path: Path) -> None:
    import wandb

    _, run = fit(tmp_path, Clouds(), mode="offline")
    wandb.finish()
    text = json.dumps(records_of(run))
    assert defined(run)[schema.VAL_SCORE] == schema.SAMPLES
    assert not any("*" in name for name in defined(run))
    for name in (
        schema.TRAIN_LOSS,
        schema.VAL_SKILL,
        *schema.PROGRESS,
        *schema.PERF,
        "media/learning_curves",
    ):
        assert name in text
    for fact in ("parameters", "merge", "coupling", "memory", "world_size", "commit"):
        assert fact in text


class Ragged(Clouds):
    """Points with lengths of their own, in batches of like length."""

    def batch_sampler(self, split: Split, rank: int, world: int) -> Batches:
        lengths = torch.arange(len(self.ready_dataset(split))) // 2 + 1  # type: ignore[arg-type]
        return LengthBatches(
            lengths,
            self.batch_size,
            rank,
            world,
            shuffle=split == "train",
            seed=self.seed,
            multiple=self.accumulated(split),
        )


class Gradients(pl.Callback):
    """Keep each optimizer step's gradient with the samples that it came from."""

    def __init__(self) -> None:
        self.steps: list[tuple[list[int], nn.Linear, Tensor]] = []
        self._samples: list[int] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        self._samples += batch[2].tolist()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        layer = pl_module.backbone.layer
        self.steps.append((self._samples, copy.deepcopy(layer), layer.weight.grad.clone()))
        self._samples = []


def test_samples_count_alike_whatever_batch_and_step_they_are_in(
    tmp_path: Path,
) -> None:
    data, seen = Ragged(batch_size=4), Gradients()
    task, _ = fit(tmp_path, data, accumulate_grad_batches=3, callbacks=[seen], precision="32-true")
    assert len(seen.steps) == 8
    assert task.samples_seen == 80
    assert len({len(samples) for samples, _, _ in seen.steps}) > 1
    per_step = 40 / (len(seen.steps) / 2)
    for samples, layer, gradient in seen.steps:
        logits, targets = layer(data.points[samples]), data.targets[samples]
        loss = nn.functional.cross_entropy(logits, targets, reduction="sum") / per_step
        (expected,) = torch.autograd.grad(loss, layer.weight)
        torch.testing.assert_close(gradient, expected)


class Shares(Metric):
    """How many points each class has, and of all points the share on the right: several results of one metric."""

    counts: Tensor

    def __init__(self, right: str = "right") -> None:
        super().__init__()
        self.right = right
        self.add_state("counts", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.counts += targets.bincount(minlength=2)

    def compute(self) -> dict[str, Tensor]:
        return {"counts": self.counts, self.right: self.counts[1] / self.counts.sum()}


class Counting(Side):
    def build_metrics(self) -> dict[str, Metric]:
        return {**super().build_metrics(), "shares": Shares()}

    def step(self, batch: Any, split: Split) -> StepResult:
        if split != "train":
            self.metrics_of(split)["shares"].update(batch[1], batch[1])
        return super().step(batch, split)


def test_a_metric_may_give_several_results(tmp_path: Path) -> None:
    import wandb

    task, run = fit(tmp_path, Clouds(), mode="offline", task=Counting)
    wandb.finish()
    assert set(task.results["val"]) == {"top1", "counts", "right", "loss", "score", "skill"}
    assert task.results["val"]["counts"].tolist() == [7, 6]
    assert [r["val/right"] for r in rows(run) if "val/right" in r][-1] == pytest.approx(6 / 13)
    assert not {"val/shares", "val/counts"} & {name for row in rows(run) for name in row}
    assert defined(run)["val/right"] == schema.SAMPLES


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            {"right": Shares("all"), "shares": Shares()},
            "the metric 'shares' gives a result 'counts', which the metric 'right' gives too; rename",
        ),
        ({"skill": Shares("score")}, "'skill' gives a result 'score', which every task gives too"),
        (
            {"loss": SumMetric()},
            "the metric 'loss' gives a result 'loss', which every task gives too",
        ),
    ],
)
def test_results_of_one_name_are_refused(metrics: dict[str, Metric], message: str) -> None:
    for metric in metrics.values():
        metric.update(torch.ones(2)) if isinstance(metric, SumMetric) else metric.update(
            torch.ones(2), torch.tensor([0, 1])
        )
    with pytest.raises(ValueError, match=message):
        computed(metrics)


class ByHand(Side):
    """Makes three optimizer steps of each batch, and measures the share on the right, where a batch has any."""

    measures: ClassVar[tuple[str, ...]] = ("right", "steps")

    automatic_optimization = False

    @property
    def monitor(self) -> str:
        return "val/top1"

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        optimizer: Any = self.optimizers()
        for _ in range(3):
            optimizer.zero_grad()
            result = self.step(batch, "train")
            self.manual_backward(result.loss)
            optimizer.step()
        right = batch[1].double().mean()
        measures = {
            "right": right if right > 0.5 else torch.tensor(torch.nan),
            "steps": torch.tensor(3.0),
        }
        return self.outcome(StepResult(result.loss, result.items, measures))


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_measures_are_means_over_the_samples_that_have_them(tmp_path: Path) -> None:
    import wandb

    data = Clouds()
    task, run = fit(
        tmp_path, data, epochs=1, task=ByHand, mode="offline", log_every_n_steps=15, devices=1
    )
    wandb.finish()
    shares = [
        float(data.targets[batch].double().mean()) for batch in data.batch_sampler("train", 0, 1)
    ]
    known = [share for share in shares if share > 0.5]
    assert 0 < len(known) < len(shares) == 5
    (row,) = (row for row in rows(run) if "train/loss" in row)
    assert row["train/right"] == pytest.approx(sum(known) / len(known))
    assert row["train/steps"] == 3.0
    assert row["step"] == 15
    assert task.samples_seen == 40
    assert defined(run)["train/right"] == schema.SAMPLES


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize(
    ("every", "expected"), [(3, [3, 6, 9, 12, 15]), (7, [9, 15]), (2, [3, 6, 9, 12, 15])]
)
def test_a_row_is_logged_whenever_an_interval_of_steps_is_full(
    tmp_path: Path, every: int, expected: list[int]
) -> None:
    _, run = fit(tmp_path, Clouds(), epochs=1, task=ByHand, log_every_n_steps=every)
    assert [int(row["step"]) for row in rows(run) if "train/loss" in row] == expected


def test_the_best_checkpoint_is_judged_by_what_the_task_monitors(tmp_path: Path) -> None:
    task, _ = fit(tmp_path, Clouds(), epochs=1, task=ByHand)
    (best,) = (c for c in task.trainer.checkpoint_callbacks if isinstance(c, Checkpoints))
    assert best.monitor == "val/top1"
    assert best.best_model_score is not None
    assert float(best.best_model_score) == float(task.results["val"]["top1"])


def check_weights_of(rank: int) -> None:
    network = Linear()
    task = Side(backbone=network, spec={"classes": ["a", "b"]})
    task.trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    task.check_weights()
    if rank == 1:
        nn.init.constant_(network.layer.bias, math.inf)
    with pytest.raises(TrainingDiverged, match=r"^backbone\.layer\.bias became infinite or NaN"):
        task.check_weights()


@pytest.mark.slow
def test_a_weight_that_one_process_holds_stops_them_all(tmp_path: Path) -> None:
    in_two_processes(check_weights_of, tmp_path)
