"""Train a composed config and keep the record of it."""

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ProgressBar,
)
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import (  # type: ignore[attr-defined]  # re-exported
    MisconfigurationException,
)

from resdomains import schema
from resdomains.cli import report
from resdomains.cli.arguments import Arguments
from resdomains.cli.errors import FAILED, CliError, ConfigError
from resdomains.cli.explain import explain_key
from resdomains.cli.failures import explain_failure
from resdomains.cli.heap import keep_freed_memory
from resdomains.cli.interruption import StopBetweenSteps, Stopped
from resdomains.cli.main import complain
from resdomains.cli.processes import check_processes
from resdomains.cli.quiet import quiet
from resdomains.cli.resume import (
    ApplyOptimization,
    began_with,
    changed_keys,
    check_spec,
    find_start,
    given_start,
    open_run,
)
from resdomains.cli.session import Session
from resdomains.cli.tables import duration
from resdomains.core import compile_blocks
from resdomains.training import (
    BadCheckpoint,
    DataModule,
    Run,
    Start,
    Task,
    TrainingDiverged,
    check_sharding,
    read_checkpoint,
    run_facts,
)
from resdomains.training.callbacks import peak_memory_mib
from resdomains.training.precision import Precision, choose_precision, given_precision
from resdomains.training.saving import CheckpointFiles, Checkpoints
from resdomains.training.weights_and_biases import WandbRecord


def compose(arguments: Arguments, *, portable: bool = False) -> Session:
    """Compose the config of a command line; `--ckpt_path` without `--config` means the checkpoint's own.

    Args:
        arguments: The command line.
        portable: Of the trainer's keys in the checkpoint's config, take the precision alone: a
            checkpoint of eight GPUs is evaluated on what is here.

    Raises:
        CliError: If anything in it is not accepted.
    """
    path = next(
        (text for keys, text in reversed(arguments.overrides) if keys == ("ckpt_path",)), None
    )
    if arguments.configs or path is None:
        return Session(arguments)
    ours = checkpoint_at(path)["resdomains"] if portable else given_start(path).ours
    recipe, name = recipe_of(path, ours)
    if portable:
        recipe = {
            **recipe,
            "trainer": {"precision": (recipe.get("trainer") or {}).get("precision")},
        }
    return Session(arguments, recipe, name)


