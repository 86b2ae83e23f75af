"""The mistakes that a picture classifier is surest of, against their definition."""

import torch
from torch import Tensor
from torchmetrics import Metric

from resdomains_tasks.image_classification.metrics import Mistakes

CLASSES = 7


def answers(count: int = 400) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, CLASSES, (count,), generator=generator)
    logits = torch.randn(count, CLASSES, generator=generator)
    logits[torch.arange(count), targets] += 1.5
    return logits.softmax(1), targets


def updated(metric: Metric, *inputs: Tensor) -> Metric:
    for part in zip(*(torch.split(tensor, 57) for tensor in inputs), strict=True):
        metric.update(*part)
    return metric


def result(metric: Metric, *inputs: Tensor) -> Tensor:
    value: Tensor = updated(metric, *inputs).compute()
    return value


def test_mistakes_are_the_wrong_answers_of_highest_confidence() -> None:
    probabilities, targets = answers()
    images = torch.rand(400, 1, 4, 4)
    rows = result(Mistakes(1, 4, 4, keep=6), probabilities, targets, images, torch.arange(400))
    confidence, predicted = probabilities.max(1)
    wrong = (predicted != targets).nonzero()[:, 0]
    best = wrong[confidence[wrong].argsort(descending=True)][:6]
    assert rows[:, 3].long().tolist() == best.tolist()
    assert torch.equal(rows[:, 0].float(), confidence[best])
    assert torch.equal(rows[:, 1:3].long(), torch.stack((targets[best], predicted[best]), 1))
    assert torch.equal(rows[:, 4:].float(), images[best].flatten(1))


def test_without_mistakes_there_are_no_rows_and_large_pictures_are_shrunk() -> None:
    metric = Mistakes(3, 300, 150, keep=4)
    assert metric.shape == (3, 96, 48)
    certain, targets = torch.eye(3), torch.arange(3)
    metric.update(certain, targets, torch.rand(3, 3, 300, 150), targets)
    assert len(metric.compute()) == 0
    metric.update(certain, targets.roll(1), torch.rand(3, 3, 300, 150), targets)
    assert metric.compute().shape == (3, 4 + 3 * 96 * 48)


def test_mistakes_of_processes_arrive_stacked() -> None:
    """torchmetrics stacks a tensor state of equal shape from all processes, whatever its reduction."""
    inputs = (*answers(), torch.rand(400, 1, 2, 2), torch.arange(400))
    parts = [updated(Mistakes(1, 2, 2, keep=5), *(x[i::2] for x in inputs)) for i in (0, 1)]
    together = updated(Mistakes(1, 2, 2, keep=5), *(x[:1] for x in inputs))
    together.rows = torch.stack([part.rows for part in parts if isinstance(part.rows, Tensor)])
    assert torch.equal(together.compute(), result(Mistakes(1, 2, 2, keep=5), *inputs))


def test_processes_merged_equal_one() -> None:
    """Merge the states of two metrics by torchmetrics' own rules, as its synchronisation does."""
    inputs = (*answers(), torch.rand(400, 1, 2, 2), torch.arange(400))
    alone = result(Mistakes(1, 2, 2, keep=5), *inputs)
    first = updated(Mistakes(1, 2, 2, keep=5), *(x[:150] for x in inputs))
    first.merge_state(updated(Mistakes(1, 2, 2, keep=5), *(x[150:] for x in inputs)))
    assert torch.allclose(first.compute(), alone)
