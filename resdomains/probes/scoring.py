"""What a network scores on batches that somebody hands over."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric

from resdomains import schema
from resdomains.probes.batches import training_batches
from resdomains.probes.blocks import evaluating
from resdomains.training import Task
from resdomains.training.task import computed


class Scored:
    """A task's score, gathered batch by batch with metrics of its own."""

    def __init__(self, task: Task) -> None:
        self.metrics = nn.ModuleDict(task.build_metrics()).to(task.device)
        self._totals = torch.zeros(2, dtype=torch.float64, device=task.device)

    def add(self, trainer: Trainer, task: Task, batch: Any) -> None:
        """Evaluate a batch as a validation step does."""
        own = task.metrics["val"]
        task.metrics["val"] = self.metrics
        try:
            with trainer.precision_plugin.val_step_context():
                result = task.step(batch, "val")
        finally:
            task.metrics["val"] = own
        loss = result.loss.detach().double()
        self._totals += torch.stack([loss * result.items, torch.full_like(loss, result.items)])

    def compute(self, trainer: Trainer, task: Task) -> float:
        """Return the score over all samples and processes."""
        totals = cast(Tensor, trainer.strategy.reduce(self._totals, reduce_op="sum"))
        results = computed(cast(Mapping[str, Metric], dict(self.metrics.items())))
        results[schema.LOSS] = (totals[0] / totals[1]).float()
        return float(task.score(results))


class TrainScore(Callback):
    """What a network scores on its own training data: `train/score` and `train/skill`, once training ends.

    Each training sample is evaluated once, as validation samples are: by the same metrics, without augmentation and
    dropout. Beside the validation score it tells underfitting from overfitting: a plain network that degrades with
    depth scores low on both (He et al. 2015, figure 1).

    It measures after all callbacks before it in the trainer's list, so behind `EMA` it sees the averaged weights.

    Raises:
        ValueError: If the task learns from its own actions: it has no training data to be scored on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a task without training data."""
        if stage == "fit" and not pl_module.automatic_optimization:
            raise ValueError(
                "trainer.callbacks: TrainScore needs training data, and "
                f"{type(pl_module).__name__} learns from its own actions; leave it out"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate, and log."""
        task = cast(Task, pl_module)
        with evaluating(task, task.device):
            scored = Scored(task)
            for batch in training_batches(trainer):
                scored.add(trainer, task, batch)
            score = scored.compute(trainer, task)
        skill = schema.skill(score, task.chance(task.spec))
        found = {schema.SCORE: score, schema.SKILL: skill}
        task.results["train"] = {name: torch.tensor(value) for name, value in found.items()}
        task.write({schema.key("train", name): value for name, value in found.items()})