def recipe_of(path: str, ours: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The recipe in what a checkpoint says of itself, and the name of the config that its run had.

    Raises:
        CliError: If it holds no recipe.
    """
    recipe = ours["recipe"]
    if recipe is None:
        raise CliError(
            f"--ckpt_path {path}: was trained from Python and holds no config; give --config"
        )
    # runs/<task>/<config>/<time or id>/checkpoints/<file>
    folders = Path(path).absolute().parents
    return recipe, folders[2].name if len(folders) > 2 and folders[
        0
    ].name == "checkpoints" else Path(path).stem


def checkpoint_at(path: str) -> dict[str, Any]:
    """Read a checkpoint without running code in it.

    Raises:
        CliError: If that cannot be done.
    """
    try:
        return read_checkpoint(path)
    except BadCheckpoint as error:
        raise CliError(f"--ckpt_path {error}") from error


def print_or_explain(arguments: Arguments, session: Session) -> bool:
    """Do what `--print_config` and `--KEY.help` ask; says whether that was all."""
    if arguments.help_for is not None:
        print(explain_key(session, arguments.help_for))
        return True
    if arguments.print_config:
        for note in session.notes:
            print(f"note: {note}", file=sys.stderr)
        print(config_text(session), end="")
        return True
    return False


def config_text(session: Session, name: str | None = None) -> str:
    """The whole config as YAML.

    Args:
        session: What to write.
        name: Name to keep under `run.name`, so that a run that goes on lies beside the first.
    """
    full = dict(session.full)
    if name is not None:
        # An id tells one run from others: whoever runs the same config again has another.
        full["run"] = {**full["run"], "name": name, "id": None}
    return yaml.safe_dump(full, sort_keys=False)


def build_trainer(
    session: Session, callbacks: list[Callback], folder: Path | None = None, bar: bool = True
) -> tuple[Trainer, Precision]:
    """Build Lightning's Trainer with the precision that suits the device, and on a CPU keep freed memory.

    Args:
        session: The config.
        callbacks: What the run adds to the config's own.
        folder: Where Lightning may put files of its own.
        bar: Whether Lightning may draw a progress bar.

    Raises:
        ConfigError: If Lightning refuses the options, weights would not be float32, or the options do not fit the
            processes that were started.
    """
    options = session.trainer_options()
    _check_numbers(options)
    accelerator = options.get("accelerator", "auto")
    if accelerator in ("auto", "gpu"):
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cpu" and session.run_options().keep_freed_memory:
        keep_freed_memory()
    if options.get("precision") is None:
        precision = choose_precision(str(accelerator))
        options["precision"] = precision.name
    else:
        try:
            precision = given_precision(options["precision"])
        except ValueError as error:
            raise ConfigError("trainer.precision", str(error)) from error
    own = options.pop("callbacks", None) or []
    own = own if isinstance(own, list) else [own]
    if any(isinstance(callback, ProgressBar) for callback in own):
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    plugins = options.pop("plugins", None) or []
    plugins = plugins if isinstance(plugins, list) else [plugins]
    options["enable_progress_bar"] = bar and options.get("enable_progress_bar") is not False
    if not options["enable_progress_bar"]:
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    try:
        trainer = Trainer(
            **options,
            callbacks=[*callbacks, *own],
            plugins=[*plugins, CheckpointFiles()],
            logger=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise ConfigError("trainer", str(error)) from error
    check_processes(trainer)
    return trainer, precision


# What Lightning takes and then divides by, and a norm that would turn gradients round.
_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 1,
    "gradient_clip_val": 0,
}


def _check_numbers(options: Mapping[str, Any]) -> None:
    for key, least in _LEAST.items():
        value = options.get(key)
        if value is not None and not value >= least:
            raise ConfigError(f"trainer.{key}", f"expected at least {least}, got {value}")
    interval = options.get("val_check_interval")
    if isinstance(interval, int | float) and not interval > 0:
        raise ConfigError("trainer.val_check_interval", f"expected more than 0, got {interval}")


_AROUND_STEPS = GradientAccumulationScheduler, LearningRateFinder


class _Fit:
    """One run from its first line to its last."""

    def __init__(self, session: Session, run: Run) -> None:
        self.session = session
        self.run = run
        seed_everything(session.seed, workers=True, verbose=False)
        began_from = began_with(session.ckpt_path)
        self.start = find_start(session.ckpt_path, run)
        before = None
        if self.start is not None:
            session.config["ckpt_path"] = str(self.start.path)
            before = self.start.ours
            if self.start.path.parent != run.checkpoints:
                run.continues = before.get("run_id")
        self.data: DataModule = session.data()
        self.data.timeout = session.run_options().data_timeout
        session.follow(self.data.spec)
        self.changed = self._changed(before)
        if before is not None:
            check_spec(before["spec"], self.data.spec)
        self.task: Task = session.task(self.data.spec)
        if session.full["compile"]:
            compile_blocks(self.task.backbone)
        self.task.run_id = run.run_id
        self.monitor = self.task.monitor if self.data.has("val") else None
        callbacks = self.run.callbacks(self.monitor)
        if self.changed is not None:
            callbacks.append(ApplyOptimization())
        self.stop = StopBetweenSteps(self.run.last_checkpoint)
        callbacks.append(self.stop)
        self.trainer, self.precision = build_trainer(session, callbacks, self.run.folder)
        self._check_optimizer()
        self._check_by_hand()
        self._check_callbacks()
        self._check_sharding()
        world = self.trainer.world_size
        try:
            self.batches = self.data.batch_sampler("train", 0, world)
        except ValueError as error:
            raise ConfigError("data", str(error)) from error
        facts = run_facts(
            self.task, self.run, session.data_name, session.seed, world, self.data.split_sizes
        )
        self.facts = {**facts, "ckpt_path": began_from}
        self.progress: dict[str, float] | None = None
        self.ended: str | None = None

    def _check_sharding(self) -> None:
        try:
            check_sharding(self.trainer, self.task)
        except ValueError as error:
            raise ConfigError("trainer.strategy", str(error)) from error

    def _check_optimizer(self) -> None:
        """Refuse an optimizer that does not take the network's parameters."""
        task = self.task
        try:
            task.optimization.build(task, "backbone", task.blocks())
        except (ValueError, TypeError) as error:
            raise ConfigError("model.optimization", str(error)) from error

    def _check_callbacks(self) -> None:
        """Refuse callbacks of Lightning's that would fail in the middle of a run."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # set by the trainer's constructor
            said = None
            if isinstance(callback, BaseFinetuning):
                said = (
                    "adds parameters to an optimizer whose schedule was made without them; "
                    "--model.optimization.frozen K keeps the first K blocks as they are"
                )
            elif not self.task.automatic_optimization and isinstance(callback, _AROUND_STEPS):
                said = f"changes optimizer steps, and {type(self.task).__name__} makes them itself"
            elif self.trainer.world_size > 1 and isinstance(callback, BatchSizeFinder):
                said = "works in one process alone; set --trainer.devices 1, or --data.batch_size"
            if said is not None:
                raise ConfigError("trainer.callbacks", f"{type(callback).__name__} {said}")

    def _check_by_hand(self) -> None:
        """Refuse what Lightning would do around the steps of a task that makes them itself."""
        if self.task.automatic_optimization:
            return
        name = type(self.task).__name__
        for key, off in (("gradient_clip_val", (None, 0)), ("accumulate_grad_batches", (1,))):
            if getattr(self.trainer, key) in off:
                continue
            own, value = self.task.gradient_clip
            instead = f"; it clips by --{own} (now {value})" if key == "gradient_clip_val" else ""
            raise ConfigError(f"trainer.{key}", f"{name} makes its optimizer steps itself{instead}")

    def _changed(self, before: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]] | None:
        if before is None:
            return None
        if before["recipe"] is None:
            return []
        return changed_keys(self._composed(before["recipe"]), self._composed(self.session.recipe))

    def _composed(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe of a run of this recipe: a default that is a list of classes is written out only then."""
        arguments = Arguments(plugins=list(self.session.plugins))
        return Session(arguments, recipe, self.session.name).recipe

    @rank_zero_only
    def announce(self) -> None:
        """Print the first lines and keep the config."""
        lines = report.first_lines(self.facts, self.task, self.data, self.trainer, self.precision)
        lines.append(("W&B", self._wandb_state()))
        lines.append(("run", report.relative(self.run.folder)))
        if self.start is not None or self.run.before is not None:
            lines.append(("goes on", _origin(self.start)))
        lines += [
            ("changed", f"{key}: {before} -> {after}") for key, before, after in self.changed or []
        ]
        lines += [("note", note) for note in self._notes()]
        report.print_pairs(lines)
        (self.run.folder / "config.yaml").write_text(config_text(self.session, self.run.config))
        self.run.write_summary({"status": "running", **self.facts})

    def _notes(self) -> list[str]:
        most = self.batches.positions
        said = (
            []
            if most is None
            else [f"a batch holds at most {self.data.amount(most)}, padding included"]
        )
        unseen = report.never_validated(self.trainer)
        said += [] if unseen is None else [unseen]
        return [*self.session.notes, *self.data.notes, *said, *self.task.notes]

    def _wandb(self) -> WandbRecord | None:
        return next((one for one in self.trainer.loggers if isinstance(one, WandbRecord)), None)

    def _wandb_state(self) -> str:
        record = self._wandb()
        if record is None:
            return "disabled"
        if record.refusal is not None:
            sends = f"`wandb sync {report.relative(record.folder)}` sends it later"
            return f"not reached ({record.refusal}); kept offline, {sends}"
        if record.url is None:
            return "offline, kept in the run folder (`wandb login` and `wandb sync` send it)"
        return record.url

    def train(self) -> int:
        """Train and test, and keep the summary up to date whatever happens; returns the exit status."""
        try:
            self._tidy()
            self.trainer.loggers = self.run.loggers(self.facts, _metric_names(self.task))
            self.announce()
            self.trainer.fit(
                self.task, datamodule=self.data, ckpt_path=self.session.ckpt_path, weights_only=True
            )
            status = self._after_fit()
        except Stopped as stopped:
            return self._stopped(stopped)
        except TrainingDiverged as error:
            return self._diverged(error)
        except Exception as error:
            self.finish("failed", error)
            return self._failed(error)
        leave_together()
        return status

    @rank_zero_only
    def _tidy(self) -> None:
        """Leave in the folder what was there when the checkpoint was saved."""
        self.run.rewind(self.start)
        for path in () if self.start is None else self.start.damaged:
            if path.parent == self.run.checkpoints:
                # Else it would take the place of the sound one before it.
                path.replace(path.with_name(f"{path.name}.damaged"))

    def _after_fit(self) -> int:
        # A run that had nothing left to train has no results but those of before.
        fitted = self.task.results.get("val") or {
            name: torch.tensor(value) for name, value in self.task.validated.items()
        }
        self.progress = self.task.progress()  # the test's time is not training's
        self.ended = report.ended_early(self.trainer)  # the test loads an earlier state
        if self.session.full["test_after_fit"] and self.data.has("test"):
            best = self._best_path()
            self.trainer.test(
                self.task, datamodule=self.data, ckpt_path=best, weights_only=True, verbose=False
            )
        self.task.results["val"] = fitted
        self.finish("finished")
        self.show()
        return 0

    def _best_path(self) -> str | None:
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints) and callback.best_model_path:
                return callback.best_model_path
        return None

    def _stopped(self, stopped: Stopped) -> int:
        self.finish(str(stopped))
        rank_zero_only(complain)(f"{stopped}\n{self.how_to_go_on()}")
        leave_together()
        return stopped.status

    def _diverged(self, error: TrainingDiverged) -> int:
        # Of all processes at once: one that ended before the first has said why would have it killed.
        self.finish("failed", error)
        rank_zero_only(complain)(str(error))
        if self.session.traceback:
            traceback.print_exception(error)
        leave_together()
        return FAILED

    def _failed(self, error: Exception) -> int:
        self._end_others()
        if isinstance(error, CliError):
            complain(str(error))
            return error.status
        if isinstance(error, BadCheckpoint):
            complain(str(error))
            return FAILED
        complain(explain_failure(error, self.run, self.trainer, self.how_to_go_on()))
        if self.session.traceback:
            traceback.print_exception(error)
        return FAILED

    def _end_others(self) -> None:
        # The processes that Lightning started would wait for this one in their next collective.
        end = getattr(self.trainer.strategy.launcher, "kill", None)
        if end is not None:
            end(signal.SIGKILL)

    def how_to_go_on(self) -> str:
        """The command that goes on from the last checkpoint, or that there is none."""
        if self.session.run_options().id is not None:
            return f"  go on with: {shlex.join(['resdomains', *sys.argv[1:]])}"
        last = self.run.last_checkpoint
        if not last.exists():
            return "  nothing was saved yet: no step was finished"
        plugins = [part for name in self.session.plugins for part in ("--plugin", name)]
        command = [
            "resdomains",
            "fit",
            *plugins,
            "--config",
            report.relative(self.run.folder / "config.yaml"),
            "--ckpt_path",
            report.relative(last),
        ]
        return f"  go on with: {shlex.join(command)}"

    def summary(self, status: str, error: Exception | None) -> dict[str, Any]:
        """What `summary.json` holds: what ran, how far, how well."""
        progress = self.progress or self.task.progress()
        seconds = progress[schema.SECONDS]
        values: dict[str, Any] = {"status": status, "end": self.session.end, **self.facts}
        if error is not None:
            values["error"] = f"{type(error).__name__}: {error}"
        best = self._best_score()
        final = report.scalars(self.task, "val")
        chance = self.task.chance(self.task.spec)
        values["best"] = {}
        if best is not None and self.monitor is not None:
            score = self.task.score_of(best)
            skill = schema.skill(score, chance)
            values["best"] = {self.monitor: best, schema.VAL_SCORE: score, schema.VAL_SKILL: skill}
        values["final"] = {schema.key("val", name): value for name, value in final.items()}
        for split in ("train", "test"):
            found = report.scalars(self.task, split)
            values |= {schema.key(split, name): value for name, value in found.items()}
        values |= {
            "samples": progress[schema.SAMPLES],
            "flops": progress[schema.FLOPS],
            "seconds": seconds,
            "samples_per_second": progress[schema.SAMPLES] / seconds if seconds else 0.0,
            "peak_memory_mib": peak_memory_mib(self.trainer.strategy.root_device),
            "steps": self.trainer.global_step,
            "epochs": self.trainer.current_epoch,
            "precision": self.precision.name,
            "command": shlex.join(["resdomains", *sys.argv[1:]]),
        }
        return {name: _json_value(value) for name, value in values.items()}

    def _checkpoints(self) -> dict[str, Path]:
        """The best and the last checkpoint that are there, by the names of W&B's aliases."""
        best = self._best_path()
        found = {} if best is None else {"best": Path(best)}
        found["latest"] = self.run.last_checkpoint
        return {alias: path for alias, path in found.items() if path.is_file()}

    def _best_score(self) -> float | None:
        for callback in self.trainer.checkpoint_callbacks:
            if (
                isinstance(callback, Checkpoints)
                and callback.best_model_score is not None
                and self.monitor is not None
            ):
                return float(callback.best_model_score)
        return None

    @rank_zero_only
    def finish(self, status: str, error: Exception | None = None) -> None:
        """Write the summary and end the W&B run."""
        summary = self.summary(status, error)
        try:
            self.run.write_summary(summary)
        except OSError as failure:
            complain(f"summary.json could not be written: {failure.strerror}")
        record = self._wandb()
        unsent = None
        if record is not None:
            unsent = record.finish(status == "finished", summary, self._checkpoints())
        if record is not None and unsent is not None:
            complain(f"W&B {unsent}; `wandb sync {report.relative(record.folder)}` sends the rest")

    @rank_zero_only
    def show(self) -> None:
        """Print the results."""
        titles = {"val": "val, last", "test": "test", "train": "train"}
        columns: dict[str, Mapping[str, float]] = {
            title: values
            for split, title in titles.items()
            if (values := report.scalars(self.task, split))
        }
        progress = self.progress or self.task.progress()
        seconds = progress[schema.SECONDS]
        rest = {
            "samples/s": f"{progress[schema.SAMPLES] / seconds:,.0f}" if seconds else "",
            "time": duration(seconds),
        }
        best = self._best_score()
        if best is not None:
            rest[f"best {self.monitor}"] = report.number(best)
        report.console.print(report.result_table(columns or {"": {}}, rest))
        pictures = self.run.pictures if self.run.pictures.is_dir() else self.run.folder
        report.print_pairs(
            [
                *([] if self.ended is None else [("ended", self.ended)]),
                ("pictures", report.relative(pictures)),
                ("run", report.relative(self.run.folder)),
            ]
        )


