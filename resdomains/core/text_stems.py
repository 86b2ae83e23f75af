"""Stems that read ids along one axis: characters, bytes or pieces of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from resdomains.core.grams import Grams, WordGrams
from resdomains.core.linear import Dropout
from resdomains.core.masks import Valid
from resdomains.core.parts import Part
from resdomains.core.place import Place
from resdomains.core.stems import Stem
from resdomains.core.tables import Table
from resdomains.core.weightings import Uniform, Weighting


class IdStem(Stem):
    """A stem that reads ids ``(B, L)`` from 0 to ``in_channels - 1``, along one axis.

    The vocabulary takes the place of channels. Nothing normalises or activates the output.

    Raises:
        ValueError: the network is not one-dimensional.
    """

    stride = 1
    activated = False

    def __init__(self, place: Place, **parts: nn.Module) -> None:
        if place.dims != 1:
            raise ValueError(
                f"stem={type(self).__name__} reads one axis of text, but this network has "
                f"{place.dims} axes; use a ResNet1d"
            )
        super().__init__(place, **parts)

    def read(self, x: Tensor) -> Tensor:
        """Ids ``(B, L)`` as ``(B, 1, 1, L)``.

        Raises:
            ValueError: ``x`` is not ``(B, L)``, or an id leaves the vocabulary (checked for CPU
                tensors only: elsewhere reading it would stall the device).
            TypeError: ``x`` does not hold integers.
        """
        if x.dim() != 2:
            raise ValueError(f"x: expected 2 axes (B, L) of ids, got {tuple(x.shape)}")
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(f"x: expected integers (ids), got {x.dtype}")
        if x.device.type == "cpu" and x.numel():
            low, high = int(x.min()), int(x.max())
            if low < 0 or high >= self.in_channels:
                raise ValueError(
                    f"x: expected ids from 0 to {self.in_channels - 1} (the network was built with "
                    f"in_channels={self.in_channels}, the size of its vocabulary), got values from "
                    f"{low} to {high}"
                )
        return x.long()[:, None, None]


class CharacterStem(IdStem):
    """A vector of ``embedding`` numbers for each character, and a convolution of 3 over them.

    Reads ids ``(B, L)`` (VDCNN, Conneau et al. 2017).

    Raises:
        ValueError: the network is not one-dimensional.
    """

    def __init__(self, place: Place, kernel: int = 3, embedding: int = 16) -> None:
        super().__init__(
            place,
            embedding=_Lookup(place.in_channels, embedding),
            conv=place.conv(embedding, place.out_channels, kernel, bias=True),
        )


class NGramStem(IdStem):
    """``sum_n weight v``, the vectors of the n-grams of ids that end at a position, n in ``orders``.

    ``weighting``, built with the number of vectors, says how much each n-gram of an item counts.
    Ids of themselves have a vector each; longer n-grams share ``buckets`` vectors by a hash (Joulin
    et al. 2017; of characters, Bojanowski et al. 2017). Those vectors start at zero, so that an
    n-gram which training never met changes nothing; those of ids start with the standard deviation
    ``std``. No n-gram reaches over the beginning of an item, nor, given ``letters``, from one word
    into another: what lies between its first and its last id are ids from ``letters[0]`` to
    ``letters[1]``. In training each n-gram is left out with chance ``gram_dropout`` and each number of
    the sum with chance ``dropout``; what stays is divided by the chance of staying. Reads ids
    ``(B, L)``.

    Raises:
        ValueError: the network is not one-dimensional, ``orders`` is empty, repeats itself or holds
            a number below 1, ``buckets`` is below 1, a chance is not in [0, 1), ``std`` is below 0,
            or ``letters`` are not two ids in order.
    """

    def __init__(
        self,
        place: Place,
        orders: Sequence[int] = (1, 2, 3),
        buckets: int = 65536,
        gram_dropout: float = 0.0,
        dropout: float = 0.0,
        weighting: Callable[[int], Weighting] = Uniform,
        std: float = 0.1,
        letters: tuple[int, int] | None = None,
    ) -> None:
        if std < 0:
            raise ValueError(f"std: expected a standard deviation of at least 0, got {std}")
        ids = place.in_channels
        if letters is not None:
            _check_letters(letters, ids)
        grams = Grams(ids, letters, place.out_channels, orders, buckets, gram_dropout, weighting)
        nn.init.normal_(grams.weight[:ids], std=std)
        super().__init__(place, grams=grams, dropout=_dropout(dropout))


class WordNGramStem(IdStem):
    """``NGramStem`` of whole words: n-grams of runs of letters, at the position where each ends.

    Letters are the ids from ``letters[0]`` to ``letters[1]``; every other id stands between words.
    Of the ids that VDCNN's alphabet has in text classification, 2 to 37 are a to z and 0 to 9. All
    n-grams of words share ``buckets`` vectors by a hash, and all start at zero. Beside the n-grams of
    ids (``SumStem``) it is the reading of words and characters that linear models of texts do best
    with. Reads ids ``(B, L)``.

    Raises:
        ValueError: the network is not one-dimensional, ``letters`` are not two ids in order,
            ``orders`` is empty, repeats itself or holds a number below 1, ``buckets`` is below 1, or
            a chance is not in [0, 1).
    """

    def __init__(
        self,
        place: Place,
        letters: tuple[int, int],
        orders: Sequence[int] = (1, 2),
        buckets: int = 65536,
        gram_dropout: float = 0.0,
        dropout: float = 0.0,
        weighting: Callable[[int], Weighting] = Uniform,
    ) -> None:
        _check_letters(letters, place.in_channels)
        grams = WordGrams(letters, place.out_channels, orders, buckets, gram_dropout, weighting)
        super().__init__(place, grams=grams, dropout=_dropout(dropout))


class _Lookup(Table, Part):
    """Ids ``(B, 1, 1, L)`` to the vectors of each, ``(B, D, 1, L)``."""

    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return super().forward(x.squeeze(1)).movedim(-1, 1)


def _dropout(chance: float) -> Dropout:
    if not 0.0 <= chance < 1.0:
        raise ValueError(f"dropout: expected a chance in [0, 1), got {chance}")
    return Dropout(chance)


def _check_letters(letters: tuple[int, int], ids: int) -> None:
    first, last = letters
    if not 0 <= first <= last < ids:
        raise ValueError(
            "letters: expected the first and the last id of those that words are made of, from 0 to "
            f"{ids - 1} (the network was built with in_channels={ids}), got {list(letters)}"
        )
