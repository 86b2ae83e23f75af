"""Go on from a checkpoint: find it, say what changed, and let no change be lost."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim.lr_scheduler import LambdaLR

from resdomains.cli.composition import changes
from resdomains.cli.errors import CliError, ConfigError
from resdomains.cli.session import Session
from resdomains.training import (
    BadCheckpoint,
    InUse,
    Run,
    Start,
    Task,
    newest_checkpoint,
    start_at,
)


def open_run(session: Session) -> Run:
    """Create the run's folder, or take up the one that `--run.id` names.

    Raises:
        CliError: If it cannot be written, another process works in it, it began otherwise, or torchrun might restart
            a run without an id.
    """
    options = session.run_options()
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        if options.id is None:
            raise CliError(
                "torchrun may restart this job: give --run.id NAME, so that a restart goes on"
            )
        # https://github.com/pytorch/pytorch/issues/135712: connections fail, or wait for ever.
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            raise CliError(
                "torchrun may restart this job, and would hand the new processes the addresses of the old ones: set"
                " TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun"
            )
    try:
        run = Run.create(options, session.task_name, session.name)
    except InUse as error:
        raise CliError(f"{error}; wait for its end, or give another --run.id") from error
    except OSError as error:
        where = error.filename or options.root
        raise ConfigError(
            "run.root",
            f"{options.root} cannot hold the run: {where}: {error.strerror}; name a folder that can be written",
        ) from error
    given = began_with(session.ckpt_path)
    if run.before is not None and given is not None and given != run.before.get("ckpt_path"):
        raise CliError(
            f"--ckpt_path {session.ckpt_path}: {options.id} did not begin with it, and goes on from its own"
            " checkpoints; leave --ckpt_path out, or give another --run.id"
        )
    return run


def began_with(ckpt_path: str | None) -> str | None:
    """What a summary keeps of `--ckpt_path`."""
    return None if ckpt_path is None else str(Path(ckpt_path).absolute())


def find_start(ckpt_path: str | None, run: Run) -> Start | None:
    """The checkpoint that a run goes on from: the newest sound one of its own, else the one given; None for neither.

    Raises:
        CliError: If none that is there can be used.
    """
    try:
        own = newest_checkpoint(run.checkpoints)
    except BadCheckpoint as error:
        raise CliError(
            f"{error}; no other checkpoint of {run.folder.name} is sound: remove them to begin anew"
        ) from error
    if own is not None or ckpt_path is None:
        return own
    return given_start(ckpt_path)


def given_start(ckpt_path: str) -> Start:
    """The checkpoint that `--ckpt_path` names, or the one before it if it is the last of a run and damaged.

    Raises:
        CliError: If it cannot be used.
    """
    try:
        return start_at(Path(ckpt_path))
    except BadCheckpoint as error:
        raise CliError(f"--ckpt_path {error}") from error


def changed_keys(recipe: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The keys in which a run differs from the recipe of the checkpoint that it goes on from.

    Raises:
        ConfigError: For a change that the checkpoint's state cannot follow: another task, network or
            optimizer, or other frozen blocks.
    """
    found = changes(recipe, now)
    # Another task changes everything below it: its own name is what to say.
    for key, before, after in sorted(found, key=_importance):
        if key in (
            "model.class_path",
            "model.optimization.optimizer.class_path",
            "model.optimization.optimizer",
            "model.optimization.frozen",
        ):
            raise ConfigError(
                key,
                f"is {after}, the checkpoint was trained with {before} and holds its state; start a new run"
                " (without --ckpt_path) or keep it",
            )
        if key == "model.backbone" or key.startswith("model.backbone."):
            raise ConfigError(
                key,
                f"is {after}, the checkpoint was trained with {before}; a run cannot go on with another"
                " network: start a new run (without --ckpt_path) or keep it",
            )
    return found


_LANGUAGE = (
    *("classes", "class_names", "labels", "vocabulary", "multilabel", "pair"),
    *("observations", "action"),
)


def check_spec(trained: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that the data speak the checkpoint's language.

    Raises:
        CliError: If their classes, tokens, kinds of targets, observations or actions are others.
    """
    for name in _LANGUAGE:
        if name in trained and name in now and _plain(trained[name]) != _plain(now[name]):
            raise CliError(
                f"data: {name} differ from those that the checkpoint was trained with:"
                f" {_short(now[name])}, trained with {_short(trained[name])}"
            )
    if trained.get("tokenizer") != now.get("tokenizer"):
        raise CliError(
            "data: their tokenizer is another than the checkpoint was trained with, so that the same numbers stand"
            " for other tokens; train a new network, or take the texts and the tokens that the checkpoint knows"
        )


def _plain(value: object) -> object:
    """Sequences compare by their items, whatever their kind."""
    return list(value) if isinstance(value, list | tuple) else value


def _short(value: object) -> str:
    """A value in at most 80 characters."""
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _importance(change: tuple[str, Any, Any]) -> tuple[bool, int]:
    return not change[0].endswith("class_path"), change[0].count(".")


class ApplyOptimization(Callback):
    """Give a resumed optimizer the config's settings, where its saved state brought back the old ones."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy learning rate, weight decay, momentum and the like; the state of each weight stays."""
        task = cast(Task, pl_module)
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        for number, restored in enumerate(trainer.optimizers):
            fresh = task.optimization.build(task, "backbone", task.blocks())
            for group, new in zip(restored.param_groups, fresh.param_groups, strict=True):
                group.update({k: v for k, v in new.items() if k not in ("params", "lr")})
            if not schedules:
                continue  # a callback has put one of its own in place of ours; rates are its matter
            scheduler = cast(LambdaLR, schedules[number])  # what Optimization builds
            rates = scheduler.base_lrs = [group["lr"] for group in fresh.param_groups]
            for group, rate, factor in zip(
                restored.param_groups, rates, scheduler.lr_lambdas, strict=True
            ):
                group["initial_lr"] = rate
                group["lr"] = rate * factor(scheduler.last_epoch)