def _origin(start: Start | None) -> str:
    if start is None:
        return "from the beginning: nothing was saved before"
    because = f", because {start.damaged[0].name} is damaged" if start.damaged else ""
    return f"from {report.relative(start.path.absolute())} (step {start.step:,}){because}"


def _metric_names(task: Task) -> list[str]:
    return list(task.metrics_of("val"))


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None  # JSON has no NaN
    if isinstance(value, dict):
        return {name: _json_value(child) for name, child in value.items()}
    return value


def leave_together() -> None:
    """End the process group: without it, processes abort after successful training."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@rank_zero_only
def _say_finished(run: Run) -> None:
    summary = report.relative(run.folder / "summary.json")
    report.print_pairs([("finished", f"before, nothing is left to do; its results: {summary}")])


def fit(arguments: Arguments) -> int:
    """Train and test as a command line says; returns the exit status."""
    quiet()
    session = compose(arguments)
    if print_or_explain(arguments, session):
        return 0
    folder = open_run(session)
    if folder.finished(session.end):
        _say_finished(folder)
        return 0
    try:
        run = _Fit(session, folder)
    except BaseException:
        folder.discard()
        raise
    with run.stop:
        status = run.train()
    return end_process(status, run.trainer)


def end_process(status: int, trainer: Trainer) -> int:
    """Return an exit status; one of several processes ends here and now where it is none of success.

    Others may wait for it in a collective, and Lightning kills the first process when it sees that another has ended.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if status and trainer.world_size > 1:
        os._exit(status)
    return status
