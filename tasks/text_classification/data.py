"""What every data module of texts shares: a tokenizer, encoded texts, batches of like length."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from resdomains.schema import Split
from resdomains.training import BadSample, DataModule
from resdomains.training.batches import LengthBatches
from resdomains.training.randomness import uniforms

from .augment import Augment
from .encoding import Encoded, Encoder
from .spec import TextSpec
from .texts import Corpus, Texts
from .tokens import Tokens

_SHOWN = 1000  # characters of a text in a table


class EncodedTexts(Dataset[dict[str, Tensor]]):
    """Encoded texts with their targets, given out a whole batch at a time.

    Args:
        encoded: The ids of all texts.
        targets: (N,) class numbers, (N, K) multi-hot, or (N,) numbers.
        texts: What was encoded.
    """

    def __init__(self, encoded: Encoded, targets: Tensor, texts: Texts) -> None:
        self.encoded, self.targets, self.texts = encoded, targets, texts
        self.lengths = encoded.offsets.diff()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Return the batch of the given samples."""
        index = torch.as_tensor(indices)
        return {
            **self.encoded.padded(index),
            "target": self.targets[index],
            "index": index,
        }


class TextData(DataModule, ABC):
    """Texts with class names, several labels or numbers.

    A batch is `{"ids": (B, T), "lengths": (B,), "target": (B,) or (B, K), "index": (B,)}`; for pairs `ids` is
    (B, 2, T) with the number of the text, 0 or 1, in the second row. Texts are encoded once, and kept in a cache by
    their content.

    Args:
        batch_size: Texts of a batch over all processes together, on average: batches hold about equally many tokens.
        tokens: What a token is.
        max_length: Tokens of an item, the special ones included, at most.
        truncation: What is kept of a longer text: its `head`, its `tail`, or `both` ends.
        augment: Random changes of training batches, in order.
        num_workers: Loader processes; 0, reading in the training process, is the fastest for texts in memory.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        tokens: Tokens,
        max_length: int = 256,
        truncation: Literal["head", "tail", "both"] = "head",
        augment: list[Augment] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        self.tokens = tokens
        self.max_length = max_length
        self.truncation = truncation
        self.augment = list(augment or [])
        self._splits: dict[Split, EncodedTexts] = {}
        self._spec: TextSpec | None = None
        self._trained: TextSpec | None = None
        self._notes: list[str] = []

    def adopt(self, spec: Mapping[str, Any]) -> None:
        """Take the tokenizer and the classes of a trained task in place of the training split's."""
        self._trained = TextSpec.of(spec)

    def describe(self, split: Split, index: int) -> dict[str, Any]:
        """Return the beginning of a text, of the second one of a pair, and where it stands."""
        texts = self._splits[split].texts
        pair = {} if texts.pairs is None else {"pair": texts.pairs[index][:_SHOWN]}
        return {"source": texts.sources[index], "text": texts.texts[index][:_SHOWN], **pair}

    @abstractmethod
    def read(self) -> Corpus:
        """Read all splits.

        Raises:
            ValueError: If data are missing or malformed, naming the argument and the path.
        """

    def prepare(self) -> None:
        """Read, train the tokenizer on the training split, encode, and describe the data."""
        corpus = self.read()
        train = corpus.splits["train"]
        trained = self._trained
        tokenizer = trained.tokenizer if trained else self.tokens.train(_all(train)).to_str()
        encoder = Encoder(tokenizer, self.max_length, self.truncation)
        encoded = {s: encoder.cached(t.texts, t.pairs) for s, t in corpus.splits.items()}
        classes = _classes(corpus)
        if trained and bool(trained.classes) != bool(classes):
            raise ValueError(
                f"the targets are {'classes' if classes else 'numbers'}, the checkpoint was trained with "
                f"{'classes' if trained.classes else 'numbers'}"
            )
        classes = trained.classes if trained else classes
        targets = {s: _targets(t, classes) for s, t in corpus.splits.items()}
        self._splits = {
            s: EncodedTexts(encoded[s], targets[s], t) for s, t in corpus.splits.items()
        }
        numeric = not classes
        # Of one number, torch gives no standard deviation.
        spread = float(targets["train"].std(correction=0)) if numeric else 1.0
        self._spec = TextSpec(
            classes=classes,
            multilabel=targets["train"].ndim == 2,
            prevalence=_prevalence(targets["train"], len(classes)),
            mean=float(targets["train"].mean()) if numeric else 0.0,
            std=spread,
            tokenizer=tokenizer,
            vocabulary=trained.vocabulary if trained else self.tokens.vocabulary,
            max_length=self.max_length,
            truncation=self.truncation,
            pair=train.pairs is not None,
            text_column=corpus.text_column,
            pair_column=corpus.pair_column,
        )
        self._notes = [*corpus.notes, *self._truncated(encoded), *self._blank(encoded)]

    def _truncated(self, encoded: dict[Split, Encoded]) -> Iterator[str]:
        """Say how many texts were cut."""
        cut = {s: e.cut for s, e in encoded.items() if e.cut}
        if cut:
            kept = {"head": "the head", "tail": "the tail", "both": "both ends"}[self.truncation]
            said = ", ".join(
                f"{count:,} of {len(self._splits[s]):,} in {s}" for s, count in cut.items()
            )
            yield (
                f"texts of more than {self.max_length} tokens are cut, {kept} kept: {said} "
                "(--data.max_length, --data.truncation)"
            )

    def _blank(self, encoded: dict[Split, Encoded]) -> Iterator[str]:
        """Name texts in which the tokenizer finds nothing."""
        named = [self._splits[s].texts.sources[i] for s, e in encoded.items() for i in e.blank]
        if named:
            yield (
                f"{len(named):,} texts hold nothing that {type(self.tokens).__name__} reads and are one unknown token: "
                f"{', '.join(named[:5])}{' ...' if len(named) > 5 else ''}"
            )

    @property
    def notes(self) -> list[str]:
        """What was guessed, cut or left out."""
        self.ready()
        return list(self._notes)

    @property
    def text_spec(self) -> TextSpec:
        """The description that `spec` gives in plain values."""
        self.ready()
        assert self._spec is not None
        return self._spec

    @property
    def spec(self) -> dict[str, Any]:
        """What the task must know, in plain values."""
        return self.text_spec.plain()

    def dataset(self, split: Split) -> EncodedTexts | None:
        """Return a split; there may be no `val` and no `test`."""
        return self._splits.get(split)

    def collate(self, items: Any) -> Any:
        """Return what the data set's `__getitems__` gave: a whole batch."""
        return items

    def transform(self, batch: dict[str, Any], split: Split) -> dict[str, Any]:
        """Augment a training batch."""
        if split != "train" or not self.augment:
            return batch
        ids, lengths = batch["ids"], batch["lengths"]
        total, longest = sum(part.draws for part in self.augment), ids.shape[-1]
        # Position by position, so that what a token draws does not depend on the batch's padding.
        u = uniforms(self.seed, self.epoch, batch["index"], longest * total)
        draws = [part.draws for part in self.augment]
        shares = torch.split(u.view(-1, longest, total), draws, -1)
        for part, share in zip(self.augment, shares, strict=True):
            ids = part(ids, lengths, share)
        return {**batch, "ids": ids}

    def amount(self, positions: int) -> str:
        """Return a number of tokens."""
        return f"{positions:,} tokens"

    def batch_sampler(self, split: Split, rank: int, world: int) -> LengthBatches:
        """Return this process's batches of a split: texts of like length, equally many tokens."""
        self.ready_dataset(split)
        return LengthBatches(
            self._splits[split].lengths,
            self.batch_size,
            rank,
            world,
            shuffle=split == "train",
            seed=self.seed,
            multiple=self.accumulated(split),
        )


