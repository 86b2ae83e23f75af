from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor, nn

from resdomains.core import (
    Add,
    BranchOnly,
    HyperConnection,
    Merge,
    PooledHead,
    ResNet2d,
    Site,
    Stack,
)
from resdomains.probes import GradientFlow, Lesion, blocks_of, lesioned
from resdomains.probes.lesion import spread
from tests.resdomains.probes.toy import Blocks, hooks, rows, side, trainer


class Pictures(nn.Module):
    """A two-stage ResNet over the four coordinates of a point, read as a picture."""

    def __init__(self, merge: Callable[[Site], Merge] = Add) -> None:
        super().__init__()
        self.network = ResNet2d((2, 2), (4, 8), in_channels=1, merge=merge)
        self.head = PooledHead(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.network(x.view(-1, 1, 2, 2)))
        return y


def trained(backbone: Callable[[], nn.Module], folder: Path) -> tuple[Any, Any]:
    """A task that the removal of a block harms."""
    task, data = side(backbone)
    trainer(folder, [], max_epochs=4).fit(task, data)
    return task, data


def score(task: Any, data: Any, folder: Path) -> float:
    trainer(folder, []).validate(task, data, verbose=False)
    return float(task.results["val"]["score"])


def test_scores_are_those_of_a_network_edited_by_hand(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task, data = trained(partial(Blocks, 4, partial(Add, zero_init=False)), tmp_path)
    probe = Lesion(removed=[2], draws=2)
    trainer(tmp_path, [probe]).validate(task, data, verbose=False)
    whole = score(task, data, tmp_path)
    assert probe.baseline == whole
    state = {name: value.clone() for name, value in task.state_dict().items()}

    def without(*indices: int) -> float:
        for index in indices:
            for parameter in task.backbone.layers[index].branch.parameters():
                nn.init.zeros_(parameter)
        found = score(task, data, tmp_path)
        task.load_state_dict(state)
        return found

    expected = [without(index) for index in range(4)]
    assert probe.newest["score_without"] == expected
    assert len({whole, *expected}) > 1
    assert [removal.score for removal in probe.removals] == [
        without(*removal.blocks) for removal in probe.removals
    ]
    assert all(len(set(removal.blocks)) == 2 for removal in probe.removals)
    table = rows(tmp_path / "probes" / "lesion.csv")
    assert [float(row["score_without"]) for row in table] == expected
    assert (tmp_path / "probes" / "lesion.png").is_file()


@pytest.mark.parametrize(
    ("merge", "kinds"),
    [
        (Add, ["keeps the shape", "keeps the shape", "changes the shape", "keeps the shape"]),
        (BranchOnly, ["keeps the shape", "keeps the shape", "no shortcut", "keeps the shape"]),
        (
            partial(HyperConnection, streams=1),
            ["keeps the shape", "keeps the shape", "changes the shape", "keeps the shape"],
        ),
    ],
)
def test_blocks_that_change_the_shape_are_marked(
    tmp_path: Path, merge: Any, kinds: list[str]
) -> None:
    task, data = side(partial(Pictures, merge))
    probe = Lesion(draws=1)
    trainer(tmp_path, [probe]).validate(task, data, verbose=False)
    assert probe.newest["lesion"] == kinds
    assert [value is None for value in probe.newest["score_without"]] == [
        kind == "no shortcut" for kind in kinds
    ]
    assert all(2 not in removal.blocks for removal in probe.removals)
    assert {removal.removed for removal in probe.removals} == {1, 2, 3}
    assert hooks(task) == 0


def test_a_plain_block_that_keeps_its_shape_passes_its_input(tmp_path: Path) -> None:
    network = Blocks(2, BranchOnly, last=nn.Identity())
    blocks = blocks_of(network)
    x = torch.randn(3, 4)
    with lesioned(blocks):
        torch.testing.assert_close(network(x), x)
    with lesioned(blocks[:1]):
        torch.testing.assert_close(network(x), network.residuals()[1].branch(x))


@pytest.mark.parametrize("streams", [1, 3])
def test_streams_pass_a_lesion(streams: int) -> None:
    torch.manual_seed(0)
    layers = Blocks(2, partial(HyperConnection, streams=streams)).layers
    stack = Stack(layers)  # type: ignore[arg-type]
    x = torch.randn(5, 4)
    with lesioned(blocks_of(stack)):
        torch.testing.assert_close(stack(x), x)
    assert isinstance(stack.blocks[0].merge, HyperConnection)


def test_merges_are_put_back_also_after_an_error(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 3))
    merges = [block.module.merge for block in blocks_of(task)]
    own = task.metrics["val"]
    calls = 0
    step = task.step

    def fails(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise RuntimeError("in the middle of a lesion")
        return step(*arguments)

    task.step = fails  # type: ignore[assignment, method-assign]
    with pytest.raises(RuntimeError, match="middle of a lesion"):
        trainer(tmp_path, [Lesion()]).validate(task, data, verbose=False)
    assert [block.module.merge for block in blocks_of(task)] == merges
    assert task.metrics["val"] is own
    assert hooks(task) == 0


def test_a_fit_ends_with_lesions_of_the_last_weights(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 3))
    probe = Lesion(removed=[1])
    trainer(tmp_path, [probe]).fit(task, data)
    assert probe.baseline == float(task.results["val"]["score"])
    assert len(rows(tmp_path / "probes" / "removal.csv")) == 3


