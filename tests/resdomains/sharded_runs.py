"""Short runs in two processes, each with ddp and with shared parameters, for test_sharding.py, which starts both.

`torchrun --nproc-per-node 2 -m tests.resdomains.sharded_runs FOLDER` writes `FOLDER/<name>.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from resdomains.cli.arguments import Arguments
from resdomains.cli.fitting import build_trainer, leave_together
from resdomains.cli.quiet import quiet
from resdomains.cli.session import Session
from resdomains.probes import Contribution, GradientFlow
from resdomains.training.run import is_first_process
from resdomains.training.sharding import Sharded, shares

STEPS, SAVED = 6, 3
_DIGITS = {
    "config": "image_classification/digits",
    "model.backbone.channels": "[8, 16]",
    "data.batch_size": "16",
}
CASES: dict[str, dict[str, str]] = {
    # The shipped configs average the weights, and their optimizers are fused.
    "digits": {
        **_DIGITS,
        "model.backbone.layers": "[2, 1]",
        "trainer.gradient_clip_val": "0.5",
        "model.optimization.layer_decay": "0.7",
    },
    "coupled": {
        **_DIGITS,
        "model.backbone.layers": "[3, 1]",
        "model.backbone.coupling": "Reversible",
        "model.backbone.memory": "Reverse",
        "model.backbone.block": "PreActivationBasic",
        "trainer.gradient_clip_val": "0.01",
        "trainer.gradient_clip_algorithm": "value",
        "trainer.accumulate_grad_batches": "2",
        "model.optimization.frozen": "1",
    },
    "vit": {
        "config": "image_classification/digits_vit",
        "data.batch_size": "16",
        "model.backbone.memory": "Recompute",
        "model.backbone.memory.every": "2",
    },
}


class Watch(Callback):
    """Notes losses and how many tensors hold the gradients, keeps a checkpoint on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.losses: list[float] = []
        self.tensors = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(trainer.strategy.reduce(outputs["value"], reduce_op="mean")))
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if not isinstance(trainer.strategy, Sharded):
            self.tensors = len({grad.untyped_storage().data_ptr() for grad in gradients})
        if trainer.global_step == SAVED and not self.path.exists():
            trainer.save_checkpoint(self.path)


def run(
    name: str, strategy: str, folder: Path, resume: Path | None = None, cap: str | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    changes = {**CASES[name], **({} if cap is None else {"trainer.strategy.bucket_cap_mb": cap})}
    configs = [changes.pop("config"), f"trainer/{strategy}"]
    always = {
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.max_steps": str(STEPS),
        "trainer.val_check_interval": "3",
        "trainer.limit_val_batches": "2",
        "trainer.enable_progress_bar": "false",
    }
    overrides = [(tuple(key.split(".")), value) for key, value in {**always, **changes}.items()]
    session = Session(Arguments(configs=configs, overrides=overrides))
    seed_everything(session.seed, workers=True, verbose=False)
    data = session.data()
    task = session.task(data.spec)
    place = folder / f"{name}_{strategy}{'_resumed' * (resume is not None)}"
    watch, flow = Watch(place.with_suffix(".ckpt")), GradientFlow(2, folder=place)
    contribution = Contribution(2, folder=place)
    trainer, _ = build_trainer(session, [watch, flow, contribution])
    trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    here, whole = (
        sum(s.numel() for s in shares(task)),
        trainer.strategy.lightning_module_state_dict(),
    )
    found = {
        "losses": watch.losses,
        "gradients": [norm for _, norms in flow.history for norm in norms],
        "contributions": contribution.newest["contribution"],
        "val": float(task.results["val"]["loss"]),
        "gradients lie in": watch.tensors,
        "share": here / max(sum(value.numel() for value in whole.values()), 1),
    }
    return found, {key: value.clone() for key, value in whole.items()}


def main(folder: Path) -> None:
    quiet()
    for name in CASES:
        results, states = {}, {}
        for strategy in ("ddp", "fsdp"):
            results[strategy], states[strategy] = run(name, strategy, folder)
        if name == "vit":
            for strategy, other in (("ddp", "fsdp"), ("fsdp", "ddp")):
                path = folder / f"{name}_{other}.ckpt"
                results[f"{strategy}_resumed"], _ = run(name, strategy, folder, path)
            results["small_buckets"], _ = run(name, "ddp", folder, cap="0.02")
        if is_first_process():
            one, two = states["ddp"], states["fsdp"]
            results["names"] = {"equal": list(one) == list(two)}
            apart = (float((one[key].double() - two[key].double()).abs().max()) for key in one)
            results["state"] = {"apart": max(apart)}
            (folder / f"{name}.json").write_text(json.dumps(results))
    leave_together()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
