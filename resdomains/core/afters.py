"""What follows the sum of a convolutional block."""

from __future__ import annotations

from resdomains.core.parts import Chain
from resdomains.core.place import Place


class After(Chain):
    """The contract: keeps ``place.out_channels`` and the size."""


class Nothing(After):
    """The sum as it is (He et al. 2016)."""

    def __init__(self, place: Place) -> None:
        super().__init__()


class Activated(After):
    """``activation(y)`` (He et al. 2015)."""

    def __init__(self, place: Place) -> None:
        super().__init__(act=place.activation())


class NormActivated(After):
    """``activation(norm(y))``: post-norm, which DeepNorm needs."""

    def __init__(self, place: Place) -> None:
        super().__init__(norm=place.norm(place.out_channels), act=place.activation())
