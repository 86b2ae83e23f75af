"""Lesions: what a network scores without some of its branches."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_warn
from rich.progress import track
from torch import Tensor

from resdomains import schema
from resdomains.probes.batches import batches, validation_batches
from resdomains.probes.blocks import Block, evaluating
from resdomains.probes.probe import Probe
from resdomains.probes.scoring import Scored
from resdomains.training import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["keeps the shape", "changes the shape", "no shortcut"]


@contextmanager
def lesioned(blocks: Sequence[Block]) -> Iterator[None]:
    """Remove the branches of blocks for a while; each block's output is its shortcut, and what follows the sum."""
    before = [(block, block.module.merge) for block in blocks]
    try:
        for block, merge in before:
            block.module.merge = merge.without_branch()
        yield
    finally:
        for block, merge in before:
            block.module.merge = merge


class _Shapes:
    """Sees, in one forward pass, which blocks change the shape and which shortcuts reach the new one."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.kinds: dict[int, Kind] = {}
        self._blocks = blocks
        self._attached = ExitStack()

    def __enter__(self) -> "_Shapes":
        for block in self._blocks:
            handle = block.module.branch.register_forward_hook(self._branch(block.index))
            self._attached.callback(handle.remove)
            handle = block.module.merge.register_forward_hook(self._merge(block.index))
            self._attached.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._attached.close()

    def _branch(self, index: int) -> Any:
        def hook(_: object, arguments: tuple[Any, ...], b: Tensor) -> None:
            changes = arguments[0].shape != b.shape
            self.kinds[index] = "changes the shape" if changes else "keeps the shape"

        return hook

    def _merge(self, index: int) -> Any:
        def hook(_: object, arguments: tuple[Any, ...], y: Tensor) -> None:
            # A merge of one stream may get it with an axis of streams and return it without.
            if arguments[0].shape[-y.dim() :] != y.shape:
                self.kinds[index] = "no shortcut"

        return hook


class Lesioned(Scored):
    """The score of a network without some branches."""

    def __init__(self, task: Task, removed: Sequence[Block]) -> None:
        super().__init__(task)
        self.removed = removed

    def add(self, trainer: Trainer, task: Task, batch: Any) -> None:
        """Evaluate a batch without the branches."""
        with lesioned(self.removed):
            super().add(trainer, task, batch)


@dataclass(frozen=True)
class Removal:
    """A score without several random branches.

    Args:
        removed: How many.
        draw: Which of the draws, from 0.
        blocks: Numbers of the blocks, from 0.
        score: The validation score without them.
    """

    removed: int
    draw: int
    blocks: tuple[int, ...]
    score: float


class Lesion(Probe):
    """What the validation score is without a block's branch, and without the branches of k random blocks.

    After Veit et al. 2016, figures 4 and 5. A lesioned block returns its shortcut, and what follows the sum; the
    weights are those of the trained network. Each block is removed alone. A block that changes the shape is removed
    where its shortcut reaches the new shape, so that a projection stays in its place, and marked; where it does not,
    as in a plain network, the block cannot be removed, and is marked. k random blocks are drawn from those that keep
    the shape, `draws` times each. Scores are those of `validate`, with the task's metrics over the same batches; the
    batches are read once, and all lesions evaluated on each, so the metrics' states are held once a lesion.

    In a fit it measures the network at the end of training, after all callbacks before it in the trainer's list.

    Args:
        removed: The numbers k of random blocks; up to eight from 1 to all of them if not given, none if empty.
        draws: Random draws for each k.
        seed: Seed of the draws.
        progress: Whether to draw a progress bar.
        folder: Where the files go; `probes` in the run's folder if not given.

    Raises:
        ValueError: If a number is below 1.
    """

    name = "lesion"

    def __init__(
        self,
        removed: Sequence[int] | None = None,
        draws: int = 3,
        seed: int = 0,
        progress: bool = False,
        folder: Path | None = None,
    ) -> None:
        super().__init__(folder)
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        if removed is not None and any(k < 1 for k in removed):
            raise ValueError(f"removed must hold numbers of at least 1, got {list(removed)}")
        self.removed = None if removed is None else sorted(set(removed))
        self.draws, self.seed, self.progress = draws, seed, progress
        self.baseline: float | None = None
        """The score of the whole network."""
        self.removals: list[Removal] = []

    def measure(self, trainer: Trainer, task: Task) -> None:
        """Evaluate the network whole and with each lesion."""
        limit = validation_batches(trainer)
        if not limit:
            rank_zero_warn("Lesion: there was no validation, so nothing was measured")
            return
        with evaluating(task, task.device):
            self._measure(trainer, task, limit)

    def _measure(self, trainer: Trainer, task: Task, limit: float) -> None:
        kinds = self._kinds(trainer, task)
        keeping = [b for b in self.blocks if kinds[b.index] == "keeps the shape"]
        whole = Scored(task)
        single = {
            b.index: Lesioned(task, [b]) for b in self.blocks if kinds[b.index] != "no shortcut"
        }
        several = [(k, draw, Lesioned(task, chosen)) for k, draw, chosen in self._drawn(keeping)]
        scores = [whole, *single.values(), *(score for _, _, score in several)]
        seen = track(
            batches(trainer, "val", limit),
            f"{len(scores) - 1} lesions",
            total=limit,
            transient=True,
            disable=not self.progress,
        )
        for batch in seen:
            for score in scores:
                score.add(trainer, task, batch)
        self.baseline = whole.compute(trainer, task)
        found = {index: score.compute(trainer, task) for index, score in single.items()}
        self.removals = [
            Removal(k, draw, tuple(b.index for b in score.removed), score.compute(trainer, task))
            for k, draw, score in several
        ]
        self.record(
            trainer,
            {
                "score_without": [found.get(block.index) for block in self.blocks],
                "lesion": [kinds[block.index] for block in self.blocks],
            },
        )
        if trainer.is_global_zero and self.removals:
            rows = self.removal_rows()
            self.append(self.files(trainer) / "removal.csv", rows)
            self.send(trainer, schema.REMOVAL, rows)

    def removal_rows(self) -> list[dict[str, Any]]:
        """Return a row for each random draw; blocks are numbered from 1, as in the other tables."""
        return [
            {
                "removed": removal.removed,
                "draw": removal.draw + 1,
                "score": removal.score,
                "score_whole": self.baseline,
                "blocks": " ".join(str(index + 1) for index in removal.blocks),
            }
            for removal in self.removals
        ]

    def scores_by_number(self) -> dict[int, tuple[float, float, float]]:
        """Return for each number of removed blocks the mean, lowest and highest score of its draws."""
        scores: dict[int, list[float]] = {}
        for removal in self.removals:
            scores.setdefault(removal.removed, []).append(removal.score)
        return {k: (sum(s) / len(s), min(s), max(s)) for k, s in sorted(scores.items())}

    def _kinds(self, trainer: Trainer, task: Task) -> list[Kind]:
        """What a lesion of each block is, known to every process, also to one without a batch."""
        names: tuple[Kind, ...] = ("keeps the shape", "changes the shape", "no shortcut")
        probed = Scored(task)
        with _Shapes(self.blocks) as shapes:
            for batch in batches(trainer, "val", 1):
                probed.add(trainer, task, batch)
        codes = [names.index(shapes.kinds.get(b.index, names[0])) for b in self.blocks]
        known = torch.tensor(codes, device=task.device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(known, torch.distributed.ReduceOp.MAX)
        return [names[code] for code in known.tolist()]

    def _drawn(self, keeping: Sequence[Block]) -> Iterator[tuple[int, int, list[Block]]]:
        generator = torch.Generator().manual_seed(self.seed)
        wanted = spread(len(keeping)) if self.removed is None else self.removed
        for k in wanted:
            if k > len(keeping):
                rank_zero_warn(
                    f"Lesion: {k} random blocks cannot be removed, only {len(keeping)} keep the shape"
                )
                continue
            # There is one way to remove all.
            for draw in range(self.draws if k < len(keeping) else 1):
                places = torch.randperm(len(keeping), generator=generator)[:k].sort().values
                yield k, draw, [keeping[place] for place in places.tolist()]

    def figure(self, task: Task) -> "Figure | None":
        """Return the score without each block, and over the number of random blocks removed."""
        from resdomains.probes import figures

        if self.baseline is None:
            return None
        chance = task.chance(task.spec)
        return figures.lesion(
            self.blocks, self.newest, self.baseline, chance, self.scores_by_number()
        )


def spread(count: int, most: int = 8) -> list[int]:
    """Return up to `most` whole numbers from 1 to `count`, close together at first."""
    if count < 1:
        return []
    steps = max(most - 1, 1)
    return sorted({round(count ** (i / steps)) for i in range(most)})