def test_files_of_an_earlier_fit_are_replaced_and_a_validation_is_added(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 2))
    probe = Lesion(removed=[])
    for _ in range(2):
        runner = trainer(tmp_path, [probe])
        runner.fit(task, data)
    assert [row["step"] for row in rows(tmp_path / "probes" / "lesion.csv")] == ["10", "10"]
    runner.validate(task, data, verbose=False)
    steps = [row["step"] for row in rows(tmp_path / "probes" / "lesion.csv")]
    assert steps == ["10", "10", "", ""]
    assert len(rows(tmp_path / "probes" / "profile.csv")) == 2


def test_draws_follow_from_the_seed(tmp_path: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        task, data = side(partial(Blocks, 6))
        probe = Lesion(removed=[3], draws=4, seed=seed)
        trainer(tmp_path, [probe]).validate(task, data, verbose=False)
        found.append([removal.blocks for removal in probe.removals])
    assert found[0] == found[1] != found[2]


def test_limited_validation_limits_lesions(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 2))
    seen: list[int] = []
    step = task.step

    def counts(batch: Any, split: Any) -> Any:
        seen.append(len(batch[0]))
        return step(batch, split)

    task.step = counts  # type: ignore[method-assign]
    trainer(tmp_path, [Lesion(removed=[])], limit_val_batches=1).validate(task, data, verbose=False)
    # The validation, what tells the shapes, the whole network, and each of two blocks.
    assert seen == [8] * 5


def test_too_many_blocks_and_no_validation_are_told(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 2))
    with pytest.warns(UserWarning, match="5 random blocks cannot be removed, only 2 keep"):
        trainer(tmp_path, [Lesion(removed=[5])]).validate(task, data, verbose=False)
    with pytest.warns(UserWarning, match="there was no validation, so nothing was measured"):
        trainer(tmp_path, [Lesion()], limit_val_batches=0).fit(task, data)
    with pytest.raises(ValueError, match=r"removed must hold numbers of at least 1, got \[0\]"):
        Lesion(removed=[0])
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        Lesion(draws=0)


@pytest.mark.parametrize("count", [0, 1, 2, 9, 54, 600])
def test_numbers_of_removed_blocks_are_spread(count: int) -> None:
    numbers = spread(count)
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= 8
    assert (numbers[:1], numbers[-1:]) == (([1], [count]) if count else ([], []))


class Tables(WandbLogger):
    """Keeps the tables that W&B would get."""

    save_dir = None
    experiment = SimpleNamespace(define_metric=lambda *_, **__: None)

    def __init__(self) -> None:
        self.tables: dict[str, tuple[Sequence[str], Sequence[Any]]] = {}

    def log_table(self, key: str, columns: Any = None, data: Any = None, **_: Any) -> None:  # type: ignore[override]
        assert key not in self.tables
        self.tables[key] = (columns, data)

    def log_metrics(self, metrics: Any, step: Any = None) -> None:
        pass

    def log_image(self, key: str, images: Any, step: Any = None, **_: Any) -> None:
        self.tables[key] = (key, images)

    def log_graph(self, *_: Any, **__: Any) -> None:
        pass

    def finalize(self, status: str) -> None:
        pass

    def after_save_checkpoint(self, *_: Any) -> None:
        pass


def test_wandb_gets_the_tables_and_figures_of_all_probes(tmp_path: Path) -> None:
    task, data = side(partial(Blocks, 2))
    logger = Tables()
    runner: pl.Trainer = trainer(tmp_path, [Lesion(draws=1), GradientFlow()], logger=logger)
    runner.validate(task, data, verbose=False)
    assert set(logger.tables) == {
        "residual/profile", "residual/removal", "media/lesion", "media/gradients"
    }  # fmt: skip
    columns, data_rows = logger.tables["residual/profile"]
    assert columns == [
        "block", "name", "relative_depth", "score_without", "lesion", "gradient_norm"
    ]  # fmt: skip
    assert [row[:3] for row in data_rows] == [[1, "layers.0", 0.5], [2, "layers.1", 1.0]]