def _all(texts: Texts) -> Iterator[str]:
    return chain(texts.texts, texts.pairs or ())


def _classes(corpus: Corpus) -> list[str]:
    """The class names in order; none where targets are numbers."""
    targets = corpus.splits["train"].targets
    if all(isinstance(target, int | float) for target in targets):
        return []
    named = {name for names in _names(corpus.splits["train"]) for name in names}
    return corpus.classes if corpus.classes is not None else sorted(named)


def _names(texts: Texts) -> list[list[str]]:
    """The class names of each text."""
    targets = (target for target in texts.targets if not isinstance(target, int | float))
    return [[target] if isinstance(target, str) else target for target in targets]


def _targets(texts: Texts, classes: list[str]) -> Tensor:
    """Class names as numbers, label names as (N, K) multi-hot, numbers as they are.

    Raises:
        BadSample: If a target is none of the classes.
    """
    if not classes:
        return torch.tensor(texts.targets, dtype=torch.float32)
    number = {name: k for k, name in enumerate(classes)}
    several = _names(texts)
    for source, names in zip(texts.sources, several, strict=True):
        for name in names:
            if name not in number:
                known = ", ".join(classes[:10]) + (" ..." if len(classes) > 10 else "")
                raise BadSample(
                    source, f"label {name!r} is not one of the training split's: {known}"
                )
    if all(isinstance(target, str) for target in texts.targets):
        return torch.tensor([number[name] for (name,) in several])
    hot = torch.zeros(len(texts), len(classes))
    rows = [row for row, names in enumerate(several) for _ in names]
    hot[rows, [number[name] for names in several for name in names]] = 1.0
    return hot


def _prevalence(targets: Tensor, count: int) -> list[float]:
    """The share of the texts that have each class."""
    if not count:
        return []
    hot = targets if targets.ndim == 2 else torch.nn.functional.one_hot(targets, count)
    shares: list[float] = hot.double().mean(0).tolist()
    return shares
