"""The training score is that of the trained network on an epoch of its training data, as validation would have it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from resdomains.probes import TrainScore
from resdomains.schema import Split
from resdomains.training import EMA
from tests.resdomains.probes.toy import Blocks, side, trainer
from tests.resdomains.training.toy import Clouds


class Moved(Clouds):
    """Training batches are moved far away: by `transform`, as augmentation would."""

    def transform(self, batch: list[Tensor], split: Split) -> list[Tensor]:
        return [batch[0] + 50, *batch[1:]] if split == "train" else batch


def test_it_is_the_accuracy_on_the_training_points_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task, _ = side(lambda: nn.Sequential(Blocks(), nn.Dropout(0.9)))
    data = Moved()
    trainer(tmp_path, [EMA(0.5), TrainScore()], max_epochs=4).fit(task, data)
    dataset = data.ready_dataset("train")
    assert isinstance(dataset, TensorDataset)
    points, targets, _ = dataset.tensors
    with torch.inference_mode():
        found = task.eval().backbone(points).argmax(1) == targets
    train = task.results["train"]
    assert float(train["score"]) == pytest.approx(float(found.float().mean()))
    assert float(train["skill"]) == pytest.approx(2 * float(train["score"]) - 1)


def test_the_run_is_what_it_would_have_been(tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [TrainScore()]):
        torch.manual_seed(0)
        task, data = side()
        trainer(tmp_path, callbacks).fit(task, data)
        weights.append(torch.cat([p.detach().flatten() for p in task.parameters()]))
    assert torch.equal(*weights)


def test_a_task_without_training_data_is_refused(tmp_path: Path) -> None:
    task, data = side()
    task.automatic_optimization = False
    with pytest.raises(ValueError, match="TrainScore needs training data, and Side learns from"):
        trainer(tmp_path, [TrainScore()]).fit(task, data)
