"""The base of every task: it trains, evaluates and logs; a domain fills in what is its own."""

import inspect
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics import Metric

from resdomains import schema
from resdomains.core import eager, refusal
from resdomains.schema import Split
from resdomains.training.batches import Batches
from resdomains.training.clipping import clip_by_norm
from resdomains.training.figures import Boxed, Film, plot_over_samples
from resdomains.training.optimization import Constant, Optimization
from resdomains.training.randomness import keys
from resdomains.training.spec import Spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from resdomains.core import TaskHead
    from resdomains.interop import Weights
    from resdomains.training.data import DataModule

FORMAT = 1

_Result = TypeVar("_Result")


class TrainingDiverged(RuntimeError):
    """The training loss, or a weight, stopped being a number. All processes raise it together."""


@dataclass
class StepResult:
    """What a step gives the base.

    Args:
        loss: The mean loss over the step's items, without dimensions.
        items: How many samples the step saw.
        measures: What else a training step measured, by the names of the task's `measures`: means over its items,
            NaN where a step has none. Logged as `train/<name>`.
    """

    loss: Tensor
    items: int
    measures: Mapping[str, Tensor] = field(default_factory=dict)


class _Whole:
    """Counts for no module in particular."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *raised: object) -> None:
        """End."""


def counted(work: Callable[[], _Result]) -> tuple[_Result, int]:
    """Do some work; return its result and its floating-point operations, those of a backward pass within included.

    What is compiled runs as written within.
    """
    counter = FlopCounterMode(display=False)
    # Its hooks on modules' inputs would keep the graph of a step that fails, such as for want of memory, for good.
    counter.mod_tracker = _Whole()  # type: ignore[assignment]  # all that the counter asks of a tracker
    with eager(), counter:
        result = work()
    return result, counter.get_total_flops()


def trained_flops(forward: int, items: float) -> int:
    """Return the operations of training on a sample, from those of a forward pass over some.

    Backward takes twice the forward's operations (Kaplan et al. 2020, table 1).
    """
    return round(3 * forward / items)


def computed(metrics: Mapping[str, Metric]) -> dict[str, Tensor]:
    """Compute metrics, and return their results by name: a metric gives one of its name, or a mapping of several.

    Raises:
        ValueError: If a name is given twice, or is one that the base gives.
    """
    results: dict[str, Tensor] = {}
    origin = dict.fromkeys((schema.LOSS, schema.SCORE, schema.SKILL), "every task")
    for name, metric in metrics.items():
        found = metric.compute()
        for key, value in (found if isinstance(found, Mapping) else {name: found}).items():
            if key in origin:
                raise ValueError(
                    f"the metric {name!r} gives a result {key!r}, which {origin[key]} gives too; rename one of them"
                )
            origin[key] = f"the metric {name!r}"
            results[key] = value
    return results


class Task(LightningModule, ABC):
    """A network with a loss, metrics, a score and predictions.

    The base optimises, counts and logs; a task never calls `self.log`. Every task has one `score` in [0, 1], higher
    is better, over the whole split and all processes, and states the score of guessing, so that domains compare.

    Three methods are a task's choice, and a command that needs one says where it is missing: `embed(batch)` returns the
    features before the head, `draw(record)` a predicted item as (3, H, W) uint8, and `film(record)` a `Film` of what
    was predicted without an input.

    Args:
        backbone: The residual network; its `blocks()` order the layer-wise rates.
        spec: The data's plain description, from which the task builds its head and its preprocessing.
        optimization: Optimizer, rate, schedule, and what of the backbone is frozen.

    Raises:
        ValueError: If more blocks shall be frozen than the backbone has.
    """

    needs_inputs: ClassVar[bool] = True
    """Whether `resdomains predict` needs files or texts. If not, `read` of no inputs yields items too, such as episodes
    to play; their records have no `source`, and begin with what tells them apart."""

    predict_options: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    """What `resdomains predict` sets of a task, as `--name VALUE`: names of properties, each with what makes a value of
    the text, such as `float`, or with `bool`, a switch that needs no value. The property raises ValueError for a bad
    value, and its docstring is the help."""

    measures: ClassVar[Sequence[str]] = ()
    """Names of what a training step may measure beside its loss."""

    exports: ClassVar[Sequence[str]] = ()
    """The formats that `export` writes, the usual one first."""

    export_options: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    """What `resdomains export` sets of a task, as `predict_options` are set."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for options in ("predict_options", "export_options"):
            for name in getattr(cls, options):
                if getattr(getattr(cls, name, None), "fset", None) is None:
                    raise TypeError(
                        f"{cls.__qualname__}.{options} names {name!r}, which must be a property with a setter"
                    )
        if inspect.isabstract(cls):
            return
        parameters = inspect.signature(cls.__init__).parameters
        for name in ("backbone", "spec", "optimization"):
            if (
                name not in parameters
                or parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY
            ):
                raise TypeError(
                    f"{cls.__qualname__}.__init__ must take the keyword-only argument {name!r}: the launcher gives it; "
                    f"its parameters are {', '.join(parameters)}"
                )

    def __init__(
        self, *, backbone: nn.Module, spec: dict[str, Any], optimization: Optimization | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        self.optimization = optimization if optimization is not None else Optimization()
        # Here, since strategies ask which parameters have gradients before they build optimizers.
        self.optimization.freeze(self, "backbone", self.blocks())
        self.recipe: dict[str, Any] | None = None
        """The config this task was built from, all plain; None when built in Python."""
        self.run_id: str | None = None
        """The run that trains it."""
        self.samples_seen = 0
        self.flops_per_sample = 0
        self.seconds_before = 0.0
        """Training seconds of the runs that this one goes on from."""
        self._started: float | None = None
        self.results: dict[str, dict[str, Tensor]] = {}
        """Each evaluated split's metrics, computed over all its samples and all processes."""
        self.validated: dict[str, float] = {}
        """The last validation's results that are one number; a checkpoint keeps them."""
        self.chosen: dict[str, float] = {}
        """What the last validation chose, such as a threshold; a checkpoint keeps it."""
        self._totals: dict[str, Tensor] = {}
        self._plotted: set[str] = set()
        self.notes: list[str] = []
        """What a user should know of how the task was built, a sentence each; shown when a run begins."""

    def check_reads(self, x: Tensor, what: str, instead: str) -> None:
        """Refuse a backbone that does not read the data; one of another library is not asked.

        Args:
            x: What it would be given, of zeros.
            what: What that is called, such as `frames`.
            instead: What to do, such as `take a network over signals`.

        Raises:
            ValueError: If it does not.
        """
        if (error := refusal(self.backbone, x)) is not None:
            raise ValueError(
                f"backbone {type(self.backbone).__name__} cannot read {what} ({error}); {instead}"
            ) from error

    def begin_with(
        self,
        weights: "Weights | None",
        head: "TaskHead",
        spec: Spec,
        others: Sequence[str] = (),
    ) -> None:
        """Fill the backbone, and the head where its outputs mean the same, and note what is new.

        Args:
            weights: Pretrained weights; with None the network begins anew.
            head: What reads the backbone; `head` is also its name here, under which checkpoints hold it.
            spec: The description of the data.
            others: Names of further modules here, which an earlier run's checkpoint fills too.

        Raises:
            ValueError: If the weights do not fit.
        """
        if weights is None:
            return
        loaded = weights.load(self.backbone, head, spec)
        if loaded.reason:
            self.notes.append(f"weights: the head is not all of {weights.source}: {loaded.reason}")
        if not others:
            return
        from resdomains.interop import Checkpoint

        modules = {name: self.get_submodule(name) for name in others}
        anew = weights.load_others(modules) if isinstance(weights, Checkpoint) else list(modules)
        if anew:
            self.notes.append(
                f"weights: these begin anew, unlike {weights.source}: {', '.join(anew)}"
            )

    def build_all_metrics(self) -> None:
        """Make the metrics of the evaluated splits; a subclass calls this when `build_metrics` can answer."""
        self.metrics = nn.ModuleDict(
            {split: nn.ModuleDict(self.build_metrics()) for split in ("val", "test")}
        )

    @abstractmethod
    def build_metrics(self) -> dict[str, Metric]:
        """Return new metrics, by name.

        What a metric computes is a tensor, the result of its name, or a mapping of tensors, which are results under
        their own names. Results that are one number are logged as `<split>/<name>`; of several, one that is NaN is not:
        it is not defined for these data, such as the precision of objects that do not occur. No two metrics may give a
        result of one name, nor any `loss`, `score` or `skill`, which the base gives.
        """

    @abstractmethod
    def step(self, batch: Any, split: Split) -> StepResult:
        """Compute the loss of a batch and, unless the split is `train`, update `metrics_of(split)`."""

    @abstractmethod
    def predict(self, batch: Any) -> list[dict[str, Any]]:
        """Return one plain record for each item of a batch."""

    @abstractmethod
    def read(self, inputs: Sequence[str]) -> Iterable[Any]:
        """Yield an item for each thing to predict that the inputs name, prepared as in evaluation.

        An input is what stands on the command line: a file or a folder, for some tasks also the text itself. A sample
        that cannot be read, or an input that is not there, comes as a `BadSample` in its place, so that the caller
        can refuse or skip it.
        """

    def row(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a table shows of a record of `predict`; lists of mappings in it are left out."""
        return record

    def formats(self) -> Mapping[str, Callable[[Sequence[Mapping[str, Any]]], str]]:
        """Return formats that `resdomains predict` can write beside its own: each makes a text of all records."""
        return {}

    def export(self, folder: Path, format: str) -> str:
        """Write the network for another library into an empty folder, and return in words what was written.

        Args:
            folder: Where to.
            format: One of `exports`.

        Raises:
            ValueError: If the format cannot express the network.
            ImportError: If a library is not installed; the message says which.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method export")

    def size(self, item: Any) -> int | None:
        """Return how much an item of `read` costs, such as its length: prediction batches those of like size.

        None where all items cost alike.
        """
        return None

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Any:
        """Make a batch for `predict` of the items that `read` yields."""

    @abstractmethod
    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        """Return the score in [0, 1] from a split's computed metrics."""

    @staticmethod
    @abstractmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        """Return the score of guessing, or None where that is not defined."""

    def choose(self, results: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what a validation's results decide for the test and for `predict`, such as a threshold, by name."""
        return {}

    def figures(self, split: Split, results: Mapping[str, Tensor]) -> "dict[str, Figure]":
        """Return pictures of a split's results, by file name without suffix."""
        return {}

    def tables(
        self, split: Split, results: Mapping[str, Tensor]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return tables of a split's results, by file name without suffix: rows of the same keys.

        A cell is a plain value or a `resdomains.training.Sound`, or None where a row has none: W&B wants cells of one
        kind in a column.
        """
        return {}

    def examples(self, split: Split, results: Mapping[str, Tensor]) -> list[str]:
        """Return a few lines that let a person read how training goes, such as a reference and what was recognised.

        They are shown after each validation, three at most, cut to the terminal's width, and kept in `examples.txt`.
        """
        return []

    def snapshots(
        self, split: Split, results: Mapping[str, Tensor]
    ) -> Mapping[str, Sequence[Boxed]]:
        """Return a few pictures of a split's samples with boxes, by file name without suffix.

        They are asked for after each validation of a fit and after the test. Each name becomes a sheet, which is kept
        for every epoch, and pictures in W&B whose layers of boxes can be switched on and off.
        """
        return {}

    def films(self, split: Split, results: Mapping[str, Tensor]) -> Mapping[str, Film]:
        """Return films of a split, such as an episode that a policy plays, by file name without suffix.

        They are asked for as `figures` are, in evaluation mode and without gradients.

        Raises:
            NoFilm: Where there can be none; the run says why and goes on.
        """
        return {}

    def samples(self, batch: Any) -> Tensor | None:
        """Return a picture, (3, H, W) uint8, of a training batch as `step` gets it; None where there is none to draw.

        `fit` asks once, before training, and writes `pictures/train_samples.png`: this is what is learned from.
        """
        return None

    @property
    def data(self) -> "DataModule | None":
        """The run's data module; None outside a run."""
        try:
            return cast("DataModule | None", getattr(self.trainer, "datamodule", None))
        except RuntimeError:  # how Lightning says that there is no trainer
            return None

    def describe(self, split: Split, index: int) -> dict[str, Any]:
        """Return what the data say of a sample, for tables and figures; nothing outside a run."""
        return {} if self.data is None else self.data.describe(split, index)

    def metrics_of(self, split: Split) -> dict[str, Metric]:
        """Return the metrics of an evaluated split."""
        return dict(
            cast(Iterable[tuple[str, Metric]], cast(nn.ModuleDict, self.metrics[split]).items())
        )

    @property
    def lr(self) -> float:
        """The peak learning rate; Lightning's learning-rate finder sets it."""
        return self.optimization.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimization.lr = value

    def blocks(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the backbone's residual blocks in order, by name."""
        blocks = getattr(self.backbone, "blocks", None)
        if callable(blocks):
            yield from blocks()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode:
            self.optimization.hold(self, "backbone", self.blocks())
        return self

    def on_train_start(self) -> None:
        """Put frozen parts in evaluation mode: Lightning trains a task in the mode it finds."""
        self.train()

    @classmethod
    def fixed_by(cls, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the data fix of the arguments, by dotted key, such as `backbone.in_channels`.

        The launcher sets these where the config says nothing of them.
        """
        return {}

    @property
    def monitor(self) -> str:
        """The name of the validation's result whose highest value makes the best checkpoint."""
        return schema.VAL_SCORE

    def score_of(self, monitored: float) -> float:
        """Return the score that goes with a value of what `monitor` names."""
        return monitored

    @property
    def steps_done(self) -> int:
        """How many of `total_steps` are taken."""
        return self.trainer.global_step

    @property
    def gradient_clip(self) -> tuple[str, float | None]:
        """The key that clips gradients, and its value."""
        return "trainer.gradient_clip_val", cast(float | None, self.trainer.gradient_clip_val)

    def configure_model(self) -> None:
        """Share out the parameters where the trainer's strategy does that.

        Raises:
            ValueError: If the strategy cannot train this task.
        """
        from resdomains.training.sharding import Sharded, check_sharding

        check_sharding(self.trainer, self)
        if isinstance(self.trainer.strategy, Sharded):
            self.trainer.strategy.shard(self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer and its per-step schedule."""
        optimizer = self.optimization.build(self, "backbone", self.blocks())
        scheduler = self.optimization.scheduler(optimizer, self.total_steps())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, or by value.

        Lightning refuses to clip for a fused optimizer in mixed precision, lest a loss scaler's factor be in the
        gradients; bfloat16 has no scaler, so there is nothing to fear.
        """
        fused = any(group.get("fused") for group in optimizer.param_groups)
        if not gradient_clip_val or not fused or self.trainer.precision != "bf16-mixed":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        else:
            clip_by_norm(parameters, gradient_clip_val)

    def schedule_steps(self, optimizer_steps: int) -> int:
        """Return how many steps of the schedule so many optimizer steps are."""
        return optimizer_steps

    def total_steps(self) -> int:
        """Return the steps of the schedule in the whole run: those of the optimizer, unless a task optimises by hand.

        Lightning's own estimate loads the training data before a resumed run's position is restored, and so loses it.

        Raises:
            ValueError: If the run has no end and the schedule needs one.
        """
        trainer = self.trainer
        data = trainer.datamodule  # type: ignore[attr-defined]  # set by `fit(datamodule=...)`
        ends = [self.schedule_steps(trainer.max_steps)] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            batches = len(data.batch_sampler("train", trainer.global_rank, trainer.world_size))
            limit = trainer.limit_train_batches
            batches = min(limit, batches) if isinstance(limit, int) else int(batches * limit)
            ends.append(-(-batches // trainer.accumulate_grad_batches) * trainer.max_epochs)
        if ends:
            return min(ends)
        if (
            isinstance(self.optimization.schedule, Constant)
            and not self.optimization.schedule.warmup
        ):
            return 1
        raise ValueError(
            f"the schedule {type(self.optimization.schedule).__name__} needs to know when training ends: "
            "set --trainer.max_epochs or --trainer.max_steps, or take the schedule Constant"
        )

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Run one step, in which every sample counts alike; on the first, count its floating-point operations.

        Dropout and whatever else draws from torch's generators draws what (seed, epoch, batch, process) fix: a run that
        goes on from a checkpoint draws as if it had never stopped, and processes differ.
        """
        self.seed_draws(batch_idx)
        batches = getattr(self.trainer.train_dataloader, "batch_sampler", None)
        ours = batches if isinstance(batches, Batches) else None
        if self.flops_per_sample:
            result = self.step(batch, "train")
        else:
            result, operations = counted(lambda: self.step(batch, "train"))
            # Batches that differ in samples are made to cost alike, so one stands for the mean of all.
            items = max(result.items, 1) if ours is None else ours.mean_items
            self.flops_per_sample = trained_flops(operations, items)
        share = 1.0 if ours is None else ours.share(result.items)
        loss = result.loss if share == 1.0 else result.loss * share
        # Lightning scales `loss` when gradients accumulate; `value` stays the mean over this batch.
        return {"loss": loss, **self.outcome(result)}

    def seed_draws(self, batch_idx: int) -> None:
        """Let torch's generators draw what (seed, epoch, batch, process) fix from here on."""
        seed: int = self.trainer.datamodule.seed  # type: ignore[attr-defined]  # set by `fit(datamodule=...)`
        place = torch.tensor([batch_idx * self.trainer.world_size + self.trainer.global_rank])
        key = int(keys(seed, self.trainer.current_epoch, place))
        # torch.manual_seed looks every kind of device up each time, and keeps the call's stack for those not in use.
        torch.default_generator.manual_seed(key)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(key)

    @staticmethod
    def outcome(result: StepResult) -> dict[str, Any]:
        """Return what the log of steps needs of a training step's result."""
        return {
            "value": result.loss.detach(),
            "items": result.items,
            "measures": {name: value.detach() for name, value in result.measures.items()},
        }

    def on_fit_start(self) -> None:
        """Start the clock of `progress/seconds`."""
        self._started = time.perf_counter()

    def on_fit_end(self) -> None:
        """Stop the clock: what follows training, such as the test, is no part of it."""
        if self._started is not None:
            self.seconds_before += time.perf_counter() - self._started
            self._started = None

    def progress(self) -> dict[str, float]:
        """Return how far training is: samples over all processes, floating-point operations, wall-clock seconds."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return {
            schema.SAMPLES: self.samples_seen,
            schema.FLOPS: self.samples_seen * self.flops_per_sample,
            schema.SECONDS: round(self.seconds_before + running, 3),
        }

    def write(self, values: Mapping[str, float]) -> None:
        """Send values with the progress axes to every logger, as one record.

        Lightning's `self.log` would round the counters to float32.
        """
        record = {**values, **self.progress()}
        for logger in self.loggers:
            logger.log_metrics(record, step=self.trainer.global_step)

    def _evaluate(self, batch: Any, split: Split) -> None:
        result = self.step(batch, split)
        loss = result.loss.detach().double()
        seen, batches = torch.full_like(loss, result.items), torch.ones_like(loss)
        batch_totals = torch.stack([loss * result.items, seen, batches])
        self._totals[split] = self._totals.get(split, 0) + batch_totals

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Evaluate a validation batch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Evaluate a test batch."""
        self._evaluate(batch, "test")

    def _finish(self, split: Split) -> None:
        """Compute, log and reset a split's metrics; every process calls this, also one that saw no batch."""
        nothing = torch.zeros(3, dtype=torch.float64, device=self.device)
        totals = self._totals.pop(split, nothing)
        totals = cast(Tensor, self.trainer.strategy.reduce(totals, reduce_op="sum"))
        metrics = self.metrics_of(split)
        results = computed(metrics)
        for metric in metrics.values():
            metric.reset()
        if totals[2] == 0:
            return
        # NaN where no sample has a loss, which is no reason to hide the score.
        results[schema.LOSS] = (totals[0] / totals[1]).float()
        results[schema.SCORE] = self.score(results).float()
        score = float(results[schema.SCORE])
        results[schema.SKILL] = torch.tensor(schema.skill(score, self.chance(self.spec)))
        self.results[split] = results
        if split == "val":
            self.chosen = self.choose(results)
        always = (schema.LOSS, schema.SCORE, schema.SKILL, *metrics)
        values = {
            name: float(value)
            for name, value in results.items()
            if value.ndim == 0 and (name in always or not value.isnan())
        }
        if split == "val":
            self.validated = values
        scalars = {schema.key(split, name): value for name, value in values.items()}
        plot_over_samples(self.trainer.loggers, [n for n in scalars if n not in self._plotted])
        self._plotted.update(scalars)
        # The values are equal in all processes; this makes them known to callbacks that monitor one.
        self.log_dict(scalars, logger=False)
        self.write(scalars)

    def on_validation_epoch_end(self) -> None:
        """Compute and log the validation metrics."""
        self._finish("val")

    def on_train_epoch_end(self) -> None:
        """Make the last validation known to callbacks that monitor it, where it was before the checkpoint."""
        before = {schema.key("val", name): value for name, value in self.validated.items()}
        known = self.trainer.callback_metrics
        self.log_dict({n: v for n, v in before.items() if n not in known}, logger=False)

    def on_test_epoch_end(self) -> None:
        """Compute and log the test metrics."""
        self._finish("test")

    def check_finite(self, loss: float, first: int, last: int) -> None:
        """Stop when the loss of steps `first` to `last` is not a number.

        Raises:
            TrainingDiverged: With the step and what to try.
        """
        if not math.isfinite(loss):
            where = f"step {last}" if first >= last else f"steps {first} to {last}"
            raise TrainingDiverged(
                f"the training loss became {loss} at {where} (epoch {self.trainer.current_epoch}). {self._remedies()}"
            )

    def check_weights(self) -> None:
        """Stop when a weight is not a number, as after a step whose loss was one and whose gradient was not.

        Raises:
            TrainingDiverged: With the weight and what to try.
        """
        bad = next((name for name, weight in self.named_parameters() if not _finite(weight)), None)
        if distributed.is_available() and distributed.is_initialized():
            # A process may hold a part of each weight.
            found: list[str | None] = [None] * distributed.get_world_size()
            distributed.all_gather_object(found, bad)
            bad = next(filter(None, found), None)
        if bad is not None:
            raise TrainingDiverged(
                f"{bad} became infinite or NaN by step {self.trainer.global_step} (epoch "
                f"{self.trainer.current_epoch}) and is not saved. {self._remedies()}"
            )

    def _remedies(self) -> str:
        key, clip = self.gradient_clip
        return (
            f"Lower --model.optimization.lr (now {self.lr:g}), "
            f"{'lower' if clip else 'set'} --{key} (now {clip}), "
            f"or compute in float32 with --trainer.precision 32-true (now {self.trainer.precision})"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds this task without its config or data.

        Raises:
            TrainingDiverged: If a weight is not a number: what was saved before stays.
        """
        self.check_weights()
        checkpoint["resdomains"] = {
            "format": FORMAT,
            "recipe": self.recipe,
            "spec": self.spec,
            "run_id": self.run_id,
            "samples": self.samples_seen,
            "seconds": self.progress()[schema.SECONDS],
            "flops_per_sample": self.flops_per_sample,
            "validated": self.validated,
            "chosen": self.chosen,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the counters back.

        Raises:
            ValueError: If another kind of task wrote the checkpoint.
        """
        ours = checkpoint.get("resdomains")
        if ours is None:
            raise ValueError(
                "the checkpoint was not written by resdomains: it has no 'resdomains' entry"
            )
        if ours["recipe"] and self.recipe:
            theirs, mine = (r["model"]["class_path"] for r in (ours["recipe"], self.recipe))
            if theirs != mine:
                raise ValueError(f"the checkpoint holds a {theirs}, this run trains a {mine}")
        self.samples_seen = ours["samples"]
        self.seconds_before = ours["seconds"]
        self.flops_per_sample = ours["flops_per_sample"]
        self.validated = ours.get("validated", {})
        self.chosen = ours.get("chosen", {})


def _finite(weight: Tensor) -> bool:
    """Whether what this process holds of a weight is numbers."""
    return bool(getattr(weight, "to_local", lambda: weight)().isfinite().all())
