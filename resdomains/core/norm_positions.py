"""Where the norms of an encoder or an MLP stand.

Networks take an instance; each method says what stands at one point of the network. A place's
``index`` and ``depth`` count sums; those of the network's start and end are 0 and 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from resdomains.core.parts import Bare, Chain, Part
from resdomains.core.place import SequencePlace


class NormPosition(ABC):
    """The contract."""

    @abstractmethod
    def start(self, place: SequencePlace) -> Part:
        """What stands between the stem and the first block."""

    @abstractmethod
    def branch(self, place: SequencePlace, branch: Part) -> Part:
        """``branch`` with what leads it."""

    @abstractmethod
    def after(self, place: SequencePlace, last: bool) -> Part:
        """What follows a sum; ``last`` says that it is the last one of its layer."""

    @abstractmethod
    def end(self, place: SequencePlace) -> Part:
        """What follows the last block."""


class PreNorm(NormPosition):
    """``y = x + branch(norm(x))``, and a norm at the end (Xiong et al. 2020)."""

    def start(self, place: SequencePlace) -> Part:
        return Bare()

    def branch(self, place: SequencePlace, branch: Part) -> Part:
        return Chain(norm=place.norm(place.width), body=branch)

    def after(self, place: SequencePlace, last: bool) -> Part:
        return Bare()

    def end(self, place: SequencePlace) -> Part:
        return place.norm(place.width)


class PostNorm(NormPosition):
    """``y = norm(x + branch(x))``, and a norm after the stem (Vaswani et al. 2017; BERT).

    DeepNorm needs it.
    """

    def start(self, place: SequencePlace) -> Part:
        return place.norm(place.width)

    def branch(self, place: SequencePlace, branch: Part) -> Part:
        return branch

    def after(self, place: SequencePlace, last: bool) -> Part:
        return Chain(norm=place.norm(place.width))

    def end(self, place: SequencePlace) -> Part:
        return Bare()


class ConformerNorm(NormPosition):
    """``y = x + branch(norm(x))``, and a norm at the end of every layer (Gulati et al. 2020)."""

    def start(self, place: SequencePlace) -> Part:
        return Bare()

    def branch(self, place: SequencePlace, branch: Part) -> Part:
        return Chain(norm=place.norm(place.width), body=branch)

    def after(self, place: SequencePlace, last: bool) -> Part:
        return Chain(norm=place.norm(place.width)) if last else Bare()

    def end(self, place: SequencePlace) -> Part:
        return Bare()
