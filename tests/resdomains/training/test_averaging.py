from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from resdomains.training import EMA, read_checkpoint
from tests.resdomains.training.test_task import fit
from tests.resdomains.training.toy import Clouds


class Watch(pl.Callback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, _: Any, module: pl.LightningModule, *__: Any) -> None:
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in module.parameters()]))


def expected(weights: list[torch.Tensor], decay: float) -> torch.Tensor:
    average = weights[0].clone()
    for count, new in enumerate(weights[1:], start=1):
        rate = min(decay, (1 + count) / (10 + count))
        average = rate * average + (1 - rate) * new
    return average


@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_average_is_kept_and_forgets_the_untrained_weights(tmp_path: Path, decay: float) -> None:
    watch = Watch()
    task, run = fit(tmp_path, Clouds(), epochs=3, callbacks=[watch, EMA(decay)])
    kept = torch.cat([p.detach().flatten() for p in task.parameters()])
    assert torch.allclose(kept, expected(watch.weights, decay), atol=1e-6)
    saved = read_checkpoint(run.last_checkpoint)
    last = torch.cat([saved["state_dict"][name].flatten() for name, _ in task.named_parameters()])
    assert torch.equal(last, kept)


def test_average_goes_on_after_a_resume(tmp_path: Path) -> None:
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "stop.ckpt")
                raise KeyError("stop")

    whole, _ = fit(tmp_path, Clouds(), epochs=3, callbacks=[EMA(0.9)])
    with pytest.raises(KeyError):
        fit(tmp_path, Clouds(), epochs=3, callbacks=[EMA(0.9), Stop()])
    resumed, _ = fit(
        tmp_path, Clouds(), epochs=3, resume=tmp_path / "stop.ckpt", callbacks=[EMA(0.9)]
    )
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_bound_that_becomes_finite_is_averaged_from_then_on(tmp_path: Path) -> None:
    class Bound(pl.Callback):
        def setup(self, _: Any, module: pl.LightningModule, stage: str) -> None:
            module.register_buffer("low", torch.tensor([-torch.inf, -torch.inf]))

        def on_train_batch_start(
            self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any
        ) -> None:
            module.get_buffer("low")[0] = (
                float(trainer.global_step) if trainer.global_step else -torch.inf
            )

    task, _ = fit(tmp_path, Clouds(), epochs=1, callbacks=[Bound(), EMA(0.0)])
    newest, never = task.get_buffer("low").tolist()
    assert newest == task.trainer.global_step - 1
    assert never == -torch.inf


@pytest.mark.parametrize("decay", [1.0, -0.1, 999.0])
def test_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got"):
        EMA(decay)


def test_a_checkpoint_written_in_a_validation_is_that_of_before(tmp_path: Path) -> None:
    class Save(pl.Callback):
        def save(self, trainer: pl.Trainer, name: str) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / name)

        def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            self.save(trainer, "within.ckpt")

        def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
            self.save(trainer, "after.ckpt")

    fit(tmp_path, Clouds(), callbacks=[EMA(0.9), Save()])
    within, after = (read_checkpoint(tmp_path / f"{name}.ckpt") for name in ("within", "after"))
    for key in ("state_dict", "current_model_state"):
        for name, value in within[key].items():
            assert torch.equal(value, after[key][name])
    weights = [
        within[key]["backbone.layer.weight"] for key in ("state_dict", "current_model_state")
    ]
    assert not torch.equal(*weights)
