"""A run's first lines say how its blocks join, and whether it will be validated."""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer
from torch import nn

from resdomains.cli.report import joins, never_validated
from resdomains.core import (
    HyperConnection,
    PreActivationBasic,
    ResNet2d,
    Reverse,
    Reversible,
    resnet20,
)
from resdomains.training import Run, Task, WandbOptions, run_facts
from tests.resdomains.training.toy import Side


def facts_of(backbone: nn.Module, tmp_path: Path) -> dict[str, object]:
    run = Run(tmp_path, "toy", "toy", WandbOptions(mode="disabled"))
    task: Task = Side(backbone=backbone, spec={"features": 4, "classes": ["left", "right"]})
    return run_facts(task, run, "data", 0, 1)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (resnet20(), "merge Add"),
        (
            ResNet2d((2, 1, 1), (8, 16, 32), merge=HyperConnection),
            "merge HyperConnection (Add in 2 that change the shape)",
        ),
        (
            ResNet2d((2, 2), (8, 16), merge=HyperConnection),
            "merge HyperConnection (Add in 1 that changes the shape)",
        ),
        (
            ResNet2d(block=PreActivationBasic, coupling=Reversible(), memory=Reverse()),
            "merge Add, coupling Reversible, memory Reverse",
        ),
        (nn.Linear(2, 2), "merge None"),
    ],
)
def test_what_joins_the_blocks_is_said(backbone: nn.Module, expected: str, tmp_path: Path) -> None:
    assert joins(facts_of(backbone, tmp_path)) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"max_epochs": 2, "check_val_every_n_epoch": 3},
            "ends after epoch 2, and the first validation would follow epoch 3",
        ),
        (
            {"max_epochs": 1, "check_val_every_n_epoch": 2},
            "ends after epoch 1, and the first validation would follow epoch 2",
        ),
        ({"max_epochs": 3, "check_val_every_n_epoch": 3}, None),
        ({"max_epochs": 0, "check_val_every_n_epoch": 3}, None),
        ({"max_epochs": -1, "check_val_every_n_epoch": 3}, None),
        ({"max_epochs": 2, "check_val_every_n_epoch": None, "val_check_interval": 9}, None),
        ({"max_epochs": 2, "check_val_every_n_epoch": 3, "limit_val_batches": 0}, None),
    ],
)
def test_a_run_that_ends_before_its_first_validation_says_so(
    options: dict[str, Any], said: str | None
) -> None:
    found = never_validated(Trainer(accelerator="cpu", logger=False, **options))
    assert found is None if said is None else found is not None and said in found
