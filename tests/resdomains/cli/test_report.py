"""A run's first lines say how its blocks join."""

from pathlib import Path

import pytest
from torch import nn

from resdomains.cli.report import joins
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
