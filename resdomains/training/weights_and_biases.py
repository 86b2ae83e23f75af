"""A run's record in Weights & Biases, which never ends the run nor holds it up for long."""

import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pytorch_lightning.loggers import WandbLogger

from resdomains import schema
from resdomains.messages import first_line

if TYPE_CHECKING:
    from wandb import Artifact
    from wandb import Run as WandbRun

_warn = logging.getLogger(__name__).warning


@dataclass
class WandbOptions:
    """Where a run goes in Weights & Biases.

    Args:
        project: Project name.
        entity: User or team; None for the account's default.
        mode: `auto` is online when logged in, else offline; it never asks.
        group: Runs to show together.
        job_type: Kind of run within a group.
        tags: Labels.
        init_timeout: Seconds to wait for the server when a run begins; without an answer the run stays offline.
        finish_timeout: Seconds to wait at the end until everything is sent; the rest stays in the run's folder.
        log_model: Whether the best and the last checkpoint become versions of the artifact `model-<run id>` when the
            run ends; those of an offline run are sent from where they lie by `wandb sync`.

    Raises:
        ValueError: If a time is not positive, or `online` is asked for without being logged in.
    """

    project: str = "resdomains"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    group: str | None = None
    job_type: str = "fit"
    tags: list[str] = field(default_factory=list)
    init_timeout: float = 30.0
    finish_timeout: float = 60.0
    log_model: bool = False

    def __post_init__(self) -> None:
        for name in ("init_timeout", "finish_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"wandb.{name} must be seconds above 0, got {getattr(self, name)}")
        if self.mode == "online" and not _logged_in():
            raise ValueError(
                "wandb.mode online needs a login: `wandb login`, or set WANDB_API_KEY; "
                "offline keeps the record in the run's folder, to be sent later"
            )

    def resolved_mode(self) -> Literal["online", "offline", "disabled"]:
        """Return the mode that `auto` stands for here and now; W&B's own WANDB_MODE has its say first."""
        if self.mode != "auto":
            return self.mode
        said = os.environ.get("WANDB_MODE")
        if said in ("offline", "dryrun"):
            return "offline"
        if said == "disabled":
            return "disabled"
        return "online" if _logged_in() else "offline"


# Seconds. W&B asks its server before it takes a table, up to 40 s long where there is no answer.
_SLOW_TABLE = 8.0

# Nobody is waited for but W&B's process, which a busy machine starts late.
_OFFLINE_TIMEOUT = 120.0


def _logged_in() -> bool:
    import wandb

    return bool(wandb.login(prompt=False, verify=False))


class WandbRecord(WandbLogger):
    """The logger of one run, begun as an object of W&B's own.

    Args:
        run: What W&B began.
        finish_timeout: Seconds that it waits at the end.
        refusal: Why the server did not take the run, which is kept offline; None if it was not asked or took it.
        log_model: Whether to log checkpoints at the end.
    """

    def __init__(
        self,
        run: "WandbRun",
        finish_timeout: float,
        refusal: str | None = None,
        log_model: bool = False,
    ) -> None:
        # Lightning's own beginning would define `*` (a glob that competes with exact names and wins at random) and pass
        # an argument that W&B warns about.
        super().__init__(experiment=run, save_dir=run.dir)
        self.run = run
        self.finish_timeout = finish_timeout
        self.refusal = refusal
        self.log_model = log_model
        self._lost = False
        self._takes_tables = True

    @property
    def folder(self) -> Path:
        """What `wandb sync` sends."""
        return Path(self.run.dir).parent

    @property
    def url(self) -> str | None:
        """Where the run is shown; None where it is offline."""
        return None if self.run.offline else str(self.run.url)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record values; what is logged after W&B's process died is in `metrics.csv` alone.

        Once its server did not take a table, or only slowly, tables are in the run's folder alone.
        """
        import wandb

        tables = any(isinstance(value, wandb.Table) for value in metrics.values())
        if self._lost or (tables and not self._takes_tables):
            return
        begun = time.monotonic()
        try:
            super().log_metrics(metrics, step)
        except ConnectionError as error:
            self._lose(error)
        except Exception as error:
            if not tables:
                raise
            self._take_no_tables(first_line(error))
        if tables and self._takes_tables and time.monotonic() - begun > _SLOW_TABLE:
            self._take_no_tables("it took too long")

    def plot_over_samples(self, names: Iterable[str]) -> None:
        """Draw values over the training samples seen."""
        try:
            for name in () if self._lost else names:
                self.run.define_metric(name, step_metric=schema.SAMPLES)
        except ConnectionError as error:
            self._lose(error)

    def finish(
        self,
        succeeded: bool,
        result: Mapping[str, Any] | None = None,
        checkpoints: Mapping[str, Path] | None = None,
    ) -> str | None:
        """End the record; returns what could not be sent and what sends it, if anything.

        Args:
            succeeded: Whether the run did what it was to do.
            result: What `summary.json` says, kept as `result` in the run's summary.
            checkpoints: By alias, in the order of their versions, what to log if that was asked for.
        """
        if self.log_model and not self._lost:
            self._log_checkpoints(checkpoints or {}, result or {})
        try:
            if result is not None:
                self.run.summary["result"] = dict(result)
            self.run.finish(exit_code=0 if succeeded else 1)
        except TimeoutError:
            return f"did not take all of the run within {self.finish_timeout:g} s"
        except Exception as error:
            # W&B's errors have no base in common, and none may cost a result.
            self._lose(error)
            import wandb

            # Otherwise W&B would say at exit, by a traceback, that its process is gone.
            with suppress(ConnectionError):
                wandb.teardown()
        return None

    def _log_checkpoints(self, checkpoints: Mapping[str, Path], result: Mapping[str, Any]) -> None:
        """Log versions of the artifact that Lightning's logger would call so, too."""
        import wandb

        try:
            for alias, path in checkpoints.items():
                part = result.get("best" if alias == "best" else "final") or {}
                about = {"score": part.get(schema.VAL_SCORE), "original_filename": path.name}
                facts = dict(self.run.config)
                artifact = wandb.Artifact(
                    f"model-{self.run.id}", type="model", metadata={**about, **facts}
                )
                # From where it lies, not from a copy in the user's home: it does not change any more.
                artifact.add_file(str(path), name="model.ckpt", policy="immutable")
                self.run.log_artifact(artifact, aliases=[alias])
                self._wait_for(artifact)
        except Exception as error:  # W&B's errors have no base in common
            _warn("W&B took no checkpoint (%s); the run's folder has them", first_line(error))

    def _wait_for(self, artifact: "Artifact") -> None:
        """Let a version arrive before the next, which might overtake it and leave the wrong one as the latest."""
        import wandb

        if self.run.offline:
            return
        try:
            artifact.wait(timeout=max(1, round(self.finish_timeout)))
        except wandb.Error as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise

    def _take_no_tables(self, reason: str) -> None:
        self._takes_tables = False
        _warn("W&B took no table (%s); the run goes on, and its folder has the rest", reason)

    def _lose(self, error: Exception) -> None:
        if not self._lost:
            self._lost = True
            _warn(
                "W&B's process has ended (%s); the run goes on, and metrics.csv alone has the rest",
                str(error) or type(error).__name__,
            )


def begin_wandb(
    options: WandbOptions,
    mode: Literal["online", "offline"],
    folder: Path,
    *,
    run_id: str,
    name: str,
    group: str,
    tags: Sequence[str],
    facts: dict[str, Any],
    metric_names: Sequence[str],
) -> WandbRecord:
    """Begin a W&B run, with the shared axes under the shared names.

    Where the server cannot be reached or refuses, the run is begun offline.

    Args:
        options: Where it goes.
        mode: Whether it is sent now.
        folder: Where its files lie.
        run_id: What the run is known by; W&B goes on with a run of this id. In a sweep W&B itself puts the id, project
            and entity that its agent gives in place of these.
        name: The run's name.
        group: The group's name unless the options give one.
        tags: Labels beside those of the options.
        facts: The run's config, all plain.
        metric_names: The names of the task's own metrics.
    """
    # W&B reports its own errors to its makers, which takes half a minute at the end where the server does not answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    def begin(mode: Literal["online", "offline"]) -> "WandbRun":
        patience = options.init_timeout
        if mode == "offline":
            patience = max(patience, _OFFLINE_TIMEOUT)
        return wandb.init(
            id=run_id,
            resume="allow" if mode == "online" else None,  # offline it makes a second fragment
            name=name,
            dir=str(folder),
            mode=mode,
            project=options.project,
            entity=options.entity,
            group=options.group or group,
            job_type=options.job_type,
            tags=[*tags, *options.tags],
            config=facts,
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=patience,
                finish_timeout=options.finish_timeout,
                finish_timeout_raises=True,
            ),
        )

    refusal = None
    before = set(folder.glob("wandb/run-*"))
    try:
        run = begin(mode)
    except wandb.errors.CommError as error:
        refusal = next(iter(str(error).splitlines()), "") or "it refused the run"
        wandb.teardown()  # its process, which goes on trying, would not begin another run of this id
        for begun in set(folder.glob("wandb/run-*")) - before:
            with suppress(OSError):  # it holds nothing, but another's eyes would count it as a run
                shutil.rmtree(begun)
        run = begin("offline")
    for axis in ("trainer/global_step", *schema.PROGRESS):
        run.define_metric(axis)
    record = WandbRecord(run, options.finish_timeout, refusal, options.log_model)
    record.plot_over_samples([*schema.logged_names(list(metric_names)), *schema.RESIDUAL])
    return record
