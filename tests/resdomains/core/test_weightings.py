"""N-grams weighted by how rare they are, against scikit-learn's TF-IDF."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from resdomains.core import (
    InverseFrequency,
    LayerNorm,
    NGramStem,
    Place,
    PooledHead,
    ResNet1d,
    Uniform,
    Weighting,
)
from resdomains.core.activations import ReLU
from resdomains.core.masks import Valid
from resdomains.core.masks import mean as masked_mean
from resdomains.core.norms import BatchNorm
from tests.pairs import in_two_processes

IDS = 6
TEXTS = [[1, 2, 1, 1, 5], [2, 2], [3, 1, 2, 1, 2, 1, 2], [4], [5, 1, 2]]


def batch(texts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids with padding that would count if it were read."""
    lengths = torch.tensor([len(text) for text in texts])
    ids = torch.full((len(texts), int(lengths.max())), 1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    return ids, lengths


BUCKETS = 1024


def stem(
    orders: tuple[int, ...] = (1,), weighting: Callable[[int], Weighting] = InverseFrequency
) -> NGramStem:
    """Each n-gram has a channel of its own, in which its vector is 1."""
    place = Place(IDS, IDS + BUCKETS, BatchNorm, ReLU, dims=1)
    built = NGramStem(place, orders=orders, buckets=BUCKETS, weighting=weighting)
    torch.nn.init.eye_(built.get_parameter("grams.weight"))
    return built


def pooled(stem: NGramStem, texts: list[list[int]]) -> torch.Tensor:
    ids, lengths = batch(texts)
    valid = Valid.of(lengths, ids.shape[1])
    return masked_mean(stem(stem.read(ids), valid), valid)


def grams(orders: tuple[int, ...]) -> Callable[[list[int]], list[tuple[int, ...]]]:
    return lambda text: [tuple(text[i : i + n]) for n in orders for i in range(len(text) - n + 1)]


@pytest.mark.parametrize("orders", [(1,), (1, 2, 3)])
def test_the_mean_over_positions_is_scikit_learns_tf_idf(orders: tuple[int, ...]) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    theirs = text.TfidfVectorizer(analyzer=grams(orders), sublinear_tf=True)
    known = torch.tensor(theirs.fit_transform(TEXTS).toarray(), dtype=torch.float32)
    channels = []
    for gram in sorted(theirs.vocabulary_, key=theirs.vocabulary_.get):
        alone = stem((len(gram),), Uniform)
        channels.append(int(alone(alone.read(torch.tensor([gram])))[0, :, 0, -1].argmax()))
    assert len(set(channels)) == len(channels)
    ours = stem(orders)
    torch.testing.assert_close(pooled(ours.train(), TEXTS)[:, channels], known)
    torch.testing.assert_close(pooled(ours.eval(), TEXTS)[:, channels], known)
    # Never met: [0, 3] holds an n-gram that training had, and others that count for nothing.
    new = [[0, 3], [1, 1, 2, 4]]
    want = torch.tensor(theirs.transform(new).toarray(), dtype=torch.float32)
    torch.testing.assert_close(pooled(ours, new)[:, channels], want)


def test_batches_are_counted_one_after_another_and_only_in_training() -> None:
    whole, parts = stem((1, 2)), stem((1, 2))
    pooled(whole.train(), TEXTS)
    for half in (TEXTS[:2], TEXTS[2:]):
        pooled(parts.train(), half)
    pooled(parts.eval(), TEXTS)
    counts = {k: v for k, v in parts.state_dict().items() if "items" in k}
    assert counts["grams.weighting.items"] == 5
    assert counts["grams.weighting.items_with"][:IDS].tolist() == [0, 3, 4, 1, 1, 2]
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in counts.items())


def test_a_text_without_a_known_n_gram_is_zero() -> None:
    ours = stem()
    assert not pooled(ours.eval(), TEXTS).any()
    pooled(ours.train(), TEXTS)
    assert not pooled(ours.eval(), [[0, 0]]).any()


def test_a_text_alone_is_the_text_in_a_batch() -> None:
    torch.manual_seed(0)
    weighted = partial(NGramStem, orders=(1, 2), buckets=128, weighting=InverseFrequency)
    network = ResNet1d((2,), (6,), IDS, stem=weighted, norm=LayerNorm)
    torch.nn.init.normal_(network.get_parameter("stem.grams.weight"))
    ids, lengths = batch(TEXTS)
    network.train()(ids, lengths)
    together = network.eval()(ids, lengths).maps[-1]
    for text, row in zip(TEXTS, together, strict=True):
        alone = network(torch.tensor([text])).maps[-1][0]
        torch.testing.assert_close(alone, row[:, : len(text)])


def test_uniform_weights_sum() -> None:
    rows, whole = torch.zeros(1, 3, 2, dtype=torch.long), torch.ones(1, 3, 2, dtype=torch.bool)
    whole[0, 0, 1] = False
    assert torch.equal(Uniform(4)(rows, whole, None), whole.float())


def test_scale_multiplies_and_must_be_positive() -> None:
    ours, tenfold = stem(), stem(weighting=partial(InverseFrequency, scale=10))
    torch.testing.assert_close(pooled(tenfold.train(), TEXTS), 10 * pooled(ours.train(), TEXTS))
    with pytest.raises(ValueError, match="scale: expected a number above 0, got 0"):
        InverseFrequency(4, scale=0)


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        weighted = partial(NGramStem, orders=(1, 2), buckets=64, weighting=InverseFrequency)
        self.network = ResNet1d((1,), (6,), IDS, stem=weighted, norm=LayerNorm)
        self.head = PooledHead(6, 3)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.network(ids, lengths))
        return logits


def state_after(model: torch.nn.Module, texts: list[list[int]]) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(*batch(texts)).square().mean().backward()
        optimizer.step()
    return {k.removeprefix("module."): v for k, v in model.state_dict().items()}


def work(rank: int) -> dict[str, torch.Tensor]:
    return state_after(DistributedDataParallel(Classifier()), TEXTS[2 * rank : 2 * rank + 2])


@pytest.mark.slow
def test_two_processes_count_together(tmp_path: Path) -> None:
    halves, _ = in_two_processes(work, tmp_path)
    for name, value in state_after(Classifier(), TEXTS[:4]).items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=5e-5, msg=name)
