"""Classifier heads."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from resdomains.core.features import Features
from resdomains.core.linear import Linear
from resdomains.core.masks import largest, mean


class TaskHead(nn.Module):
    """The contract of what stands on a network and has an output for each name that a task knows.

    ``rows`` are the keys of its state that have a row (along axis 0) for each of these outputs, in
    their order; outputs that another run knew as well can so keep their weights.
    """

    rows: ClassVar[tuple[str, ...]] = ()


class Head(TaskHead):
    """``logits = W dropout(embed(features)) + bias``; ``embed`` is the head's own.

    ``features_channels`` is a network's ``out_channels[-1]``; ``Features`` become ``(B, classes)``,
    or ``(B, T, classes)`` where a head answers for every position.

    Raises:
        ValueError: ``classes`` is below 1.
    """

    rows = ("linear.weight", "linear.bias")

    def __init__(self, features_channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes: expected at least 1, got {classes}")
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features_channels, classes)

    def embed(self, features: Features) -> Tensor:
        """What the linear map reads: the channels are its last axis."""
        raise NotImplementedError(f"{type(self).__name__} must define embed(features)")

    def forward(self, features: Features) -> Tensor:
        logits: Tensor = self.linear(self.dropout(self.embed(features)))
        return logits


class PooledHead(Head):
    """Reads the mean over the valid positions of the deepest map; vectors as they are."""

    def embed(self, features: Features) -> Tensor:
        """The pooled deepest map, ``(B, features_channels)``."""
        return mean(features.maps[-1], features.valid[-1])


class FrameHead(Head):
    """Reads every position of the deepest map ``(B, C, T)``, padding included: ``(B, T, classes)``.

    ``W`` begins ``init_scale`` times as large as torch has it, and below 1 without a bias: from 0 a
    network first learns what tells outputs apart (ConvNeXt: ``head_init_scale``, Liu et al. 2022).

    Raises:
        ValueError: ``classes`` is below 1, or ``init_scale`` not from 0 to 1.
    """

    def __init__(
        self,
        features_channels: int,
        classes: int,
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        if not 0.0 <= init_scale <= 1.0:
            raise ValueError(f"init_scale: expected 0 to 1, got {init_scale}")
        super().__init__(features_channels, classes, dropout)
        if init_scale < 1.0:
            with torch.no_grad():
                self.linear.weight.mul_(init_scale)
                self.linear.bias.zero_()

    def embed(self, features: Features) -> Tensor:
        """The deepest map as a sequence, ``(B, T, features_channels)``.

        Raises:
            ValueError: the deepest map is no sequence.
        """
        return _sequence(features, "FrameHead").transpose(1, 2)


class Pooler(nn.Module):
    """The contract: maps the first position's vector ``(B, C)`` to ``(B, C)``.

    ``FirstTokenHead`` takes a factory ``Callable[[int], Pooler]`` of C.
    """


class BarePooler(Pooler):
    """The vector as it is (ViT)."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class TanhPooler(Pooler):
    """``tanh(W dropout(x) + bias)`` (BERT, without the dropout; RoBERTa's classifier, with it)."""

    def __init__(self, channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(self.dropout(x)))


class ReluPooler(Pooler):
    """``max(W x + bias, 0)`` (DistilBERT's classifier)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))


class FirstTokenHead(Head):
    """Reads the first position of the deepest map ``(B, C, T)``: the classifiers of BERT and ViT.

    Raises:
        ValueError: ``classes`` is below 1.
    """

    def __init__(
        self,
        features_channels: int,
        classes: int,
        dropout: float = 0.0,
        pooler: Callable[[int], Pooler] = BarePooler,
    ) -> None:
        super().__init__(features_channels, classes, dropout)
        self.pooler = pooler(features_channels)

    def embed(self, features: Features) -> Tensor:
        """The pooled first position, ``(B, features_channels)``.

        Raises:
            ValueError: the deepest map is no sequence.
        """
        first: Tensor = self.pooler(_sequence(features, "FirstTokenHead")[:, :, 0])
        return first


class KMaxHead(Head):
    """Reads a perceptron over the ``k`` largest values of each channel, in order of position.

    ``layers`` hidden layers of ``hidden`` numbers end in a ReLU each (VDCNN: Conneau et al. 2017,
    two of 2048). Items of fewer than ``k`` positions have zeros for the rest.

    Raises:
        ValueError: ``classes``, ``k`` or ``hidden`` is below 1, or ``layers`` below 0.
    """

    def __init__(
        self,
        features_channels: int,
        classes: int,
        dropout: float = 0.0,
        k: int = 8,
        hidden: int = 2048,
        layers: int = 2,
    ) -> None:
        if k < 1 or hidden < 1:
            name, value = ("k", k) if k < 1 else ("hidden", hidden)
            raise ValueError(f"{name}: expected at least 1, got {value}")
        if layers < 0:
            raise ValueError(f"layers: expected 0 or more hidden layers, got {layers}")
        widths = [features_channels * k, *[hidden] * layers]
        super().__init__(widths[-1], classes, dropout)
        self.k = k
        self.hidden = nn.Sequential()
        for before, after in pairwise(widths):
            self.hidden.extend((nn.Linear(before, after), nn.ReLU()))

    def embed(self, features: Features) -> Tensor:
        """The last hidden layer, ``(B, hidden)``.

        Raises:
            ValueError: the deepest map is no sequence.
        """
        deepest = _sequence(features, "KMaxHead")
        embedded: Tensor = self.hidden(largest(deepest, features.valid[-1], self.k).flatten(1))
        return embedded


def _sequence(features: Features, name: str) -> Tensor:
    """The deepest map, ``(B, C, T)``.

    Raises:
        ValueError: it is no sequence.
    """
    deepest = features.maps[-1]
    if deepest.dim() != 3:
        raise ValueError(
            f"features: {name} expected sequences (B, C, T), got {tuple(deepest.shape)}"
        )
    return deepest
